"""A scripted expert for libero_spatial: take the bowl by its rim, lift, carry, lower, open.

It looks at the simulator's state, not at images. The script is data: `PHASES` says where the gripper goes, and `GRASPS`
which tasks need another grasp. Nothing in it is random.

Non-obvious behaviours:

* The rotation actions are exactly 0 wherever the gripper need not turn. At any other value, however small, the
  controller gives up its orientation goal and the wrist drifts. A policy trained on them must give exact zeros.
* A commanded translation of 1 is a goal 5 cm away, so a gain of 20 per metre asks for exactly the distance left.
* The bowl's place is read once, when a phase begins, because the bowl moves as soon as it is touched.
* LIBERO calls the task solved when the bowl touches the plate near its middle, often before the gripper opens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from world_modality.errors import InputError
from world_modality.experiment.suites import ACTION_DIM
from world_modality.simulation.libero import LiberoSimulation

SUITE = "libero_spatial"
HORIZON = 220  # an attempt fails after this many control steps
BOWL, PLATE = "akita_black_bowl_1_main", "plate_1_main"
OPEN, CLOSED = -1.0, 1.0
TRANSLATION_GAIN = 20.0  # [1/m]
ROTATION_GAIN = 2.0  # [1/rad]: a commanded rotation of 1 is a goal 0.5 rad away
YAW_TOLERANCE = 0.05  # [rad]
RIM_RADIUS = 0.05  # [m]
HOLDING_DISTANCE = 0.09  # between fingertips and bowl; farther away, the bowl is not in the gripper [m]
STANDING_STILL = 1e-3  # [m per step]


@dataclass(frozen=True)
class Phase:
    """Go to a place `height` above an anchor, with the gripper open or closed, until near it or standing still."""

    # bowl: the grasped point of its rim; plate: where the bowl would stand in the plate's middle; grip: where the
    # gripper was when the phase began
    anchor: Literal["bowl", "plate", "grip"]
    height: float  # [m]
    gripper: float
    tolerance: float = 0.0  # distance at which the next phase begins [m]
    min_steps: int | None = 5  # before standing still counts; None: the grasp's `squeeze` [steps]


@dataclass(frozen=True)
class Grasp:
    """Where and how the fingers take the rim."""

    angle: float = np.pi / 2  # of the grasped point, around the bowl's middle, from the world's x axis [rad]
    yaw: float = 0.0  # turn of the gripper from its starting pose about the vertical [rad]
    height: float = 0.035  # of the fingertips above the bowl's origin [m]
    squeeze: int = 13  # how long the fingers are given to close [steps]


PHASES = (
    Phase("bowl", 0.10, OPEN, tolerance=0.02),
    Phase("bowl", 0.0, OPEN, tolerance=0.006),
    Phase("grip", 0.0, CLOSED, min_steps=None),
    Phase("grip", 0.15, CLOSED, tolerance=0.02),
    Phase("plate", 0.12, CLOSED, tolerance=0.015),
    Phase("plate", 0.0, CLOSED, tolerance=0.01),
    Phase("grip", 0.0, OPEN, min_steps=10),
    Phase("grip", 0.10, OPEN, tolerance=0.02),
)
GRASPS = {
    4: Grasp(angle=np.deg2rad(15), yaw=np.deg2rad(105), squeeze=18),  # in a drawer, between its sides
}


class ScriptedExpert:
    """Plays `PHASES` in turn in an episode that has just been reset, and starts over if the bowl is not held."""

    def __init__(self, simulation: LiberoSimulation):
        if simulation.spec.suite != SUITE:
            raise InputError(f"the scripted expert knows {SUITE}, not {simulation.spec.suite}")
        self._simulation = simulation
        self._grasp = GRASPS.get(simulation.task_id, Grasp())
        self._start_yaw = _yaw(simulation.grip_rotation())
        self._begin(0)

    def action(self) -> np.ndarray:
        """The action (7,) float32 in [-1, 1] for the simulation's present state; the caller must take it next."""
        if self._is_over():
            self._begin((self._phase + 1) % len(PHASES))
        self._steps += 1
        self._last_grip = self._simulation.grip_position()
        action = np.zeros(ACTION_DIM)
        action[:3] = TRANSLATION_GAIN * (self._target - self._last_grip)
        action[5] = ROTATION_GAIN * self._yaw_error()
        action[6] = PHASES[self._phase].gripper
        return np.clip(action, -1, 1).astype(np.float32)

    def _begin(self, phase: int) -> None:
        grip, bowl = self._simulation.grip_position(), self._simulation.body_position(BOWL)
        if PHASES[phase].anchor == "plate" and np.linalg.norm(grip - bowl) > HOLDING_DISTANCE:
            phase = 0
        self._phase, self._steps = phase, 0
        rim = RIM_RADIUS * np.array([np.cos(self._grasp.angle), np.sin(self._grasp.angle)])
        anchors = {
            "bowl": bowl + [*rim, self._grasp.height],
            "plate": self._simulation.body_position(PLATE) + grip - bowl,
            "grip": grip,
        }
        self._target = anchors[PHASES[phase].anchor] + [0, 0, PHASES[phase].height]

    def _is_over(self) -> bool:
        phase, grip = PHASES[self._phase], self._simulation.grip_position()
        if self._yaw_error() != 0:
            return False
        near = np.linalg.norm(self._target - grip) < phase.tolerance
        min_steps = self._grasp.squeeze if phase.min_steps is None else phase.min_steps
        still = self._steps >= min_steps and np.linalg.norm(grip - self._last_grip) < STANDING_STILL
        return near or still

    def _yaw_error(self) -> float:
        """The turn that is left [rad]; 0 within the tolerance, and for a grasp that needs no turn."""
        if self._grasp.yaw == 0:
            return 0.0
        error = self._start_yaw + self._grasp.yaw - _yaw(self._simulation.grip_rotation())
        error = (error + np.pi) % (2 * np.pi) - np.pi
        return 0.0 if abs(error) < YAW_TOLERANCE else error


def solve(simulation: LiberoSimulation) -> int | None:
    """Let the expert try an episode that has just been reset; returns the number of steps it took.

    Returns None if the expert failed, or if the task was solved from the start.
    """
    if simulation.is_solved():
        return None
    expert = ScriptedExpert(simulation)
    for step in range(1, HORIZON + 1):
        if simulation.step(expert.action())[1]:
            return step
    return None


def _yaw(rotation: np.ndarray) -> float:
    return float(np.arctan2(rotation[1, 0], rotation[0, 0]))
