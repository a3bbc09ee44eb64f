"""Demonstrations of the scripted expert, recorded as a LeRobotDataset (v3.0).

Keys, shapes, orientation and instruction are those of HuggingFaceVLA/libero. An episode begins at a seeded `reset()`;
LIBERO's own initial states are for evaluation, and a recording that begins at one of them is refused. Next to the
dataset lies `recording.json`: every attempt and its outcome, and the settings and versions it was made with.

Non-obvious behaviours:

* A frame pairs an action with what was seen *before* it, and an episode ends at success.
* `fps` is the simulator's 20 control steps a second. HuggingFaceVLA/libero was recorded at the same rate but calls it
  10. So cut windows by frame index, never by seconds.
* LeRobot writes an episode's images to files and reads them back, so failed attempts are dropped before they reach it.
* `LeRobotDataset.create` needs a folder that does not exist yet, and writes its last rows in `finalize`.
* LeRobot orders the keys of `stats.json` by string hashes, which change from process to process. They are sorted here,
  so that a recording is the same byte for byte.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datasets import disable_progress_bars
from lerobot.datasets.aggregate import aggregate_datasets
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.utils import INFO_PATH, STATS_PATH

from world_modality.artifacts.files import read_json, write_json
from world_modality.artifacts.provenance import package_versions
from world_modality.errors import InputError
from world_modality.experiment.specs import RecordSpec
from world_modality.experiment.suites import ACTION_DIM, CONTROL_FREQUENCY, STATE_DIM
from world_modality.progress import Progress
from world_modality.simulation.benchmark import benchmark_init_states, init_state_sha256
from world_modality.simulation.expert import HORIZON, ScriptedExpert
from world_modality.simulation.libero import LiberoSimulation

RECORDING = "recording.json"
POSE_NAMES = ["x", "y", "z", "axis_angle1", "axis_angle2", "axis_angle3"]
MADE_BY = ("hf-libero", "lerobot", "mujoco", "numpy", "robosuite")

Frame = dict[str, Any]

disable_progress_bars()  # one per episode, in between the progress lines


class RecordingError(InputError):
    """The demonstrations asked for could not be recorded."""


@dataclass(frozen=True)
class Attempt:
    """One try of the expert."""

    seed: int
    init_state_sha256: str
    success: bool
    steps: int


def record_task(task_id: int, spec: RecordSpec, root: Path) -> None:
    """Record `spec.episodes` successful episodes of one task; attempt i is reset with `spec.seed + i`.

    Args:
        root: the dataset's folder, which must not exist yet.

    Raises:
        RecordingError: too many failed attempts, or an initial state that belongs to the benchmark.
    """
    benchmark = {init_state_sha256(s) for s in benchmark_init_states(spec.simulation.suite, task_id)}
    attempts: list[Attempt] = []
    with LiberoSimulation(spec.simulation, task_id) as simulation:
        instruction = simulation.task_description
        dataset = LeRobotDataset.create(
            f"local/{root.name}", CONTROL_FREQUENCY, features(spec), root, robot_type="panda", use_videos=False
        )
        progress = Progress(f"record task {task_id}", spec.episodes, every=0)
        while (recorded := sum(a.success for a in attempts)) < spec.episodes:
            if len(attempts) == spec.max_attempts:
                raise RecordingError(
                    f"task {task_id}: {recorded} of {len(attempts)} attempts succeeded, {spec.episodes} wanted"
                )
            attempt, frames = attempt_episode(simulation, spec, spec.seed + len(attempts))
            if attempt.init_state_sha256 in benchmark:
                raise RecordingError(f"task {task_id}: seed {attempt.seed} drew an initial state of the benchmark")
            attempts.append(attempt)
            if attempt.success:
                add_episode(dataset, frames, instruction)
            outcome = f"{attempt.steps} steps" if attempt.success else "failed, dropped"
            progress.update(recorded + attempt.success, f"seed {attempt.seed}: {outcome}")
        dataset.finalize()
    _sort_stats(root)
    write_json(root / RECORDING, {"tasks": [describe(task_id, instruction, spec, attempts)]})


def features(spec: RecordSpec) -> dict[str, dict]:
    """What a frame holds, as LeRobot describes features."""
    size = spec.simulation.camera_size
    image = {"dtype": "image", "shape": (size, size, 3), "names": ["height", "width", "channel"]}
    state = {"dtype": "float32", "shape": (STATE_DIM,), "names": {"motors": [*POSE_NAMES, "gripper", "gripper"]}}
    action = {"dtype": "float32", "shape": (ACTION_DIM,), "names": {"motors": [*POSE_NAMES, "gripper"]}}
    return {key: dict(image) for key in spec.image_keys.values()} | {"observation.state": state, "action": action}


def attempt_episode(simulation: LiberoSimulation, spec: RecordSpec, seed: int) -> tuple[Attempt, list[Frame]]:
    """Let the expert try once from a seeded reset; returns the outcome, and a frame for every action.

    If the task is already solved after the reset, this is a failed attempt with no steps.
    """
    cameras = tuple(spec.image_keys)
    observation = simulation.reset(seed, cameras=cameras)
    expert = ScriptedExpert(simulation)
    frames: list[Frame] = []
    success = False
    while not success and not simulation.is_solved() and len(frames) < HORIZON:
        action = expert.action()
        images = {spec.image_keys[camera]: image for camera, image in observation.images.items()}
        frames.append({**images, "observation.state": observation.state, "action": action})
        observation, success = simulation.step(action, cameras)
    return Attempt(seed, init_state_sha256(simulation.init_state), success, len(frames)), frames


def add_episode(dataset: LeRobotDataset, frames: list[Frame], instruction: str) -> None:
    for frame in frames:
        dataset.add_frame({**frame, "task": instruction})
    dataset.save_episode()


def describe(task_id: int, instruction: str, spec: RecordSpec, attempts: list[Attempt]) -> dict[str, Any]:
    """The entry of one task in `recording.json`."""
    return {
        "task_id": task_id,
        "instruction": instruction,
        "spec": spec.model_dump(mode="json"),
        "horizon": HORIZON,
        "successes": sum(attempt.success for attempt in attempts),
        "attempts": [asdict(attempt) for attempt in attempts],
        "versions": package_versions(*MADE_BY),
    }


def aggregate_tasks(parts: list[Path], root: Path) -> None:
    """Join recordings, in the order given, into one dataset in a folder that must not exist yet.

    Raises:
        RecordingError: a part was recorded with other settings or versions or at another rate than the first, or has
            no `recording.json`.
    """
    recordings = [task for part in parts for task in read_recording(part)]
    for part, recording in zip(parts, recordings, strict=True):
        if recording["spec"] != recordings[0]["spec"] or recording["versions"] != recordings[0]["versions"]:
            raise RecordingError(f"{part} and {parts[0]} were recorded with different settings or versions")
    rates = [read_json(part / INFO_PATH)["fps"] for part in parts]
    for part, fps in zip(parts, rates, strict=True):
        if fps != rates[0]:
            raise RecordingError(f"{part}: {INFO_PATH} says {fps} fps, but {rates[0]} in {parts[0]}")
    aggregate_datasets([f"local/{part.name}" for part in parts], f"local/{root.name}", parts, root)
    _sort_stats(root)
    write_json(root / RECORDING, {"tasks": recordings})


def _sort_stats(root: Path) -> None:
    write_json(root / STATS_PATH, read_json(root / STATS_PATH))


def read_recording(root: Path) -> list[dict[str, Any]]:
    """What `recording.json` says, one entry per task."""
    path = root / RECORDING
    if not path.is_file():
        raise RecordingError(f"{root} is not a recording: {RECORDING} is missing")
    return read_json(path)["tasks"]
