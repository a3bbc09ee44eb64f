"""AttentionTable: how much of its attention a policy pays to each predicted frame, chunk by chunk.

The Parquet contract (`SCHEMA`). There is one row for each action chunk, denoising step, head and predicted frame k, in
this order. The columns:

* `train_seed`, `task`, `episode`, `episode_steps` and `step`: where the chunk is. At rollout, `episode` is an initial
  state and `task` is LIBERO's; in training, they are the dataset's `episode_index` and `task_index`.
* `denoise_step` and `head`: counted from 0.
* `k`: 1 … K frames ahead.
* `attention`: sums to 1 over k, and is a mean over the chunk's first actions.
* `memory_norm`: the root mean square of the memory's row k, in standard units.
* `gate`: tanh(gate).

The schema's metadata holds an `AttentionSpec`. Light (no torch).

Non-obvious behaviours:
* A policy without a world modality attends to nothing: its table has no rows, and its spec has no cameras.
* A policy predicts a whole chunk of actions, but only the first `AttentionSpec.actions` of them are executed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, ValidationError, model_validator

from world_modality.artifacts.parquet import read_schema, read_table, write_table
from world_modality.errors import InputError
from world_modality.experiment.sections import Camera, OptionName, Section, explain

METADATA_KEY = b"world_modality.attention"
KIND = "attention table"
TOLERANCE = 1e-4  # how far a sum over k may be from 1, in float32
SCHEMA = pa.schema(
    {
        "train_seed": pa.int64(),
        "task": pa.int16(),
        "episode": pa.int32(),
        "episode_steps": pa.int32(),  # length of the episode [control steps]
        "step": pa.int32(),  # control step at which the chunk starts
        "denoise_step": pa.int16(),
        "head": pa.int16(),
        "k": pa.int8(),
        "attention": pa.float32(),
        "memory_norm": pa.float32(),
        "gate": pa.float32(),
    }
)
EPISODE = ("train_seed", "task", "episode")


class AttentionSpec(Section):
    """What the attention in a table was measured on, and how."""

    option: OptionName
    where: Literal["training", "rollout"]
    cameras: dict[Camera, str] = Field(description="the world cameras and their image keys; none: no world modality")
    memory: str = Field(description="what is attended to")
    denoise_steps: int = Field(ge=0)
    heads: int = Field(ge=0)
    horizon: int = Field(ge=0, le=127, description="K")
    actions: int = Field(ge=1, description="first actions of each chunk, over which the attention is averaged")
    checkpoints: dict[str, str] = Field(description="hash of the weights by training seed")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(denoising steps, heads, K) of one chunk's attention."""
        return self.denoise_steps, self.heads, self.horizon

    @model_validator(mode="after")
    def _check(self):
        if bool(self.cameras) != all(self.shape) or bool(self.cameras) != any(self.shape):
            raise ValueError(f"{len(self.cameras)} world cameras do not go with attention of shape {self.shape}")
        return self


# ---- making rows ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ChunkAttention:
    """The attention recorded while B action chunks were predicted, and the memory it was paid to."""

    weights: np.ndarray  # (B, denoising steps, heads, K) float32, sums to 1 over K
    memory_norm: np.ndarray  # (B, K) float32, in standard units
    gate: float  # tanh(gate)

    @classmethod
    def of(cls, heard: Sequence[Any], actions: int) -> ChunkAttention:
        """The attention of the first `actions` of each chunk, from the list that `SmolVLAWorldPolicy.listening` yields.

        Args:
            heard: for each denoising step, the policy's weights (B, heads, chunk, K), memory (B, K, D) and strength.
        """
        weights = [step.weights[:, :, :actions].mean(dim=2).cpu().numpy() for step in heard]
        norm = heard[0].memory.square().mean(dim=2).sqrt().cpu().numpy()
        return cls(np.stack(weights, axis=1), norm, heard[0].strength.item())

    def row(self, row: int) -> ChunkAttention:
        """That of one of the chunks."""
        return ChunkAttention(self.weights[row : row + 1], self.memory_norm[row : row + 1], self.gate)

    def rows(self, **place: Any) -> pa.Table:
        """The chunks' rows in the order of the contract.

        Args:
            place: train_seed, task, episode, episode_steps and step, each one value for all chunks or an array (B,).
        """
        shape = self.weights.shape
        _, steps, heads, horizon = shape
        columns = {name: np.reshape(value, (-1, 1, 1, 1)) for name, value in place.items()}
        columns |= {
            "denoise_step": np.arange(steps)[:, None, None],
            "head": np.arange(heads)[:, None],
            "k": np.arange(1, horizon + 1),
            "attention": self.weights,
            "memory_norm": self.memory_norm[:, None, None],
            "gate": np.float32(self.gate),
        }
        arrays = [pa.array(np.broadcast_to(columns[f.name], shape).ravel()).cast(f.type) for f in SCHEMA]
        return pa.Table.from_arrays(arrays, schema=SCHEMA)


def write_episodes(path: Path, spec: AttentionSpec, tables: Iterable[pa.Table]) -> None:
    """Write the tables of some episodes as one row group."""
    write_attention(path, spec, [pa.concat_tables([SCHEMA.empty_table(), *tables])])


def write_attention(path: str | Path, spec: AttentionSpec, tables: Iterable[pa.Table]) -> None:
    """Write a table from its parts; each part becomes a row group."""
    write_table(path, SCHEMA.with_metadata({METADATA_KEY: spec.model_dump_json()}), tables)


# ---- reading --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class AttentionTable:
    """A checked table."""

    spec: AttentionSpec
    rows: pa.Table

    @classmethod
    def open(cls, path: str | Path) -> AttentionTable:
        """Read and check a table.

        Raises:
            InputError: there is no such file; it is truncated or damaged, lacks its metadata, has other columns, has
                rows out of order or missing, holds values that cannot be attention, or holds a chunk twice.
        """
        spec = AttentionTable.spec_of(path)
        rows = read_table(path, KIND).replace_schema_metadata()
        if not rows.schema.equals(SCHEMA):
            found, valid = (", ".join(f"{f.name} {f.type}" for f in s) for s in (rows.schema, SCHEMA))
            raise InputError(f"{path}: has the columns {found}; an attention table has {valid}")
        _check_rows(path, spec, rows)
        return cls(spec, rows)

    @staticmethod
    def spec_of(path: str | Path) -> AttentionSpec:
        """Read a file's `AttentionSpec`, without reading its rows."""
        text = (read_schema(path, KIND).metadata or {}).get(METADATA_KEY)
        if text is None:
            raise InputError(f"{path}: no metadata {METADATA_KEY.decode()}: not written as an attention table")
        try:
            return AttentionSpec.model_validate_json(text)
        except ValidationError as error:
            problem = explain(error.errors()[0], AttentionSpec)
            raise InputError(f"{path}: its metadata is not an AttentionSpec ({problem})") from None


def _check_rows(path: str | Path, spec: AttentionSpec, rows: pa.Table) -> None:
    for name in SCHEMA.names:
        if rows[name].null_count:
            raise InputError(f"{path}: {name} is missing in {rows[name].null_count} rows")
    size = int(np.prod(spec.shape))
    if (len(rows) % size if size else len(rows)) or (size and not len(rows)):
        raise InputError(f"{path}: has {len(rows)} rows, expected {size} (denoising steps x heads x K) for each chunk")
    if not len(rows):
        return
    columns = {name: rows[name].to_numpy().reshape(-1, *spec.shape) for name in SCHEMA.names}  # (chunks, S, H, K)
    _check_order(path, spec, columns)
    for name in ("attention", "memory_norm", "gate"):
        _refuse(path, columns, ~np.isfinite(columns[name]), f"has a {name} that is NaN or infinite")
    _refuse(path, columns, columns["attention"] < 0, "pays negative attention")
    sums = columns["attention"].sum(axis=3, dtype=np.float64)
    _refuse(path, columns, abs(sums - 1) > TOLERANCE, "pays attention that does not sum to 1 over k")
    _check_chunks(path, spec, columns)


def _check_order(path: str | Path, spec: AttentionSpec, columns: dict[str, np.ndarray]) -> None:
    """Check that each chunk has all its rows, in order, and that they agree on where the chunk is."""
    steps, heads, horizon = spec.shape
    expected = {
        "denoise_step": np.arange(steps)[:, None, None],
        "head": np.arange(heads)[:, None],
        "k": np.arange(1, horizon + 1),
    }
    expected |= {name: columns[name][:, :1, :1, :1] for name in (*EPISODE, "episode_steps", "step")}
    for name, values in expected.items():
        _refuse(path, columns, columns[name] != values, f"has rows missing or out of order ({name})")


def _check_chunks(path: str | Path, spec: AttentionSpec, columns: dict[str, np.ndarray]) -> None:
    places = np.stack([columns[name][:, 0, 0, 0] for name in (*EPISODE, "step", "episode_steps")], axis=1)
    seed, _, _, step, episode_steps = places.T
    known = [int(known) for known in spec.checkpoints]
    _refuse(path, columns, ~np.isin(seed, known), f"is of none of the training seeds {known}")
    _refuse(path, columns, (step < 0) | (step >= episode_steps), "does not start within its episode")
    _, first, count = np.unique(places[:, :4], axis=0, return_index=True, return_counts=True)
    _refuse(path, columns, np.isin(np.arange(len(places)), first[count > 1]), "appears twice")


def _refuse(path: str | Path, columns: dict[str, np.ndarray], wrong: np.ndarray, what: str) -> None:
    """Raise an InputError naming the first chunk for which `wrong` (chunks, …) is true anywhere, if there is one."""
    chunks = wrong.reshape(len(wrong), -1).any(axis=1)
    if chunks.any():
        seed, task, episode, step = (
            columns[name].reshape(len(chunks), -1)[chunks.argmax(), 0] for name in (*EPISODE, "step")
        )
        raise InputError(f"{path}: the chunk at step {step} of episode {episode} of task {task}, seed {seed}, {what}")


# ---- joining --------------------------------------------------------------------------------------------------------


def join_specs(specs: Mapping[Path, AttentionSpec]) -> AttentionSpec:
    """Join the specs of several parts of one table, given by path; they must be equal except for the checkpoints.

    Raises:
        InputError: two differ in another field, or in the checkpoint of one seed.
    """
    expected = next(iter(specs.values())).model_dump()
    checkpoints: dict[str, str] = {}
    for path, spec in specs.items():
        for name, value in spec.model_dump(exclude={"checkpoints"}).items():
            if value != expected[name]:
                raise InputError(f"{path}: {name} is {value!r}, expected {expected[name]!r}")
        for seed, sha256 in spec.checkpoints.items():
            if checkpoints.setdefault(seed, sha256) != sha256:
                raise InputError(f"{path}: seed {seed} is checkpoint {sha256[:12]}, elsewhere {checkpoints[seed][:12]}")
    return AttentionSpec(**expected | {"checkpoints": checkpoints})


def join_blocks(blocks: Sequence[Path], option: str, episodes: int, output: Path, adaptive: bool = False) -> None:
    """Join the blocks of all tasks and training seeds of one option's rollouts, in the order given.

    Args:
        episodes: initial states 0 … episodes - 1 of each task are kept; a block may hold more.
        adaptive: there may be fewer, but none may be missing before the last.

    Raises:
        InputError: a block is not of the option's rollouts, has another spec than the others, or holds an episode that
            another block holds as well; or an episode of a task and seed is missing.
    """
    specs = {path: AttentionTable.spec_of(path) for path in blocks}
    for path, spec in specs.items():
        if (spec.option, spec.where) != (option, "rollout"):
            raise InputError(f"{path}: is of option {spec.option} in {spec.where}, expected {option} in rollout")
    write_attention(output, join_specs(specs), _joined_rows(blocks, episodes, adaptive))


def _joined_rows(blocks: Sequence[Path], episodes: int, adaptive: bool) -> Iterator[pa.Table]:
    found: dict[tuple[int, int], set[int]] = {}  # (training seed, task): initial states
    for path in blocks:
        rows = AttentionTable.open(path).rows
        rows = rows.filter(pc.less(rows["episode"], episodes))
        for seed, task, episode in zip(*rows.group_by(EPISODE).aggregate([]).to_pydict().values(), strict=True):
            states = found.setdefault((seed, task), set())
            if episode in states:
                raise InputError(f"{path}: episode {episode} of task {task}, seed {seed}, is in another block as well")
            states.add(episode)
        yield rows
    for (seed, task), states in found.items():
        missing = sorted(set(range(max(states) + 1 if adaptive else episodes)) - states)
        if missing:
            raise InputError(f"{blocks[0].parent}: no block holds episode {missing[0]} of task {task}, seed {seed}")
