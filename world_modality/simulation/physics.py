"""robosuite's control step, bit for bit at its locked version, without computing anything more than once.

A control step is 25 physics steps, and in each of them a controller turns the goal that the action set into torques.
robosuite spends four fifths of a control step on computing the same state three times, looking names up and working
limits out. Here, what stays as it is in an episode is found once, when the episode begins.

Non-obvious behaviours:

* Rounding is robosuite's only while the same functions get arrays of the same layout: numba compiles a function for
  each layout, and a product of several rows in one call may be summed in another order. So the controller's own arrays
  are filled in place, and its compiled functions are called as they are.
* In an episode's first physics step the controller still acts on what it knew when the reset made it, before the
  initial state was set. robosuite's flag for this, `new_update`, is kept.
* What the controller reads follows from positions and velocities alone. So MuJoCo's first half of a step comes before
  it and the second half, forces, after it; robosuite computes both halves up to three times.
* robosuite's records of a robot's recent forces, torques and velocities, which no one here reads, are not kept.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import world_modality.simulation.environment  # noqa: F401

# isort: split
import mujoco
import numpy as np
from libero.libero.envs.bddl_base_domain import BDDLBaseDomain
from robosuite.environments.base import MujocoEnv
from robosuite.robots import SingleArm
from robosuite.utils.binding_utils import MjSim
from robosuite.utils.control_utils import nullspace_torques, opspace_matrices, orientation_error


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """In the block, a class or a module has another attribute of this name."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def compiled(xml: str) -> mujoco.MjModel:
    """Compile a model without leaving more than the model behind.

    `MjModel.from_xml_string` keeps what it parsed, MuJoCo's cache keeps the files it read, and the C library keeps what
    it is given back: together more than twice the model.
    """
    model = mujoco.MjSpec.from_string(xml).compile()
    mujoco.mj_clearCache(mujoco.mj_getCache())
    ctypes.CDLL(None).malloc_trim(0)
    return model


class TaskModel:
    """The model of one simulation, at each reset as it was compiled.

    Compiling takes longer than the rest of a reset, and gives the same model at each reset of a task. A reset moves
    fixtures and hides sites. It leaves meshes and textures alone, which are nearly all of a model's 270 MB, and copying
    them took longer than the rest of a reset. So the other arrays are put back instead.
    """

    def __init__(self):
        self._xml = ""
        self._model: mujoco.MjModel | None = None
        self._arrays: list[tuple[np.ndarray, np.ndarray]] = []  # as it is, as it was compiled

    def fresh(self, xml: str) -> mujoco.MjModel:
        """The compiled model; the one given out before becomes this one."""
        if xml != self._xml:
            self._model, self._arrays = None, []  # before the next one needs its room
            self._xml, self._model = xml, compiled(xml)
            named = (getattr(self._model, name) for name in dir(self._model) if name[:4] not in ("mesh", "tex_"))
            small = (array for array in named if isinstance(array, np.ndarray) and array.flags.writeable)
            self._arrays = [(array, array.copy()) for array in small]
        for array, as_compiled in self._arrays:
            array[:] = as_compiled
        return self._model

    @contextmanager
    def in_new_environments(self) -> Iterator[None]:
        """Environments made in the block use this model, at each of their resets, where robosuite compiles another."""

        def initialize_sim(env: MujocoEnv, _xml: str | None = None) -> None:
            env._initialize_sim = partial(self._begin_sim, env)
            env._initialize_sim()

        with replaced(MujocoEnv, "_initialize_sim", initialize_sim):
            yield

    def _begin_sim(self, env: MujocoEnv, _xml: str | None = None) -> None:
        """What robosuite does when an environment is made, and at every hard reset."""
        env.sim = MjSim(self.fresh(env.model.get_xml()))
        env.sim.forward()
        env.initialize_time(env.control_freq)


class ControlLoop:
    """Takes the control steps of one episode; made after each reset, which makes a new simulation and a new robot."""

    def __init__(self, env: BDDLBaseDomain):
        self._env = env
        self._model, self._data = env.sim.model._model, env.sim.data._data
        self._arm = _Arm(env.robots[0])
        self._gripper = _Gripper(env.robots[0])
        self._observables = [observable for observable in env._observables.values() if observable.is_enabled()]
        self._physics_steps = int(env.control_timestep / env.model_timestep)

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], bool]:
        """What robosuite's `env.step` does: the observations by name, and whether the task is solved."""
        for physics_step in range(self._physics_steps):
            mujoco.mj_step1(self._model, self._data)
            self._arm.look()
            if physics_step == 0:
                self._arm.controller.set_goal(action[:-1])
                self._gripper.set_goal(action[-1:])
            self._gripper.drive()
            self._arm.drive()
            mujoco.mj_step2(self._model, self._data)
            for observable in self._observables:  # each has a clock of its own
                observable.update(self._env.model_timestep, self._env._obs_cache)
        self._env._post_process()
        return {each.name: each.obs for each in self._observables}, self._env._check_success()


class _Arm:
    """The operational space controller: what its `update` and `run_controller` compute, in its own arrays.

    Attributes:
        controller: robosuite's, which keeps the goal.
    """

    def __init__(self, robot: SingleArm):
        self.controller = controller = robot.controller
        self._model, self._data = robot.sim.model._model, robot.sim.data._data
        self._site = robot.sim.model.site_name2id(controller.eef_name)
        self._dofs = _block(controller.qvel_index)
        self._control = self._data.ctrl[_block(robot._ref_joint_actuator_indexes)]
        self._low, self._high = robot.torque_limits
        self._bias = self._data.qfrc_bias[self._dofs]
        self._jacobians = np.zeros((2, 3, self._model.nv))  # of the gripper's position, and of its rotation
        self._masses = np.zeros((self._model.nv, self._model.nv))
        # Views: they are up to date whenever `look` has been called.
        self._position = self._data.site_xpos[self._site]
        self._rotation = self._data.site_xmat[self._site].reshape(3, 3)
        self._joint_positions = self._data.qpos[_block(controller.qpos_index)]
        self._joint_velocities = self._data.qvel[self._dofs]

    def look(self) -> None:
        """Take in positions, velocities and inertia, unless the controller has not acted on the last ones yet."""
        if not self.controller.new_update:
            return
        self._look_at_gripper()
        self._look_at_joints()
        self.controller.new_update = False

    def _look_at_gripper(self) -> None:
        arm, velocities = self.controller, self._data.qvel
        translation, turn = self._jacobians
        mujoco.mj_jacSite(self._model, self._data, translation, turn, self._site)
        arm.ee_pos, arm.ee_ori_mat = self._position, self._rotation
        arm.ee_pos_vel, arm.ee_ori_vel = np.dot(translation, velocities), np.dot(turn, velocities)
        arm.J_pos[:], arm.J_ori[:] = translation[:, self._dofs], turn[:, self._dofs]
        arm.J_full[:3], arm.J_full[3:] = arm.J_pos, arm.J_ori

    def _look_at_joints(self) -> None:
        arm = self.controller
        mujoco.mj_fullM(self._model, self._masses, self._data.qM)
        arm.mass_matrix[:] = self._masses[self._dofs, self._dofs]
        arm.joint_pos, arm.joint_vel = self._joint_positions, self._joint_velocities

    def drive(self) -> None:
        """Set the torques of the joints."""
        arm = self.controller
        force = arm.kp[:3] * (arm.goal_pos - arm.ee_pos) - arm.kd[:3] * arm.ee_pos_vel
        torque = arm.kp[3:] * orientation_error(arm.goal_ori, arm.ee_ori_mat) - arm.kd[3:] * arm.ee_ori_vel
        _, of_force, of_torque, nullspace = opspace_matrices(arm.mass_matrix, arm.J_full, arm.J_pos, arm.J_ori)
        wrench = np.concatenate((np.dot(of_force, force), np.dot(of_torque, torque)))
        torques = np.dot(arm.J_full.T, wrench) + self._bias
        torques += nullspace_torques(arm.mass_matrix, nullspace, arm.initial_joint, arm.joint_pos, arm.joint_vel)
        np.minimum(np.maximum(torques, self._low), self._high, out=self._control)
        arm.new_update = True


class _Gripper:
    """The fingers: what robosuite's `grip_action` sets."""

    def __init__(self, robot: SingleArm):
        self._gripper = robot.gripper
        self._speeds = np.array([-1.0, 1.0]) * robot.gripper.speed
        fingers = _block(robot._ref_joint_gripper_actuator_indexes)
        self._control = robot.sim.data.ctrl[fingers]
        low, high = robot.sim.model.actuator_ctrlrange[fingers].T
        self._middle, self._reach = 0.5 * (high + low), 0.5 * (high - low)

    def set_goal(self, action: np.ndarray) -> None:
        self._change = self._speeds * np.sign(action)

    def drive(self) -> None:
        """Move the fingers' goals a little."""
        moved = self._gripper.current_action + self._change
        self._gripper.current_action = moved = np.minimum(np.maximum(moved, -1.0), 1.0)
        np.add(self._middle, self._reach * moved, out=self._control)


def _block(indexes: list[int]) -> slice:
    """The same places as a slice, which is a view. Where they are not next to each other, shapes will not match."""
    return slice(int(indexes[0]), int(indexes[-1]) + 1)
