"""What a pickup is: the names of its stages, and its state after one control step. Light (no MuJoCo).

`simulation/stages.py` says when each stage has been reached.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

PickupStage = Literal["approached", "touched", "grasped", "lifted", "carried", "placed"]
STAGES: tuple[PickupStage, ...] = get_args(PickupStage)  # in their order


@dataclass(frozen=True)
class PickupState:
    """The state of a pickup after one control step: the object that the task places, its target and the gripper."""

    grip_distance: float  # from the midpoint between the fingertips to the object's origin [m]
    left_contact: bool  # the left finger, its pad or its body, touches the object
    right_contact: bool
    opening: float  # between the fingers, 0 (shut) to 0.08 [m]
    closing: bool  # the last action told the gripper to close
    object_height: float  # of the object's origin in the world frame [m]
    target_distance: float  # horizontal, between the origins of object and target [m]
    placed: bool  # LIBERO's own predicate: the object is on, or in, the target
