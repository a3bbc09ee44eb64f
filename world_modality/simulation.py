"""LIBERO tasks in MuJoCo: one adapter, used by the recorder and the evaluator alike.

Non-obvious behaviours:

* Reset order: seed, `reset()`, set the initial state, settle. The fixtures (cabinet, stove) are drawn at `reset()` from
  numpy's global generator and are no part of a state; a state set before `reset()` would be lost. A seeded reset
  without a given state sets its own state again, so recording and evaluation take the same path.
* The controller holds its orientation goal while the three rotation actions are *exactly* 0. The goal is the seeded
  reset's orientation: setting an initial state leaves it alone, here as in LeRobot.
* robosuite samples what it observes once per control step, shortly before the step's end, and a forced update moves
  that moment. Observations are therefore those of `env.step` itself, and cameras that no one asked for are skipped
  *inside* a sensor: disabling the sensor would move its sampling as well.
* Raw camera images are rotated by 180 degrees, here and nowhere else (LeRobot's LiberoProcessorStep does the same).
* Pixels depend on the render settings (`Simulation.render`), so training and evaluation must share them. Without a
  GPU the time of an image is that of its faces, 293,000 of them for 64 x 64 pixels: `fast` draws a quarter.
* Physics are robosuite's to the bit, at its version in the lock: what it computes more than once, `_ThriftySim` and
  `_compiled` compute once. A control step then takes two thirds of the time, a reset less than half.
* LIBERO's own `reset()` wrapper swallows every exception and tries again for ever: the environment inside it is used.
* Each `reset()` of a task with an open drawer adds one more sampler of the drawer's opening to LIBERO's list, so that
  what a seed draws depends on how many episodes came before: the list is emptied first.
* LIBERO asks a question on stdin where it finds no config, and robosuite chooses its OpenGL at import: hence the
  environment variables above the imports.
"""

from __future__ import annotations

import copy
import gc
import hashlib
import importlib
import logging
import os
import sys
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("LP_NUM_THREADS", "1")  # two simulations share two cores; pixels do not depend on it
os.environ.setdefault("LIBERO_CONFIG_PATH", str(Path(sys.prefix) / "libero"))

if os.environ["MUJOCO_GL"] not in ("egl", "osmesa", "glfw"):
    raise ImportError(f"MUJOCO_GL is {os.environ['MUJOCO_GL']!r}; valid: egl, osmesa, glfw")
LIBERO_CONFIG = Path(os.environ["LIBERO_CONFIG_PATH"]) / "config.yaml"
if not LIBERO_CONFIG.is_file():
    raise ImportError(f"LIBERO is not set up: {LIBERO_CONFIG} is missing; `make setup` writes it")

logging.getLogger("robosuite_logs").addFilter(lambda record: record.levelno >= logging.ERROR)  # its setup hints

import mujoco  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from lerobot.processor.env_processor import LiberoProcessorStep  # noqa: E402
from libero.libero import get_libero_path  # noqa: E402
from libero.libero.benchmark import Task, task_maps  # noqa: E402
from libero.libero.envs.env_wrapper import ControlEnv  # noqa: E402
from numpy._core.multiarray import _reconstruct  # noqa: E402
from robosuite.utils.binding_utils import MjSim  # noqa: E402
from robosuite.utils.errors import RandomizationError  # noqa: E402
from robosuite.utils.observables import Observable, sensor  # noqa: E402

from world_modality.errors import InputError  # noqa: E402
from world_modality.sections import Camera, Simulation  # noqa: E402
from world_modality.suites import INIT_STATES_PER_TASK  # noqa: E402

CONTROL_FREQUENCY = 20  # control steps per simulated second
ACTION_DIM = 7
STATE_DIM = 8
SETTLE_ACTION = np.array([0, 0, 0, 0, 0, 0, -1], dtype=np.float64)  # hold still, gripper open
CAMERA_NAMES: dict[Camera, str] = {"front": "agentview", "wrist": "robot0_eye_in_hand"}
STATE_NAMES = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")  # robosuite's names of what is observed
LEFT_FINGER, RIGHT_FINGER, OBJECT = 1, 2, 4  # what a geom is to a pickup; all others are 0
GLContext = importlib.import_module(f"mujoco.{os.environ['MUJOCO_GL']}").GLContext
MAX_IMAGE_SIZE = 1024  # [px]
HIDDEN_GROUP = 5  # of geoms: MuJoCo draws groups 0 to 2
MESH_CELL = 0.006  # half a pixel of the front camera, at 64 pixels; a pixel of the wrist camera, near the table [m]
PICKLED_TYPES = [(_reconstruct, "numpy.core.multiarray._reconstruct"), np.ndarray, np.dtype, np.dtypes.Float64DType]


class SimulationError(InputError):
    """The simulator was asked for something it cannot do; the message names what and what is valid."""


@dataclass(frozen=True)
class Observation:
    """What a policy sees after one control step."""

    state: np.ndarray  # (8,) float32: gripper position [m] 3, axis-angle [rad] 3, finger positions [m] 2
    images: dict[Camera, np.ndarray]  # of the cameras asked for: (H, W, 3) uint8


@dataclass(frozen=True)
class PickupState:
    """Where a pickup stands after one control step: the object that the task places, its target and the gripper."""

    grip_distance: float  # from the middle between the fingertips to the object's origin [m]
    left_contact: bool  # the left finger, its pad or its body, touches the object
    right_contact: bool
    opening: float  # between the fingers, 0 (shut) to 0.08 [m]
    closing: bool  # the last action told the gripper to close
    object_height: float  # of the object's origin in the world frame [m]
    target_distance: float  # horizontal, between the origins of object and target [m]
    placed: bool  # LIBERO's own predicate: the object is on, or in, the target


def libero_task(suite: str, task_id: int) -> Task:
    """Look a task up by its id in the suite's own order.

    Raises:
        SimulationError: no such suite or task.
    """
    if suite not in task_maps:
        raise SimulationError(f"no LIBERO suite {suite!r}; valid: {', '.join(sorted(task_maps))}")
    tasks = list(task_maps[suite].values())
    if not 0 <= task_id < len(tasks):
        raise SimulationError(f"{suite} has tasks 0 to {len(tasks) - 1}, not {task_id}")
    if not tasks[task_id].language.strip():
        raise SimulationError(f"{suite} task {task_id} has no instruction")
    return tasks[task_id]


class LiberoSimulation:
    """One LIBERO task, driven episode by episode: `reset`, then `step` until success or the caller's horizon.

    States and images of an episode are functions of (suite, task, render settings, seed, initial state, actions), bit
    for bit, in any process. Seeding goes through numpy's global generator.

    Attributes:
        task_description: the instruction, never empty.
        init_state: the state (S,) the present episode began with, before it settled.
        placement: (predicate, object, target) of the task's goal; None where it is not to place one object somewhere.
    """

    def __init__(self, spec: Simulation, task_id: int):
        self.spec, self.task_id = spec, task_id
        task = libero_task(spec.suite, task_id)
        self.task_description = task.language
        self.num_init_states = INIT_STATES_PER_TASK
        # Rendering is ours, not robosuite's: a reset then costs no OpenGL context and no image that no one looks at.
        self._libero = ControlEnv(
            bddl_file_name=str(Path(get_libero_path("bddl_files")) / task.problem_folder / task.bddl_file),
            has_offscreen_renderer=False,
            use_camera_obs=False,
            control_freq=CONTROL_FREQUENCY,
            ignore_done=True,
        )
        self.placement = placement_of(self._libero.env.parsed_problem["goal_state"])
        if spec.spread:
            _widen_regions(self._libero.env.parsed_problem, self._placed_objects(), spec.spread)
        self._robot_state = LiberoProcessorStep()
        self._renderer: _Renderer | None = None
        self._wanted: Collection[Camera] = ()
        self._images: dict[Camera, np.ndarray] = {}
        self.init_state: np.ndarray | None = None
        self._closing = False
        self._libero.env._initialize_sim = self._begin_sim
        gc.freeze()  # at every reset robosuite looks for garbage, in all that was ever imported
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
        self._closing = False
        self._contact_roles = self._pickup_geoms() if self.placement else None
        own = self.sim_state()
        self.init_state = own if init_state is None else _checked_state(init_state, own.size)
        settle = self.spec.settle_steps
        self._wanted = () if settle else cameras
        raw = self._libero.set_init_state(self.init_state)
        for step in range(settle):
            self._wanted = cameras if step == settle - 1 else ()
            raw, *_ = self._libero.step(SETTLE_ACTION)
        return self._observation(raw)

    def step(self, action: np.ndarray, cameras: Collection[Camera] = ()) -> tuple[Observation, bool]:
        """Take one control step.

        Args:
            action: (7,) in [-1, 1]: relative translation 3, relative rotation 3, gripper (-1 opens, 1 closes). Rounded
                to float32, the precision of a recorded action, so that a replayed recording is the episode itself.
            cameras: whose images the returned observation holds; no other is rendered.

        Returns:
            the observation and whether the task is solved.
        """
        _check_cameras(cameras)
        if self.init_state is None:
            raise SimulationError("step before reset")
        self._wanted = cameras
        action = _checked_action(action)
        raw, _, solved, _ = self._libero.step(action)
        self._closing = bool(action[-1] > 0)  # robosuite takes the sign
        return self._observation(raw), bool(solved)

    def is_solved(self) -> bool:
        """LIBERO's own predicate for the task's goal. Drawn widely, an object may begin where it is to be placed."""
        return bool(self._libero.check_success())

    def render(self, camera: Camera, size: int) -> np.ndarray:
        """Take a picture of the present moment, for videos: (size, size, 3) uint8. Physics does not notice."""
        _check_cameras([camera])
        if not 0 < size <= MAX_IMAGE_SIZE:
            raise SimulationError(f"an image's side is 1 to {MAX_IMAGE_SIZE} px, not {size}")
        return self._draw(camera, size)

    def sim_state(self) -> np.ndarray:
        """The flattened MuJoCo state (S,) float64: time, positions, velocities. Fixtures' places are no part of it."""
        return self._libero.get_sim_state()

    def body_position(self, body: str) -> np.ndarray:
        """Where a body of the scene is now: (3,) [m], world frame."""
        return self._libero.sim.data.get_body_xpos(body).copy()

    def grip_position(self) -> np.ndarray:
        """Where the middle between the fingertips is now: (3,) [m], world frame."""
        return self._libero.sim.data.get_site_xpos("gripper0_grip_site").copy()

    def grip_rotation(self) -> np.ndarray:
        """How the gripper is turned now: (3, 3), world frame."""
        return self._libero.sim.data.get_site_xmat("gripper0_grip_site").copy()

    def pickup_state(self) -> PickupState:
        """Where the pickup stands now. Reads what the last step computed; physics does not notice.

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
        """What each geom of the model is to a pickup: (geoms,) uint8. robosuite's `check_contact` compares names."""
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

    def _begin_sim(self, _xml: str | None = None) -> None:
        """What robosuite's environment does at every hard reset, with a simulation that repeats nothing."""
        env = self._libero.env
        env.sim = _ThriftySim(copy.copy(_compiled(env.model.get_xml())))
        env.sim.forward()
        env.initialize_time(env.control_freq)

    def _camera_sensor(self):
        @sensor(modality="image")
        def look(_cache) -> float:
            self._images = {camera: self._draw(camera, self.spec.camera_size) for camera in self._wanted}
            return 0.0

        return look

    def _draw(self, camera: Camera, size: int) -> np.ndarray:
        sim = self._libero.sim
        if self._renderer is None:
            self._renderer = _Renderer(sim.model._model, self.spec.render)
        return self._renderer.draw(sim.model._model, sim.data._data, CAMERA_NAMES[camera], size)

    def _observation(self, raw: dict) -> Observation:
        position, rotation, fingers = (raw[name] for name in STATE_NAMES)
        nested = {"eef": _batched({"pos": position, "quat": rotation}), "gripper": _batched({"qpos": fingers})}
        state = self._robot_state.observation({"observation.robot_state": nested})["observation.state"]
        return Observation(state=state[0].numpy(), images=dict(self._images))


@lru_cache(maxsize=1)
def _compiled(xml: str) -> mujoco.MjModel:
    """Compile a model, which takes longer than all else in a reset and gives the same at each reset of a task."""
    return mujoco.MjModel.from_xml_string(xml)


class _ThriftySim(MjSim):
    """robosuite's simulation; positions, velocities and what follows from them are computed once.

    In each physics step robosuite has MuJoCo compute them three times: for itself, for the controller and in the step
    proper. Before the first step all is computed always: a reset moves fixtures, which are no part of the state.
    """

    _stepped = False
    _computed: tuple[float, bytes, bytes] | None = None

    def forward(self) -> None:
        if self._computed is None or self._moment() != self._computed:
            super().forward()
            self._computed = self._moment() if self._stepped else None

    def step(self, with_udd: bool = True) -> None:
        if self._computed is not None and self._moment() == self._computed:
            mujoco.mj_step2(self.model._model, self.data._data)
        else:
            super().step(with_udd)
        self._stepped = True

    def _moment(self) -> tuple[float, bytes, bytes]:
        data = self.data._data
        return data.time, data.qpos.tobytes(), data.qvel.tobytes()


class _Renderer:
    """An offscreen OpenGL context. It outlives hard resets: the model they build has the same meshes and textures."""

    def __init__(self, model: mujoco.MjModel, settings: str):
        self._fast = settings == "fast"
        self._gl = GLContext(MAX_IMAGE_SIZE, MAX_IMAGE_SIZE)
        self._gl.make_current()
        model = _with_fewer_faces(model) if self._fast else model
        model.vis.global_.offwidth = model.vis.global_.offheight = MAX_IMAGE_SIZE
        if self._fast:
            model.vis.quality.offsamples = 0
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._options = mujoco.MjvOption()
        self._options.geomgroup[0] = 0  # collision shapes, which robosuite hides
        self._scene = mujoco.MjvScene(model, maxgeom=1000)  # making one takes a quarter of the time of drawing it
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = not self._fast

    def draw(self, model: mujoco.MjModel, data: mujoco.MjData, camera: str, size: int) -> np.ndarray:
        """Draw what `camera` sees: (size, size, 3) uint8, rotated by 180 degrees from OpenGL's order."""
        self._gl.make_current()
        self._camera.fixedcamid = model.camera(camera).id
        groups = model.geom_group.copy()
        if self._fast:  # else they might be seen in a reflection
            model.geom_group[_out_of_view(model, data, self._camera.fixedcamid)] = HIDDEN_GROUP
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(model, data, self._options, mujoco.MjvPerturb(), self._camera, everything, self._scene)
        model.geom_group[:] = groups
        viewport = mujoco.MjrRect(0, 0, size, size)
        mujoco.mjr_render(viewport, self._scene, self._context)
        pixels = np.empty((size, size, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, viewport, self._context)
        return np.ascontiguousarray(pixels[::-1, ::-1])

    def close(self) -> None:
        self._context.free()
        self._gl.free()


def _out_of_view(model: mujoco.MjModel, data: mujoco.MjData, camera: int) -> np.ndarray:
    """Which geoms a square image cannot show: (geoms,) bool. OpenGL would find out face by face."""
    seen = (data.geom_xpos - data.cam_xpos[camera]) @ data.cam_xmat[camera].reshape(3, 3)  # it looks along -z
    angle = np.deg2rad(model.cam_fovy[camera]) / 2
    beyond = np.abs(seen[:, :2]).max(axis=1) * np.cos(angle) + seen[:, 2] * np.sin(angle)  # the nearest side's plane
    return (np.maximum(beyond, seen[:, 2]) > model.geom_rbound) & (model.geom_rbound > 0)  # a plane has no bound


def _with_fewer_faces(model: mujoco.MjModel) -> mujoco.MjModel:
    """A copy to draw from: of the vertices of a mesh in one cell of a grid of `MESH_CELL` only the first is used."""
    model = copy.copy(model)
    for mesh in range(model.nmesh):
        vertices = _part(model.mesh_vert, model.mesh_vertadr[mesh], model.mesh_vertnum[mesh])
        faces, normals, texture = (
            _part(array, model.mesh_faceadr[mesh], model.mesh_facenum[mesh])
            for array in (model.mesh_face, model.mesh_facenormal, model.mesh_facetexcoord)
        )
        x, y, z = np.floor((vertices - vertices.min(axis=0)) / MESH_CELL).astype(np.int64).T
        _, first, cell = np.unique((x << 40) + (y << 20) + z, return_index=True, return_inverse=True)
        merged = first[cell][faces]  # (faces, 3)
        corners = np.sort(merged, axis=1)
        whole = np.flatnonzero((corners[:, 0] < corners[:, 1]) & (corners[:, 1] < corners[:, 2]))
        _, distinct = np.unique(corners[whole], axis=0, return_index=True)
        kept = whole[np.sort(distinct)]
        if len(kept):  # else the whole mesh is smaller than a cell
            faces[: len(kept)], normals[: len(kept)], texture[: len(kept)] = merged[kept], normals[kept], texture[kept]
            model.mesh_facenum[mesh] = len(kept)
    return model


def _part(array: np.ndarray, start: int, count: int) -> np.ndarray:
    return array[start : start + count]


def _widen_regions(problem: dict, objects: Collection[str], spread: float) -> None:
    """Let objects begin anywhere up to `spread` [m] beyond the places their task names for them.

    LIBERO's placement still draws again where two objects would touch. An object that does not begin on the table (in
    a drawer, on another object) stays where it is.
    """
    places = [predicate for predicate in problem["initial_state"] if len(predicate) == 3]  # others: (open, drawer)
    regions = {where for relation, what, where in places if relation == "on" and what in objects}
    for region in regions & set(problem["regions"]):
        region = problem["regions"][region]
        region["ranges"] = [(x0 - spread, y0 - spread, x1 + spread, y1 + spread) for x0, y0, x1, y1 in region["ranges"]]


def placement_of(goal: list[list[str]]) -> tuple[str, str, str] | None:
    """The one placement, (on or in, object, target), of a BDDL goal, whatever else it asks for.

    None where there is no placement, as in opening a drawer, or more than one.
    """
    placements = [tuple(predicate) for predicate in goal if predicate[0] in ("on", "in")]
    return placements[0] if len(placements) == 1 else None


def benchmark_init_states(suite: str, task_id: int) -> np.ndarray:
    """LIBERO's own initial states of a task, which only evaluation uses: (50, S) float64.

    The files are pickles; nothing but numpy arrays is let out of them.
    """
    task = libero_task(suite, task_id)
    path = Path(get_libero_path("init_states")) / task.problem_folder / task.init_states_file
    with torch.serialization.safe_globals(PICKLED_TYPES):
        states = torch.load(path, weights_only=True)
    if states.ndim != 2 or len(states) != INIT_STATES_PER_TASK:
        raise SimulationError(f"{path}: expected {INIT_STATES_PER_TASK} initial states, found {states.shape}")
    return states.astype(np.float64)


def init_state_sha256(state: np.ndarray) -> str:
    """Name an initial state by its values: hex digest of its little-endian float64 bytes."""
    return hashlib.sha256(np.ascontiguousarray(state, dtype="<f8").tobytes()).hexdigest()


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


def _batched(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array)[None] for name, array in arrays.items()}
