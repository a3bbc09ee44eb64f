"""LIBERO tasks in MuJoCo: one adapter, used by the recorder and the evaluator alike.

Non-obvious behaviours:

* Reset order: seed, `reset()`, set the initial state, settle. The fixtures (cabinet, stove) are drawn at `reset()` from
  numpy's global generator and are not part of a state; a state set before `reset()` would be lost. A seeded reset
  without a given state sets its own state again, so recording and evaluation take the same path.
* The controller holds its orientation goal while the three rotation actions are *exactly* 0. The goal is the seeded
  reset's orientation: setting an initial state does not change it, here as in LeRobot.
* robosuite samples its observations once per control step, shortly before the step's end, and a forced update moves
  that moment. So only the observations of `env.step` itself are used. Cameras that no one asked for are skipped
  *inside* a sensor, because disabling the sensor would move its sampling as well.
* Raw camera images are rotated by 180 degrees, here and nowhere else (LeRobot's LiberoProcessorStep does the same).
* The physics match robosuite's, at its locked version, bit for bit. `simulation/physics.py` takes the control steps:
  it computes once what robosuite computes more than once.
* Neither torch nor LeRobot is imported here: with them, each of several simulators would hold half a gigabyte more.
* LIBERO's own `reset()` wrapper swallows every exception and retries for ever, so we use the environment inside it.
* Each `reset()` of a task with an open drawer adds one more sampler of the drawer's opening to LIBERO's list. What a
  seed draws would then depend on how many episodes came before, so the list is emptied first.
"""

from __future__ import annotations

import gc
from collections.abc import Collection

import world_modality.simulation.environment  # noqa: F401

# isort: split
import numpy as np
from libero.libero.envs import bddl_utils
from libero.libero.envs.env_wrapper import ControlEnv
from robosuite.utils.errors import RandomizationError
from robosuite.utils.observables import Observable, sensor

from world_modality.experiment.sections import Camera, Simulation
from world_modality.experiment.suites import ACTION_DIM, CONTROL_FREQUENCY
from world_modality.simulation.benchmark import SimulationError, libero_task
from world_modality.simulation.observation import Observation
from world_modality.simulation.physics import ControlLoop, TaskModel, replaced
from world_modality.simulation.pickup import PickupState
from world_modality.simulation.rendering import MAX_IMAGE_SIZE, Renderer

SETTLE_ACTION = np.array([0, 0, 0, 0, 0, 0, -1], dtype=np.float64)  # hold still, gripper open
CAMERA_NAMES: dict[Camera, str] = {"front": "agentview", "wrist": "robot0_eye_in_hand"}
# robosuite's names of what an Observation holds, in the order of its fields
STATE_NAMES = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")
LEFT_FINGER, RIGHT_FINGER, OBJECT = 1, 2, 4  # a geom's role in a pickup; all others have 0


class LiberoSimulation:
    """One LIBERO task, driven episode by episode: `reset`, then `step` until success or the caller's horizon.

    States and images of an episode are functions of (suite, task, render settings, seed, initial state, actions), bit
    for bit, in any process. Seeding goes through numpy's global generator.

    Attributes:
        task_description: the instruction, never empty.
        init_state: the state (S,) in which the present episode began, before it settled.
        placement: (predicate, object, target) of the task's goal; None if it is not to place one object somewhere.
    """

    def __init__(self, spec: Simulation, task_id: int):
        self.spec, self.task_id = spec, task_id
        task = libero_task(spec.suite, task_id)
        self.task_description = task.language
        # We render, not robosuite, so that a reset makes no OpenGL context and no image that no one looks at.
        problem = bddl_utils.robosuite_parse_problem(str(task.bddl_file))
        self.placement = placement_of(problem["goal_state"])
        if spec.spread:
            _widen_regions(problem, self._placed_objects(), spec.spread)
        # LIBERO parses the task once more where it makes the environment, and the model has its regions.
        this_problem = replaced(bddl_utils, "robosuite_parse_problem", lambda _: problem)
        with this_problem, TaskModel().in_new_environments():
            self._libero = ControlEnv(
                bddl_file_name=str(task.bddl_file),
                has_offscreen_renderer=False,
                use_camera_obs=False,
                control_freq=CONTROL_FREQUENCY,
                ignore_done=True,
            )
        self._renderer: Renderer | None = None
        self._wanted: Collection[Camera] = ()
        self._images: dict[Camera, np.ndarray] = {}
        self.init_state: np.ndarray | None = None
        self._control: ControlLoop | None = None
        self._closing = False
        gc.freeze()  # robosuite collects garbage at every reset, among all objects ever imported
        for unused in self._libero.env.observation_names - set(STATE_NAMES):
            self._libero.env.modify_observable(unused, "enabled", False)
        self._libero.env.add_observable(Observable("cameras", self._camera_sensor(), sampling_rate=CONTROL_FREQUENCY))

    def reset(self, seed: int, init_state: np.ndarray | None = None, cameras: Collection[Camera] = ()) -> Observation:
        """Begin an episode and let the scene settle.

        Args:
            seed: draws the fixtures and, where no state is given, everything else.
            init_state: (S,) flattened MuJoCo state (time, positions, velocities); None keeps the reset's own.
            cameras: whose images the returned observation holds.
        """
        _check_cameras(cameras)
        self._wanted = ()
        self._seeded_reset(seed)
        self._control = ControlLoop(self._libero.env)
        self._closing = False
        self._contact_roles = self._pickup_geoms() if self.placement else None
        own = self.sim_state()
        self.init_state = own if init_state is None else _checked_state(init_state, own.size)
        settle = self.spec.settle_steps
        self._wanted = () if settle else cameras
        raw = self._libero.set_init_state(self.init_state)
        for step in range(settle):
            self._wanted = cameras if step == settle - 1 else ()
            raw, _ = self._control.step(SETTLE_ACTION)
        return self._observation(raw)

    def step(self, action: np.ndarray, cameras: Collection[Camera] = ()) -> tuple[Observation, bool]:
        """Take one control step.

        Args:
            action: (7,) in [-1, 1]: relative translation 3, relative rotation 3, gripper (-1 opens, 1 closes). Rounded
                to float32, the precision of a recorded action, so that replaying a recording repeats its episode.
            cameras: whose images the returned observation holds; no other is rendered.

        Returns:
            the observation and whether the task is solved.
        """
        _check_cameras(cameras)
        if self.init_state is None:
            raise SimulationError("step before reset")
        self._wanted = cameras
        action = _checked_action(action)
        raw, solved = self._control.step(action)
        self._closing = bool(action[-1] > 0)  # robosuite uses only the sign
        return self._observation(raw), bool(solved)

    def is_solved(self) -> bool:
        """LIBERO's own predicate for the task's goal. With a spread, an object may begin where it is to be placed."""
        return bool(self._libero.check_success())

    def render(self, camera: Camera, size: int) -> np.ndarray:
        """Take a picture of the present moment, for videos: (size, size, 3) uint8. The physics are not affected."""
        _check_cameras([camera])
        if not 0 < size <= MAX_IMAGE_SIZE:
            raise SimulationError(f"an image's side is 1 to {MAX_IMAGE_SIZE} px, not {size}")
        return self._draw(camera, size)

    def sim_state(self) -> np.ndarray:
        """The flattened MuJoCo state (S,) float64: time, positions, velocities, but no fixtures' places."""
        return self._libero.get_sim_state()

    def body_position(self, body: str) -> np.ndarray:
        """Where a body of the scene is now: (3,) [m], world frame."""
        return self._libero.sim.data.get_body_xpos(body).copy()

    def grip_position(self) -> np.ndarray:
        """Where the midpoint between the fingertips is now: (3,) [m], world frame."""
        return self._libero.sim.data.get_site_xpos("gripper0_grip_site").copy()

    def grip_rotation(self) -> np.ndarray:
        """How the gripper is turned now: (3, 3), world frame."""
        return self._libero.sim.data.get_site_xmat("gripper0_grip_site").copy()

    def pickup_state(self) -> PickupState:
        """The present state of the pickup. Reads what the last step computed; the physics are not affected.

        Raises:
            SimulationError: the task's goal is not to place one object somewhere, or no episode has begun.
        """
        placed = self._placed_objects()
        if self.init_state is None:
            raise SimulationError("pickup state before reset")
        env, data = self._libero.env, self._libero.sim.data
        carried, target = (env.object_states_dict[name].get_geom_state()["pos"] for name in placed)
        meeting = np.bitwise_or.reduce(self._contact_roles[data._data.contact.geom], axis=1)  # (contacts,)
        fingers = data.qpos[env.robots[0]._ref_gripper_joint_pos_indexes]  # (2,), of opposite signs
        return PickupState(
            grip_distance=float(np.linalg.norm(carried - self.grip_position())),
            left_contact=bool((meeting == LEFT_FINGER | OBJECT).any()),
            right_contact=bool((meeting == RIGHT_FINGER | OBJECT).any()),
            opening=float(np.abs(fingers).sum()),
            closing=self._closing,
            object_height=float(carried[2]),
            target_distance=float(np.linalg.norm(carried[:2] - target[:2])),
            placed=bool(env._eval_predicate(self.placement)),
        )

    def _placed_objects(self) -> tuple[str, str]:
        """The object that the task places, and its target.

        Raises:
            SimulationError: the task's goal is not to place one object somewhere.
        """
        if self.placement is None:
            raise SimulationError(f"{self.spec.suite} task {self.task_id} does not place one object somewhere")
        return self.placement[1:]

    def _pickup_geoms(self) -> np.ndarray:
        """Each geom's role in a pickup: (geoms,) uint8, to look up where robosuite's `check_contact` compares names."""
        env, model = self._libero.env, self._libero.sim.model
        fingers = env.robots[0].gripper.important_geoms
        named = {
            LEFT_FINGER: fingers["left_finger"],
            RIGHT_FINGER: fingers["right_finger"],
            OBJECT: env.get_object(self.placement[1]).contact_geoms,
        }
        roles = np.zeros(model.ngeom, np.uint8)
        for role, names in named.items():
            roles[[model.geom_name2id(name) for name in names]] = role
        return roles

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        self._libero.close()
        gc.unfreeze()

    def __enter__(self) -> LiberoSimulation:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _seeded_reset(self, seed: int) -> None:
        self._libero.seed(seed)
        while True:
            try:
                self._libero.env.object_property_initializers.clear()
                self._libero.env.reset()
                return
            except RandomizationError:  # no free place for an object: draw again, as LIBERO does
                continue

    def _camera_sensor(self):
        @sensor(modality="image")
        def look(_cache) -> float:
            self._images = {camera: self._draw(camera, self.spec.camera_size) for camera in self._wanted}
            return 0.0

        return look

    def _draw(self, camera: Camera, size: int) -> np.ndarray:
        sim = self._libero.sim
        if self._renderer is None:
            self._renderer = Renderer(sim.model._model, self.spec.render)
        return self._renderer.draw(sim.model._model, sim.data._data, CAMERA_NAMES[camera], size)

    def _observation(self, raw: dict) -> Observation:
        return Observation(*(raw[name] for name in STATE_NAMES), images=dict(self._images))


def _widen_regions(problem: dict, objects: Collection[str], spread: float) -> None:
    """Let objects begin anywhere up to `spread` [m] beyond the places their task names for them.

    LIBERO's placement still draws again if two objects would touch. An object that does not begin on the table (but in
    a drawer, or on another object) stays where it is.
    """
    places = [predicate for predicate in problem["initial_state"] if len(predicate) == 3]  # others: (open, drawer)
    regions = {where for relation, what, where in places if relation == "on" and what in objects}
    for region in regions & set(problem["regions"]):
        region = problem["regions"][region]
        region["ranges"] = [(x0 - spread, y0 - spread, x1 + spread, y1 + spread) for x0, y0, x1, y1 in region["ranges"]]


def placement_of(goal: list[list[str]]) -> tuple[str, str, str] | None:
    """The one placement, (on or in, object, target), of a BDDL goal, whatever else it asks for.

    None if there is no placement, as in opening a drawer, or more than one.
    """
    placements = [tuple(predicate) for predicate in goal if predicate[0] in ("on", "in")]
    return placements[0] if len(placements) == 1 else None


def _check_cameras(cameras: Collection[Camera]) -> None:
    unknown = [camera for camera in cameras if camera not in CAMERA_NAMES]
    if unknown:
        raise SimulationError(f"no camera {unknown[0]!r}; valid: {', '.join(CAMERA_NAMES)}")


def _checked_action(action: np.ndarray) -> np.ndarray:
    action = np.asarray(action, dtype=np.float32)
    if action.shape != (ACTION_DIM,) or not np.isfinite(action).all():
        raise SimulationError(f"an action is {ACTION_DIM} finite numbers, not {action}")
    return action.astype(np.float64)


def _checked_state(state: np.ndarray, size: int) -> np.ndarray:
    state = np.asarray(state, dtype=np.float64)
    if state.shape != (size,) or not np.isfinite(state).all():
        raise SimulationError(f"an initial state of this task is {size} finite numbers, not {state.shape}: {state}")
    return state
