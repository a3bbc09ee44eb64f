"""What the simulator and the policy expect of the demonstrations, checked when a dataset is opened.

A dataset of another robot, in other units or with statistics of other data trains without a complaint, and what it
cost shows in the success rate at best. So everything that the numbers themselves can tell is checked: features and
their widths, cameras, finite values, actions in the controller's units, and the statistics that policies normalize
with.

Non-obvious behaviours of LeRobot:
* A feature without statistics is passed on as it is, in raw units.
* A dimension that never varies is divided by 1e-8 when it is normalized, and multiplied by 0 when an action is
  unnormalized. So a constant action is reproduced exactly, and a constant state explodes as soon as it differs.
"""

from __future__ import annotations

import numpy as np
from lerobot.datasets import LeRobotDatasetMetadata
from lerobot.utils.constants import ACTION, OBS_STATE

from world_modality.data.stored import StoredDataset
from world_modality.errors import InputError
from world_modality.experiment.suites import ACTION_DIM, STATE_DIM

WIDTHS = {OBS_STATE: STATE_DIM, ACTION: ACTION_DIM}
CONTENTS = {OBS_STATE: "3 of position, 3 of axis-angle, 2 of the gripper", ACTION: "6 of the arm, 1 of the gripper"}
CAMERAS = 2  # front and wrist
STILL = 1e-4  # standard deviation of a state dimension that does not vary [m, rad]
FAR = 1.5  # beyond this an action is in other units; robosuite clips at 1
ALIKE = 0.1  # how far statistics may be from those of the frames, in standard deviations


def check_features(meta: LeRobotDatasetMetadata) -> None:
    """Check that states, actions and cameras are those of LIBERO's robot.

    Raises:
        InputError: a feature is missing, or has another width; or there are more cameras than the simulator renders.
    """
    features, name = meta.features, meta.repo_id
    for key, width in WIDTHS.items():
        if key not in features:
            raise InputError(f"{name}: has no {key}; its features are {', '.join(features)}; rename them")
        shape = tuple(features[key]["shape"])
        if shape != (width,):
            raise InputError(f"{name}: {key} has shape {shape}, the simulator's is ({width},): {CONTENTS[key]}")
    if len(meta.camera_keys) > CAMERAS:
        cameras = ", ".join(meta.camera_keys)
        raise InputError(f"{name}: has the cameras {cameras}; the simulator renders two, front and wrist")


def check_values(dataset: StoredDataset) -> None:
    """Check that states and actions are finite and in the simulator's units, and that the statistics are theirs.

    Raises:
        InputError: naming the feature and its dimension, or the episode and frame.
    """
    states, actions = (_column(dataset, key) for key in (OBS_STATE, ACTION))
    for key, values in ((OBS_STATE, states), (ACTION, actions)):
        _check_finite(dataset, key, values)
        _check_statistics(dataset, key, values)
    still = states.std(axis=0) < STILL
    if still.any():
        at = int(still.argmax())
        raise InputError(
            f"{dataset.repo_id}: {OBS_STATE}[{at}] is {states[0, at]:g} in every frame; in a rollout it varies, and "
            f"its difference would be divided by 1e-8; expected {CONTENTS[OBS_STATE]}"
        )
    _check_actions(dataset, actions)


def _column(dataset: StoredDataset, key: str) -> np.ndarray:
    """(frames, width) float64."""
    return dataset.columns([key])[key].astype(np.float64)


def _check_finite(dataset: StoredDataset, key: str, values: np.ndarray) -> None:
    wrong = ~np.isfinite(values)
    if wrong.any():
        row, at = np.argwhere(wrong)[0]
        raise InputError(f"{dataset.repo_id}: {key}[{at}] is {values[row, at]} in {_frame(dataset, row)}")


def _check_statistics(dataset: StoredDataset, key: str, values: np.ndarray) -> None:
    """The statistics that normalize a feature must be there, finite, of its width, and those of the frames."""
    file = f"{dataset.repo_id}: meta/stats.json"
    given = (dataset.meta.stats or {}).get(key)
    if not given:
        raise InputError(f"{file}: has no statistics of {key}; without them it is not normalized")
    spread = values.std(axis=0)
    for name, ours in (("mean", values.mean(axis=0)), ("std", spread)):
        if name not in given:
            raise InputError(f"{file}: has no {name} of {key}; without it, {key} is not normalized")
        try:
            theirs = np.asarray(given[name], float).reshape(-1)
        except (TypeError, ValueError):
            raise InputError(f"{file}: the {name} of {key} is not of numbers") from None
        if theirs.shape != ours.shape:
            raise InputError(f"{file}: the {name} of {key} has {len(theirs)} values, {key} has {len(ours)}")
        off = ~(np.abs(theirs - ours) <= ALIKE * spread + STILL)  # also where one is NaN
        if off.any():
            at = int(off.argmax())
            raise InputError(f"{file}: the {name} of {key}[{at}] is {theirs[at]:g}, that of the frames {ours[at]:g}")


def _check_actions(dataset: StoredDataset, actions: np.ndarray) -> None:
    beyond = np.abs(actions) > FAR
    if beyond.any():
        row, at = np.argwhere(beyond)[0]
        raise InputError(
            f"{dataset.repo_id}: action[{at}] is {actions[row, at]:g} in {_frame(dataset, row)}, expected -1 to 1"
        )
    gripper = actions[:, -1]
    if gripper.min() >= 0 or gripper.max() <= 0:
        raise InputError(
            f"{dataset.repo_id}: action[{ACTION_DIM - 1}], the gripper, is between {gripper.min():g} and "
            f"{gripper.max():g}; the simulator opens it below 0 and closes it above 0"
        )


def _frame(dataset: StoredDataset, row: int) -> str:
    found = dataset.columns(["episode_index", "frame_index"])
    return f"frame {found['frame_index'][row]} of episode {found['episode_index'][row]}"
