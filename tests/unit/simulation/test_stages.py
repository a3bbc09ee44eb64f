"""How far a pickup came: in made-up episodes, and in the scripted expert's, whose phases are known."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from pydantic import TypeAdapter

from world_modality.evaluation.episodes import PickupRecord
from world_modality.experiment.sections import Simulation
from world_modality.experiment.suites import SUITE_SIZES
from world_modality.simulation import stages
from world_modality.simulation.benchmark import SimulationError, libero_task
from world_modality.simulation.expert import HORIZON, ScriptedExpert
from world_modality.simulation.libero import SETTLE_ACTION, LiberoSimulation, placement_of
from world_modality.simulation.pickup import STAGES, PickupState
from world_modality.simulation.stages import HOLD_STEPS, LOST_STEPS, REOPEN_STEPS, PickupTracker

# ---- made-up episodes -----------------------------------------------------------------------------------------------

FAR = PickupState(
    grip_distance=0.3,
    left_contact=False,
    right_contact=False,
    opening=0.08,
    closing=False,
    object_height=0.9,
    target_distance=0.2,
    placed=False,
)
NEAR = replace(FAR, grip_distance=0.06)
CLOSING = replace(NEAR, closing=True, opening=0.04)
SHUT = replace(CLOSING, opening=0.001)
PUSHED = replace(NEAR, right_contact=True)
HELD = replace(CLOSING, opening=0.005, left_contact=True, right_contact=True)
LIFTED = replace(HELD, object_height=0.95)
CARRIED = replace(LIFTED, target_distance=0.05)
PLACED = replace(CARRIED, object_height=0.91, target_distance=0.01, placed=True)
LET_GO = replace(LIFTED, left_contact=False, right_contact=False, closing=False, opening=0.03)
HOLD = [HELD] * HOLD_STEPS
WHOLE = [FAR, NEAR, CLOSING, *HOLD, LIFTED, CARRIED, PLACED]


def followed(*states):
    tracker = PickupTracker()
    for state in states:
        tracker.update(state)
    return tracker.progress()


def falling(*fallen, left=LET_GO):
    """The steps after an object left the fingers, having fallen by so much [m]."""
    return [replace(left, object_height=LIFTED.object_height - height) for height in fallen]


def test_a_whole_pickup_reaches_every_stage_at_its_step():
    progress = followed(*WHOLE)
    steps = {"approached": 2, "touched": 4, "grasped": 4, "lifted": 7, "carried": 8, "placed": 9}
    assert progress.stage_steps == steps
    assert (progress.furthest, progress.grasp_attempts, progress.slips) == ("placed", 1, 0)


@pytest.mark.parametrize("steps", range(len(WHOLE) + 1))
def test_a_stage_implies_those_before_it_and_is_never_lost(steps):
    progress = followed(*WHOLE[:steps], *[FAR] * 10)
    reached = STAGES[: len(progress.stage_steps)]
    assert tuple(progress.stage_steps) == reached
    assert progress.furthest == (reached[-1] if reached else None)
    assert list(progress.stage_steps.values()) == sorted(progress.stage_steps.values())


UNREACHED = {
    "before any step": ([], None),
    "far away": ([FAR] * 5, None),
    "closed far away": ([replace(SHUT, grip_distance=0.3)] * 5, None),
    "near, never touched": ([FAR, NEAR, NEAR], "approached"),
    "pushed": ([NEAR, PUSHED, PUSHED], "touched"),
    "touched by both open fingers": ([replace(HELD, closing=False, opening=0.08)] * 9, "touched"),
    "shut fingers pressed onto it": ([replace(HELD, opening=0.001)] * 9, "touched"),
    "held for too short a time": ([HELD] * (HOLD_STEPS - 1) + [NEAR] * 5, "touched"),
    "pushed up without a hold": ([replace(PUSHED, object_height=1.0)] * 5, "touched"),
    "held where it stood": (HOLD * 3, "grasped"),
    "dragged to the target": ([*HOLD, replace(HELD, target_distance=0.01)], "grasped"),
    "dragged onto the target": ([*HOLD, replace(HELD, target_distance=0.01, placed=True)], "grasped"),
    "pushed onto the target": ([NEAR, PUSHED, replace(PUSHED, placed=True)], "touched"),
    "lifted, and not carried": ([NEAR, *HOLD, LIFTED, LIFTED], "lifted"),
    "thrown towards the target": (
        [NEAR, *HOLD, LIFTED, *[replace(LET_GO, target_distance=0.05)] * LOST_STEPS],
        "lifted",
    ),
    "carried, and not placed": ([NEAR, *HOLD, LIFTED, CARRIED], "carried"),
}


@pytest.mark.parametrize(("states", "furthest"), UNREACHED.values(), ids=UNREACHED)
def test_the_furthest_stage_is_the_last_one_reached(states, furthest):
    assert followed(*states).furthest == furthest


def test_a_touch_is_an_approach_however_far_the_objects_origin():
    touch = replace(PUSHED, grip_distance=stages.NEAR + 0.05)
    assert followed(FAR, touch).stage_steps == {"approached": 2, "touched": 2}


def test_height_and_way_count_from_where_the_object_stood_before_it_was_touched():
    sunk = [replace(state, object_height=state.object_height - 0.1) for state in (NEAR, *HOLD, LIFTED)]
    assert followed(FAR, *sunk).furthest == "lifted"


ATTEMPTS = {
    "none": ([NEAR] * 5, 0),
    "closed before it came near": ([replace(SHUT, grip_distance=0.2), SHUT, SHUT], 0),
    "closing as it comes near": ([replace(CLOSING, grip_distance=0.2), CLOSING, SHUT], 1),
    "a miss": ([NEAR, CLOSING, SHUT, SHUT], 1),
    "a command that flickers": ([CLOSING, NEAR, CLOSING, *[NEAR] * (REOPEN_STEPS - 1), CLOSING], 1),
    "opened and closed again": ([CLOSING, SHUT, *[NEAR] * REOPEN_STEPS, CLOSING], 2),
    "closed again before it is open": ([CLOSING, SHUT, *[replace(SHUT, closing=False)] * REOPEN_STEPS, SHUT], 1),
    "squeezing what it holds": ([NEAR, CLOSING, *HOLD, LIFTED, LIFTED], 1),
}


@pytest.mark.parametrize(("states", "attempts"), ATTEMPTS.values(), ids=ATTEMPTS)
def test_an_attempt_is_open_fingers_told_to_close_near_the_object(states, attempts):
    assert followed(*states).grasp_attempts == attempts


SLIPS = {
    "a pickup": (WHOLE, 0),
    "it was never held": ([CLOSING, PUSHED, CLOSING, SHUT, SHUT, SHUT], 0),
    "it left closed fingers": ([*HOLD, LIFTED, *[SHUT] * LOST_STEPS], 1),
    "it left closed fingers where it stood": ([*HOLD, *[SHUT] * LOST_STEPS], 1),
    "contacts flicker": ([*HOLD, *[CLOSING] * (LOST_STEPS - 1), LIFTED, CLOSING, *HOLD], 0),
    "dropped": ([*HOLD, LIFTED, *falling(0.0, 0.02, 0.05)], 1),
    "put down": ([*HOLD, LIFTED, *falling(0.002, 0.005, 0.005)], 0),
    "put down and pushed on": ([*HOLD, LIFTED, *falling(0.0, 0.0, 0.0), *falling(0.05) * 9], 0),
    "lost twice": ([*HOLD, LIFTED, *[SHUT] * 9, NEAR, *HOLD, LIFTED, *falling(0.0, 0.03, 0.05)], 2),
    "lost once, out for long": ([*HOLD, *[SHUT] * 30], 1),
}


@pytest.mark.parametrize(("states", "slips"), SLIPS.values(), ids=SLIPS)
def test_a_slip_is_a_held_object_lost_and_not_put_down(states, slips):
    assert followed(*states).slips == slips


def test_a_second_grasp_goes_on_where_the_first_one_got():
    first = [NEAR, CLOSING, *HOLD, LIFTED, *[SHUT] * LOST_STEPS]
    progress = followed(*first, *[NEAR] * REOPEN_STEPS, CLOSING, *HOLD, LIFTED, CARRIED, PLACED)
    assert (progress.furthest, progress.grasp_attempts, progress.slips) == ("placed", 2, 1)
    assert progress.stage_steps["lifted"] == 6
    assert progress.stage_steps["placed"] == len(first) + REOPEN_STEPS + HOLD_STEPS + 4


TIMES = {
    "never touched": ([NEAR, CLOSING, SHUT], None),
    "never closed": ([NEAR, PUSHED, PUSHED], None),
    "closing first": ([NEAR, CLOSING, CLOSING, *HOLD], -2),
    "at once": ([NEAR, NEAR, replace(CLOSING, left_contact=True)], 0),
    "pushing first": ([NEAR, PUSHED, NEAR, NEAR, CLOSING], 3),
    "a given-up attempt does not count": ([CLOSING, *[NEAR] * REOPEN_STEPS, PUSHED, CLOSING], 1),
    "the first closing alone": ([PUSHED, CLOSING, *[NEAR] * REOPEN_STEPS, CLOSING], 1),
}


@pytest.mark.parametrize(("states", "steps"), TIMES.values(), ids=TIMES)
def test_contact_to_closing_is_negative_where_the_gripper_closed_first(states, steps):
    assert followed(*states).contact_to_closing == steps


def test_progress_is_what_an_episode_records():
    TypeAdapter(PickupRecord).validate_python(asdict(followed(*WHOLE)), strict=True)
    assert set(asdict(followed())) == set(PickupRecord.__annotations__)


# ---- the simulator --------------------------------------------------------------------------------------------------

SPEC = Simulation(suite="libero_spatial", camera_size=64, render="fast", spread=0, settle_steps=10)
SEED = 1000
# The expert's phases, in their order, and those in which a stage is reached.
RIM, DESCEND, CLOSE, LIFT, CARRY, LOWER, OPEN, LEAVE = range(8)
PHASES_OF = {
    "approached": {DESCEND},
    "touched": {CLOSE},
    "grasped": {CLOSE},
    "lifted": {LIFT},
    "carried": {CARRY},
    "placed": {LOWER, OPEN},  # LIBERO's predicate often holds before the gripper opens
}


@pytest.fixture(scope="module")
def simulation():
    with LiberoSimulation(SPEC, 0) as simulation:
        yield simulation


def expert_episode(simulation, change=lambda action, phase: action, steps=HORIZON):
    """The expert's phase at every step, how the pickup went, and whether LIBERO called it a success."""
    simulation.reset(SEED)
    expert, tracker, phases, success = ScriptedExpert(simulation), PickupTracker(), [], False
    while not success and len(phases) < steps:
        action = expert.action()
        phases.append(expert._phase)
        _, success = simulation.step(change(action, expert._phase))
        tracker.update(simulation.pickup_state())
    return phases, tracker.progress(), success


def test_the_experts_stages_fall_into_its_phases(simulation):
    assert_stages_fall_into_phases(simulation)


@pytest.mark.parametrize("task", [1, 9], ids=["beside the ramekin", "on the cabinet"])
def test_the_experts_stages_fall_into_its_phases_wherever_the_bowl_stands(task):
    with LiberoSimulation(SPEC, task) as simulation:
        assert_stages_fall_into_phases(simulation)


def assert_stages_fall_into_phases(simulation):
    phases, progress, success = expert_episode(simulation)
    assert success
    assert progress.stage_steps["placed"] == len(phases)  # LIBERO's success is this step's
    for stage, step in progress.stage_steps.items():
        assert phases[step - 1] in PHASES_OF[stage], f"{stage} in phase {phases[step - 1]}"
    assert (progress.furthest, progress.grasp_attempts, progress.slips) == ("placed", 1, 0)
    closing = phases.index(CLOSE) + 1
    assert progress.contact_to_closing == closing - progress.stage_steps["touched"] < 0


@pytest.mark.parametrize("gripper", [-1, 1], ids=["open", "closed"])
def test_a_policy_that_does_nothing_reaches_no_stage(simulation, gripper):
    simulation.reset(SEED)
    states = []
    for _ in range(20):
        simulation.step(np.array([*SETTLE_ACTION[:-1], gripper]))
        states.append(simulation.pickup_state())
    assert followed(*states) == followed()
    assert (states[-1].closing, states[-1].opening < stages.SHUT) == (gripper == 1, gripper == 1)


def test_an_expert_that_opens_the_gripper_while_carrying_slips(simulation):
    def open_while_carrying(action, phase):
        return np.array([*action[:-1], -1.0]) if phase == CARRY else action

    phases, progress, success = expert_episode(simulation, open_while_carrying, steps=85)
    assert not success
    assert CARRY in phases
    assert (progress.furthest, progress.slips) == ("lifted", 1)


def test_a_bowl_that_slides_through_closed_fingers_and_is_caught_again_slips():
    with LiberoSimulation(SPEC, 8) as simulation:  # the expert holds it by a pad and a finger's body, and it slides
        _, progress, success = expert_episode(simulation)
    assert success
    assert (progress.furthest, progress.grasp_attempts, progress.slips) == ("placed", 1, 1)


def test_tracking_changes_no_observation_and_no_state(simulation):
    def seen(track):
        observation = simulation.reset(SEED, cameras=["wrist"])
        expert, arrays = ScriptedExpert(simulation), []
        for step in range(60):  # until the bowl is lifted
            if track:
                simulation.pickup_state()
            arrays += [observation.state, *observation.images.values(), simulation.sim_state()]
            observation, _ = simulation.step(expert.action(), ["wrist"] if step % 20 == 19 else [])
        return arrays

    for tracked, untracked in zip(seen(True), seen(False), strict=True):
        np.testing.assert_array_equal(tracked, untracked)


# ---- what is picked up ----------------------------------------------------------------------------------------------


def goal(suite, task_id):
    from libero.libero.envs.bddl_utils import robosuite_parse_problem  # only now: `simulation` sets its environment up

    return robosuite_parse_problem(str(libero_task(suite, task_id).bddl_file))["goal_state"]


@pytest.mark.parametrize("task_id", range(SUITE_SIZES["libero_spatial"]))
def test_every_task_of_libero_spatial_places_a_bowl_on_the_plate(task_id):
    predicate, carried, target = placement_of(goal("libero_spatial", task_id))
    assert (predicate, carried.rpartition("_")[0], target) == ("on", "akita_black_bowl", "plate_1")


@pytest.mark.parametrize(
    ("goal", "placement"),
    [
        ([["open", "cabinet_1_middle_region"]], None),
        ([["on", "mug_1", "plate_1"], ["on", "mug_2", "plate_2"]], None),
        ([["in", "bowl_1", "drawer_1"], ["close", "drawer_1"]], ("in", "bowl_1", "drawer_1")),
    ],
)
def test_what_is_picked_up_is_the_one_thing_that_the_goal_places(goal, placement):
    assert placement_of(goal) == placement


def test_a_task_that_places_nothing_has_no_pickup(simulation, monkeypatch):
    monkeypatch.setattr(simulation, "placement", None)
    simulation.reset(SEED)
    with pytest.raises(SimulationError, match="libero_spatial task 0 does not place one object somewhere"):
        simulation.pickup_state()


def test_what_is_placed_in_a_region_is_followed_as_well():
    with LiberoSimulation(SPEC.model_copy(update={"suite": "libero_object"}), 0) as simulation:
        simulation.reset(SEED)
        state = simulation.pickup_state()
        assert simulation.placement == ("in", "alphabet_soup_1", "basket_1_contain_region")
        assert not state.placed
        assert 0.1 < state.target_distance < 1
