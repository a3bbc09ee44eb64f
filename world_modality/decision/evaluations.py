"""Comparisons: reads evaluations strictly, and checks that a set of them is fair to compare.

`read_evaluation` reads an `eval_<option>_<task>.json` into an `Evaluation`, and refuses a truncated file, a wrong type,
a duplicated episode, or a name that disagrees with the content. `check_complete` refuses a set in which an evaluation
is missing or was not asked for. `check_comparable` refuses a set in which a difference could come from anything but the
option itself: another protocol, another training budget, other initial states, environment seeds or noise seeds, or a
checkpoint under the wrong name.

Every refusal is a `ComparisonError`, one line that names the offending file and what would have been valid. Keys of the
file that no comparison needs (videos, for example) are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from world_modality.artifacts.documents import read_document
from world_modality.errors import InputError
from world_modality.evaluation.episodes import Episode
from world_modality.experiment.sections import OptionName
from world_modality.simulation.pickup import STAGES

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
SeedName = Annotated[str, StringConstraints(pattern=r"^seed_[0-9]+$")]
NonNegative = Annotated[float, Field(ge=0)]

EPISODE_KEY = ["task", "init_state_id", "train_seed"]
CONDITIONS = [
    "init_state_sha256",
    "env_seed",
    "noise_seed",
]  # equal if the keys are, but for a calibration's noise


class ComparisonError(InputError):
    """An evaluation is unusable, or the comparison would be incomplete or unfair; the message names the offender."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


class Checkpoint(_Record):
    """Which trained weights were rolled out: one checkpoint per training seed."""

    option: OptionName
    source_option: OptionName = Field(description="the option whose training made the weights")
    hashes: dict[SeedName, Sha256] = Field(min_length=1)


class WorldPath(_Record):
    """How much of one checkpoint's world path reaches its actions."""

    gate: NonNegative = Field(description="|tanh(gate)| of the cross-attention")
    action_change_rms: NonNegative = Field(description="RMS change of the normalized actions when the memory is zeroed")
    world_loss: float = Field(description="masked cosine loss of Prophet's prediction")
    copy_last: float = Field(description="the same loss for repeating the last latent")


class RolledOut(_Record):
    """The part of what an option changes at rollout that pairing needs to know."""

    noise_stream: int = Field(ge=0, description="stream of the flow noise; 0 for every option except a calibration")


class Task(_Record):
    id: int = Field(ge=0)
    description: str = Field(min_length=1)


class Evaluation(_Record):
    """Every episode of one option on one task."""

    protocol: dict[str, Any]
    rollout: RolledOut
    checkpoint: Checkpoint
    task: Task
    suite_tasks: int = Field(gt=0, description="tasks in the whole suite")
    training_budget: dict[str, Any]
    learning_schedule: dict[str, float]
    world: dict[SeedName, WorldPath] | None
    episodes: tuple[Episode, ...] = Field(min_length=1)

    @property
    def option(self) -> str:
        return self.checkpoint.option

    @property
    def horizon(self) -> int:
        """After how many control steps an episode fails."""
        return self.protocol["horizon"]

    @property
    def name(self) -> str:
        """The file name the pipeline gives this evaluation."""
        return f"eval_{self.option}_{self.task.id}.json"


def read_evaluation(path: str | Path) -> Evaluation:
    """Read one evaluation.

    Raises:
        ComparisonError: the file is missing, malformed, contradicts itself or has another evaluation's name.
    """
    path = Path(path)
    try:
        evaluation = read_document(Evaluation, path, "an evaluation")
    except InputError as error:
        raise ComparisonError(str(error)) from None
    if path.name != evaluation.name:
        raise ComparisonError(f"{path}: holds what {evaluation.name} should hold; was the file renamed or swapped?")
    try:
        _check_episodes(evaluation)
    except (pl.exceptions.PolarsError, OverflowError):
        raise ComparisonError(f"{path}: a number in its episodes is beyond 64 bits") from None
    return evaluation


def evaluation_of(content: dict[str, Any], made_from: str) -> Evaluation:
    """An evaluation of episodes that were not joined in a file of their own yet.

    Args:
        content: as `evaluation.episodes.join_rows` returns it.
        made_from: where the episodes lie, for the error message.

    Raises:
        ComparisonError: a value is malformed, or they contradict each other.
    """
    try:
        evaluation = Evaluation.model_validate_json(json.dumps(content))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ComparisonError(f"{made_from}: not an evaluation: {where}: {first['msg']}") from None
    _check_episodes(evaluation)
    return evaluation


def first_episodes(evaluations: Iterable[Evaluation], count: int) -> list[Evaluation]:
    """The same evaluations with the initial states 0 … n-1 of each task alone."""
    return [
        e.model_copy(update={"episodes": tuple(episode for episode in e.episodes if episode.init_state_id < count)})
        for e in evaluations
    ]


def episode_table(evaluations: Iterable[Evaluation]) -> pl.DataFrame:
    """One row per episode: option, task, init_state_id, train_seed, the conditions it ran under, success, how many
    stages of the pickup it reached (null if the task has none), its steps until success (of a failure, the horizon),
    and the horizon [steps]."""
    schema = {
        "option": pl.String,
        "task": pl.Int64,
        "init_state_id": pl.Int64,
        "train_seed": pl.Int64,
        "init_state_sha256": pl.String,
        "env_seed": pl.Int64,
        "noise_seed": pl.Int64,
        "success": pl.Boolean,
        "stages": pl.Int64,
        "duration": pl.Int64,
        "horizon": pl.Int64,
    }
    rows = [
        (
            e.option,
            e.task.id,
            *(getattr(episode, column) for column in list(schema)[2:-3]),
            _stages(episode),
            episode.steps if episode.success else e.horizon,
            e.horizon,
        )
        for e in evaluations
        for episode in e.episodes
    ]
    return pl.DataFrame(rows, schema=schema, orient="row")


def _stages(episode: Episode) -> int | None:
    return None if episode.pickup is None else len(episode.pickup["stage_steps"])


def _check_episodes(evaluation: Evaluation) -> None:
    """Check that each training seed has a checkpoint and each initial state exactly once, and the episodes' steps."""
    _check_steps(evaluation)
    table = episode_table([evaluation])
    for key in (EPISODE_KEY, ["task", "init_state_sha256", "train_seed"]):
        twice = table.filter(table.select(key).is_duplicated()).sort(key)
        if len(twice):
            raise ComparisonError(f"{evaluation.name}: duplicated episode: {_episode(twice.row(0, named=True))}")
    seeds = {f"seed_{seed}" for seed in table["train_seed"].unique()}
    hashes = evaluation.checkpoint.hashes
    if seeds != set(hashes):
        raise ComparisonError(f"{evaluation.name}: episodes of {_list(seeds)}, but checkpoints of {_list(hashes)}")
    if evaluation.world is not None and seeds != set(evaluation.world):
        raise ComparisonError(f"{evaluation.name}: episodes of {_list(seeds)}, world of {_list(evaluation.world)}")
    if len(table) != len(seeds) * table["init_state_id"].n_unique():
        raise ComparisonError(f"{evaluation.name}: the training seeds were not rolled out from the same initial states")
    for episode in evaluation.episodes:
        _check_pickup(evaluation.name, episode)
    if evaluation.task.id >= evaluation.suite_tasks:
        raise ComparisonError(f"{evaluation.name}: the suite has tasks 0 to {evaluation.suite_tasks - 1}")


def _check_steps(evaluation: Evaluation) -> None:
    horizon = evaluation.protocol.get("horizon")
    if type(horizon) is not int or horizon < 1:
        raise ComparisonError(f"{evaluation.name}: protocol.horizon is {horizon!r}, expected a number of steps")
    for episode in evaluation.episodes:
        if not 1 <= episode.steps <= horizon:
            raise ComparisonError(
                f"{evaluation.name}: {_episode(vars(episode))}: steps is {episode.steps}, expected 1 to the horizon, "
                f"{horizon}"
            )


def _check_pickup(name: str, episode: Episode) -> None:
    """Check that the stages reached are all those up to the furthest, one after the other and within the episode."""
    if episode.pickup is None:
        return
    furthest, steps = episode.pickup["furthest"], episode.pickup["stage_steps"]
    reached = STAGES[: STAGES.index(furthest) + 1] if furthest else ()
    times = [steps[stage] for stage in reached if stage in steps]
    if set(steps) != set(reached) or times != sorted(times) or not all(0 < time <= episode.steps for time in times):
        raise ComparisonError(
            f"{name}: {_episode(vars(episode))}: pickup: stage_steps is {steps} with furthest {furthest!r}; expected "
            f"{', '.join(reached) or 'no stage'}, one after the other, in steps 1 to {episode.steps}"
        )


# ---- fairness -------------------------------------------------------------------------------------------------------


def check_complete(evaluations: Iterable[Evaluation], options: Iterable[str], tasks: Iterable[int]) -> None:
    """Refuse a set that is not exactly one evaluation of every option on every task."""
    expected = [f"eval_{option}_{task}.json" for option in options for task in sorted(tasks)]
    given = [e.name for e in evaluations]
    for name in expected:
        if name not in given:
            raise ComparisonError(f"{name}: missing; the comparison needs {', '.join(expected)}")
    for name in given:
        if name not in expected:
            raise ComparisonError(f"{name}: not asked for; the comparison takes exactly {', '.join(expected)}")
        if given.count(name) > 1:
            raise ComparisonError(f"{name}: given twice")


def check_comparable(evaluations: Sequence[Evaluation], reference: str, adaptive: bool = False) -> None:
    """Refuse evaluations if a difference between them could come from anything but the option.

    Args:
        evaluations: a complete set.
        reference: the option that sets the conditions under which all others must have been run.
        adaptive: options may have been evaluated from different numbers of initial states; those that both have must
            be the same.

    Raises:
        ComparisonError: naming the first offender.
    """
    references = {e.task.id: e for e in evaluations if e.option == reference}
    for evaluation in evaluations:
        _check_same_experiment(evaluation, references[min(references)])
        if evaluation.task != (task := references[evaluation.task.id].task):
            raise ComparisonError(
                f"{evaluation.name}: the task is {evaluation.task.description!r}, "
                f"but {task.description!r} in {references[task.id].name}"
            )
    _check_checkpoints(evaluations)
    streams = {e.option: e.rollout.noise_stream for e in evaluations}
    _check_paired(episode_table(evaluations), reference, streams, adaptive)


def _check_same_experiment(evaluation: Evaluation, reference: Evaluation) -> None:
    for part in ("protocol", "training_budget", "suite_tasks"):
        difference = _first_difference(part, getattr(evaluation, part), getattr(reference, part))
        if difference:
            key, here, there = difference
            raise ComparisonError(f"{evaluation.name}: {key} is {here!r}, but {there!r} in {reference.name}")


def _first_difference(key: str, here: Any, there: Any) -> tuple[str, Any, Any] | None:
    if isinstance(here, dict) and isinstance(there, dict):
        for part in sorted({*here, *there}):
            difference = _first_difference(f"{key}.{part}", here.get(part, "absent"), there.get(part, "absent"))
            if difference:
                return difference
        return None
    return None if here == there else (key, here, there)


def _check_checkpoints(evaluations: Iterable[Evaluation]) -> None:
    """Check that an option has one set of weights, shared only with rows that borrow its checkpoint."""
    first_of: dict[str, Evaluation] = {}
    owner_of: dict[str, Evaluation] = {}
    for evaluation in evaluations:
        source, hashes = evaluation.checkpoint.source_option, evaluation.checkpoint.hashes
        first = first_of.setdefault(source, evaluation)
        if first.checkpoint.hashes != hashes or first.world != evaluation.world:
            raise ComparisonError(f"{evaluation.name}: rolled out another checkpoint of {source} than {first.name}")
        for digest in hashes.values():
            owner = owner_of.setdefault(digest, evaluation)
            if owner.checkpoint.source_option != source:
                raise ComparisonError(
                    f"{evaluation.name}: {source} has the same weights as {owner.checkpoint.source_option} in "
                    f"{owner.name}; one of them is under the wrong name"
                )


def _check_paired(episodes: pl.DataFrame, reference: str, streams: Mapping[str, int], adaptive: bool) -> None:
    """Check that every option has the reference's episodes under the same conditions; noise only within a stream."""
    all_expected = episodes.filter(option=reference)
    for (option,), own in episodes.group_by("option", maintain_order=True):
        expected = all_expected
        if adaptive:
            last = min(own["init_state_id"].max(), expected["init_state_id"].max())
            own, expected = (table.filter(pl.col("init_state_id") <= last) for table in (own, expected))
        joined = own.join(expected, on=EPISODE_KEY, how="full", suffix="_reference", coalesce=True).sort(EPISODE_KEY)
        for absent, lacking, having in (("option", option, reference), ("option_reference", reference, option)):
            unpaired = joined.filter(pl.col(absent).is_null())
            if len(unpaired):
                row = unpaired.row(0, named=True)
                raise ComparisonError(
                    f"eval_{lacking}_{row['task']}.json: unpaired episode: it lacks {_episode(row)}, "
                    f"which eval_{having}_{row['task']}.json has"
                )
        same_noise = streams[option] == streams[reference]
        for condition in CONDITIONS if same_noise else [c for c in CONDITIONS if c != "noise_seed"]:
            differing = joined.filter(pl.col(condition) != pl.col(f"{condition}_reference"))
            if len(differing):
                row = differing.row(0, named=True)
                raise ComparisonError(
                    f"eval_{option}_{row['task']}.json: {_episode(row)}: {condition} is {row[condition]}, "
                    f"but {row[f'{condition}_reference']} in eval_{reference}_{row['task']}.json"
                )


def _episode(row: Mapping[str, Any]) -> str:
    return f"initial state {row['init_state_id']} of training seed {row['train_seed']}"


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
