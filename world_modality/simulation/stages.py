"""How far a pickup has come: approached, touched, grasped, lifted, carried, placed.

Pure logic over what the simulator reports after each control step (`PickupState`), at 20 steps a second. Steps count
from 1, as `Episode.steps` does. The time between two of them is given as a number of steps of 50 ms.

What each stage means, and when it has been reached:

* approached: the midpoint between the fingertips came within `NEAR` of the object's origin, or a finger touched it;
* touched: a finger, its pad or its body, touched the object;
* grasped: the fingers *hold* it: for `HOLD_STEPS` consecutive steps they are commanded to close, both touch it, and
  they are not shut; the step of this stage is the first of these;
* lifted: held `LIFT_HEIGHT` higher than where it stood before a finger touched it;
* carried: held, and moved `CARRY_FRACTION` of the horizontal way from there to the target's origin;
* placed: LIBERO's own predicate for the goal holds.

From `grasped` on, a stage counts only after the one before it. Pushing the object onto the target solves the task, but
the object was never grasped, so it was never placed.

Non-obvious behaviours:

* Contacts flicker. As the rim settles between the pads, both may lose it for a step or two: a hold ends only after
  `LOST_STEPS` steps without it.
* A bowl may be carried all the way between one finger's pad and the other's body, as the expert does on task 8.
  robosuite's `_check_grasp` does not call that a grasp, because it requires both pads. Here the whole fingers count.
* Shut fingers pressed onto the object both touch it, but hold nothing. Shut fingers are 1.8 mm apart; around the bowl's
  rim they are 3.9 mm to 16 mm apart.
* Heights are measured from where the object stood. That is not the table if it stood on a cabinet or a stove.
"""

from __future__ import annotations

from dataclasses import dataclass

from world_modality.simulation.pickup import STAGES, PickupStage, PickupState

NEAR = 0.10  # of the object's origin; with the fingertips at the bowl's rim it is 0.05 to 0.08 [m]
HOLD_STEPS = 3  # [steps]
LOST_STEPS = 3  # [steps]
SHUT = 0.003  # opening of fingers that hold nothing [m]
LIFT_HEIGHT = 0.02  # [m]
CARRY_FRACTION = 0.5
FALL = 0.02  # an object that loses more height as it leaves the open fingers was dropped, not put down [m]
READY = 0.02  # opening from which fingers can close around something [m]
REOPEN_STEPS = 3  # commanded to open for this long, the gripper has given up the attempt [steps]


@dataclass(frozen=True)
class PickupProgress:
    """How a pickup went.

    Attributes:
        furthest: the last stage reached; None if the object was not even approached.
        stage_steps: the control step at which each stage was first reached, never decreasing from stage to stage.
        grasp_attempts: how often the gripper was commanded to close `NEAR` the object with its fingers `READY` apart.
            One attempt lasts until the gripper has been commanded to open for `REOPEN_STEPS` consecutive steps.
        slips: how often a held object was lost rather than put down: it left fingers that were commanded to close, or
            it fell by more than `FALL` in the `LOST_STEPS` steps after it had left opened ones.
        contact_to_closing: steps from the first touch to the beginning of an attempt. That is the attempt under way at
            the touch (then 0 or less: the gripper closed first), or else the next one (it pushed first). None if there
            was no touch, or no such attempt.
    """

    furthest: PickupStage | None
    stage_steps: dict[PickupStage, int]
    grasp_attempts: int
    slips: int
    contact_to_closing: int | None


class PickupTracker:
    """Follows one episode: `update` after every control step, in order, then `progress`."""

    def __init__(self):
        self._step = 0
        self._stage_steps: dict[PickupStage, int] = {}
        self._resting: PickupState | None = None  # the last one before a finger touched the object
        self._attempts = _Attempts()
        self._hold = _Hold()
        self._contact_to_closing: int | None = None

    def update(self, state: PickupState) -> None:
        """Take in what the simulator reports after one more control step."""
        self._step += 1
        touches = state.left_contact or state.right_contact
        if self._resting is None or not (touches or "touched" in self._stage_steps):
            self._resting = state
        self._attempts.update(self._step, state)
        self._hold.update(self._step, state)
        self._reach_stages(state, touches)
        if "touched" in self._stage_steps and self._contact_to_closing is None and self._attempts.began is not None:
            self._contact_to_closing = self._attempts.began - self._stage_steps["touched"]

    def progress(self) -> PickupProgress:
        return PickupProgress(
            furthest=next(reversed(self._stage_steps), None),
            stage_steps=dict(self._stage_steps),
            grasp_attempts=self._attempts.count,
            slips=self._hold.slips,
            contact_to_closing=self._contact_to_closing,
        )

    def _reach_stages(self, state: PickupState, touches: bool) -> None:
        held = self._hold.holds
        now: dict[PickupStage, bool] = {
            "approached": touches or state.grip_distance < NEAR,
            "touched": touches,
            "grasped": held,
            "lifted": held and state.object_height - self._resting.object_height > LIFT_HEIGHT,
            "carried": held and state.target_distance < (1 - CARRY_FRACTION) * self._resting.target_distance,
            "placed": state.placed,
        }
        for stage in STAGES[len(self._stage_steps) :]:
            if not now[stage]:
                return
            self._stage_steps[stage] = self._hold.began if stage == "grasped" else self._step


class _Attempts:
    """Counts attempts at grasping.

    Attributes:
        began: the first step of the attempt under way, if one is.
    """

    def __init__(self):
        self.count = 0
        self.began: int | None = None
        self._steps_opening = 0

    def update(self, step: int, state: PickupState) -> None:
        self._steps_opening = 0 if state.closing else self._steps_opening + 1
        if self._steps_opening >= REOPEN_STEPS:
            self.began = None
        able = state.opening > READY and state.grip_distance < NEAR
        if self.began is None and state.closing and able:
            self.began = step
            self.count += 1


class _Hold:
    """Follows the object into the fingers and out of them, and counts slips.

    Attributes:
        began: the first step of the present hold, once it counts as a hold.
    """

    def __init__(self):
        self.slips = 0
        self.began: int | None = None
        self._steps_in = 0  # consecutive, with the object between the fingers
        self._steps_out = 0  # consecutive, without it
        self._held_height = 0.0  # when it was last between them [m]
        self._left_closing = False  # it left fingers that were commanded to close

    @property
    def holds(self) -> bool:
        """Whether the object is held, and between the fingers at this very step: one that flew off reaches no stage."""
        return self.began is not None and self._steps_out == 0

    def update(self, step: int, state: PickupState) -> None:
        between = state.left_contact and state.right_contact and state.opening > SHUT
        if between:
            self._steps_in = self._steps_in + 1 if state.closing else 0
            self._steps_out = 0
            self._held_height = state.object_height
            if self.began is None and self._steps_in == HOLD_STEPS:
                self.began = step - HOLD_STEPS + 1
            return
        self._steps_in, self._steps_out = 0, self._steps_out + 1
        if self._steps_out == 1:
            self._left_closing = state.closing
        if self.began is not None and self._steps_out == LOST_STEPS:
            self.began = None
            self.slips += self._left_closing or self._held_height - state.object_height > FALL
