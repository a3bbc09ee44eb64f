"""Evaluations: episodes, the blocks they are rolled out in, and the file that joins them.

Light (no torch): the decision reads evaluations without loading a simulator or a policy.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TypedDict

from world_modality.artifacts.files import read_json, read_json_lines, text_sha256, write_json
from world_modality.errors import InputError
from world_modality.experiment.seeds import env_seed, noise_seed
from world_modality.experiment.specs import EvaluationSpec, RolloutSpec
from world_modality.experiment.suites import SUITE_SIZES
from world_modality.simulation.pickup import PickupStage


class PickupRecord(TypedDict):
    """How a pickup went, as an episode records it; `stages.PickupProgress` says what each field means."""

    furthest: PickupStage | None
    stage_steps: dict[PickupStage, int]
    grasp_attempts: int
    slips: int
    contact_to_closing: int | None


@dataclasses.dataclass(frozen=True)
class Episode:
    """The outcome of one rollout, and everything that determined it except the policy and the task."""

    init_state_id: int
    init_state_sha256: str
    env_seed: int
    noise_seed: int
    train_seed: int
    success: bool
    steps: int
    pickup: PickupRecord | None = dataclasses.field(hash=False)  # None if the task is not to place one object somewhere


# ---- blocks ---------------------------------------------------------------------------------------------------------


def block_row(episode: Episode, made_from: dict) -> str:
    """One line of a block: the episode and what it was made from."""
    return json.dumps(dataclasses.asdict(episode) | made_from, sort_keys=True)


def read_rows(blocks: list[Path]) -> list[dict]:
    """The lines of several blocks of one option, sorted by task, training seed and initial state.

    Raises:
        InputError: a line is truncated, or an episode appears twice.
    """

    def key(row: dict) -> tuple[int, int, int]:
        return row["task"], row["train_seed"], row["init_state_id"]

    rows = [row for path in blocks for row in read_json_lines(path)]
    if len({key(row) for row in rows}) != len(rows):
        raise InputError(f"{blocks[0].parent}: an episode appears twice")
    return sorted(rows, key=key)


def episode_of(row: dict) -> Episode:
    return Episode(**{field.name: row[field.name] for field in dataclasses.fields(Episode)})


def filmed_episodes(episodes: list[Episode]) -> dict[str, Episode]:
    """The first success and the first failure of the first training seed, by the names of their videos."""
    chosen = {}
    for episode in episodes:
        outcome = "success" if episode.success else "failure"
        if episode.train_seed == episodes[0].train_seed and not any(name.startswith(outcome) for name in chosen):
            chosen[f"{outcome}_init_state_{episode.init_state_id:02d}.mp4"] = episode
    return chosen


# ---- the evaluation file --------------------------------------------------------------------------------------------


def collect_evaluation(
    spec: EvaluationSpec, task_id: int, manifest: Path, blocks: list[Path], videos: Path, output: Path
) -> None:
    """Join the blocks of one option and task into `eval_<option>_<task>.json`.

    Raises:
        InputError: as `join_rows`.
    """
    evaluation = join_rows(spec, task_id, read_json(manifest), read_rows(blocks))
    episodes = [episode_of(row) for row in evaluation["episodes"]]
    film = {episode: str(videos / name) for name, episode in filmed_episodes(episodes).items()}
    filmed = [row | {"video": film.get(episode)} for row, episode in zip(evaluation["episodes"], episodes, strict=True)]
    write_json(output, evaluation | {"episodes": filmed})


def join_rows(spec: EvaluationSpec, task_id: int, manifest: dict, rows: list[dict]) -> dict:
    """What the episodes of one option on one task are as an evaluation.

    Args:
        rows: the lines of blocks, as `read_rows` sorts them; those beyond `spec.episodes` are left out.

    Raises:
        InputError: an episode is missing, or was rolled out with another checkpoint or under another protocol.
    """
    rollout = spec.rollout
    hashes = {int(seed): checkpoint["weights_sha256"] for seed, checkpoint in manifest["seeds"].items()}
    rows = [row for row in rows if row["init_state_id"] < spec.episodes]
    for row in rows:
        _check_row(row, rollout, task_id, hashes, rows[0]["versions"])
    held = max((row["init_state_id"] + 1 for row in rows), default=0) if spec.adaptive else spec.episodes
    wanted = [(seed, init_state) for seed in sorted(hashes) for init_state in range(held)]
    if not rows or [(row["train_seed"], row["init_state_id"]) for row in rows] != wanted:
        last = max(held, 1) - 1
        raise InputError(f"{rollout.option}, task {task_id}: the blocks do not hold episodes 0 to {last}")
    protocol = rollout.protocol
    return {
        "suite_tasks": SUITE_SIZES[protocol.simulation.suite],
        "task": {"id": task_id, "description": rows[0]["instruction"]},
        "protocol": protocol.model_dump(mode="json") | {"versions": rows[0]["versions"]},
        "rollout": {
            "memory": rollout.memory,
            "images": rollout.images,
            "world_cameras": list(rollout.rollout_cameras or rollout.world_cameras),
            "window": rollout.window,
            "noise_stream": rollout.noise_stream,
        },
        "checkpoint": {
            "option": rollout.option,
            "source_option": rollout.source_option,
            "hashes": {f"seed_{seed}": sha256 for seed, sha256 in hashes.items()},
        },
        "world": {f"seed_{seed}": c["world"] for seed, c in manifest["seeds"].items() if c["world"]} or None,
        "training_budget": manifest["training_budget"],
        "learning_schedule": manifest["learning_schedule"],
        "episodes": [dataclasses.asdict(episode_of(row)) for row in rows],
    }


def _check_row(row: dict, rollout: RolloutSpec, task_id: int, hashes: dict[int, str], versions: dict) -> None:
    expected = {
        "option": rollout.option,
        "task": task_id,
        "checkpoint_sha256": hashes.get(row["train_seed"]),
        "env_seed": env_seed(task_id, row["init_state_id"]),
        "noise_seed": noise_seed(task_id, row["init_state_id"], stream=rollout.noise_stream),
        "protocol_sha256": text_sha256(rollout.protocol.model_dump_json()),
        "versions": versions,
    }
    for key, value in expected.items():
        if row[key] != value:
            where = f"{rollout.option}, task {task_id}, init state {row['init_state_id']}"
            raise InputError(f"{where}: the rollout's {key} is {row[key]}, expected {value}")
