"""One adapter runs LIBERO: the same episode every time, LeRobot's own, and no image that no one asked for."""

import hashlib
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from lerobot.processor.env_processor import LiberoProcessorStep

from world_modality.experiment.sections import Simulation
from world_modality.simulation import benchmark, libero, physics, rendering
from world_modality.simulation.benchmark import (
    SimulationError,
    benchmark_init_states,
    init_state_sha256,
    libero_task,
)
from world_modality.simulation.expert import ScriptedExpert
from world_modality.simulation.libero import LiberoSimulation

SPEC = Simulation(suite="libero_spatial", camera_size=64, render="fast", spread=0, settle_steps=2)
INIT_STATE = 3
BOTH = ("front", "wrist")
DOWN = np.array([0, 0, -1, 0, 0, 0, 1], np.float32)
ACTIONS = np.random.default_rng(0).uniform(-1, 1, (6, 7)).astype(np.float32)


@pytest.fixture(scope="module")
def simulation():
    with LiberoSimulation(SPEC, 0) as simulation:
        yield simulation


@pytest.fixture(scope="module")
def init_states():
    return benchmark_init_states("libero_spatial", 0)


def episode_digest(simulation, seed, init_state, asks=BOTH):
    """Hash of all that is seen and of where it ends; images are asked for on the last step only."""
    digest = hashlib.sha256(simulation.reset(seed, init_state).state.tobytes())
    for step, action in enumerate(ACTIONS):
        observation, _ = simulation.step(action, asks if step == len(ACTIONS) - 1 else ())
        digest.update(observation.state.tobytes())
    for camera in BOTH:
        digest.update(observation.images[camera].tobytes())
    digest.update(simulation.sim_state().tobytes())
    return digest.hexdigest()


def print_digest():
    with LiberoSimulation(SPEC, 0) as simulation:
        print(episode_digest(simulation, 7, benchmark_init_states("libero_spatial", 0)[3]))


def test_an_episode_is_the_same_after_other_episodes_and_in_another_process(simulation, init_states):
    here = episode_digest(simulation, 7, init_states[3])
    episode_digest(simulation, 8, None)
    assert episode_digest(simulation, 7, init_states[3]) == here
    command = [sys.executable, "-W", "ignore", "-c", "import test_libero as t; t.print_digest()"]
    there = subprocess.run(command, cwd=__file__.rpartition("/")[0], capture_output=True, text=True, check=True)
    assert there.stdout.split()[-1] == here


class LeRobotsOwn:
    """LeRobot's environment, which runs robosuite as it is. Its cameras see black except where `look`."""

    def __init__(self, task_id: int):
        from lerobot.envs.libero import LiberoEnv, _get_suite  # only now: it needs the environment variables set above

        size = {"observation_width": SPEC.camera_size, "observation_height": SPEC.camera_size}
        suite = _get_suite(SPEC.suite)
        settle = {"episode_index": INIT_STATE, "num_steps_wait": SPEC.settle_steps}
        self._environment = LiberoEnv(suite, task_id, SPEC.suite, obs_type="pixels_agent_pos", **size, **settle)

    def reset(self, seed):
        raw, _ = self._environment.reset(seed=seed)
        return raw

    def step(self, action, look):
        self.sim._render_context_offscreen.gl_ctx.make_current()  # robosuite draws in whatever context is
        black = np.zeros((SPEC.camera_size, SPEC.camera_size, 3), np.uint8)
        self.sim.__dict__.update({} if look else {"render": lambda **_: black})
        raw, _, solved, _, _ = self._environment.step(action)
        self.sim.__dict__.pop("render", None)
        return raw, solved

    @property
    def sim(self):
        return self._environment._env.sim

    def close(self):
        self._environment.close()


def expert_actions(simulation):
    expert = ScriptedExpert(simulation)
    while not simulation.is_solved():
        yield expert.action()


def wild_actions(_simulation):
    """All there is to do: move and turn beyond the limits, turn about one axis or none, close and open, push down."""
    wild = np.random.default_rng(4).uniform(-1.2, 1.2, (60, 7)).astype(np.float32)
    wild[20:30, 3:6], wild[30:40, 3:5], wild[40:, :6], wild[50, 6] = 0, 0, DOWN[:6], 0
    return wild


@pytest.mark.parametrize(("task_id", "actions"), [(0, expert_actions), (6, wild_actions)])
def test_an_episode_is_the_one_lerobots_own_environment_runs(task_id, actions):
    reference = LeRobotsOwn(task_id)
    raw = reference.reset(7)
    with LiberoSimulation(SPEC.model_copy(update={"render": "stock"}), task_id) as simulation:
        simulation.reset(8)  # another episode's fixtures are not this one's
        observation = simulation.reset(7, benchmark_init_states(SPEC.suite, task_id)[INIT_STATE], BOTH)
        assert_equal_observations(observation, raw)
        in_the_air = contacts(simulation)
        for step, action in enumerate(actions(simulation)):
            look = step % 30 == 29
            raw, expected = reference.step(action, look)
            observation, solved = simulation.step(action, BOTH if look else ())
            assert_equal_observations(observation, raw)
            assert solved == expected
            assert_equal_data(simulation._libero.sim.data._data, reference.sim.data._data)
        assert step >= 59
        assert contacts(simulation) != in_the_air  # what is stiff shows the smallest difference
    reference.close()


def contacts(simulation) -> int:
    return simulation._libero.sim.data.ncon


def assert_equal_data(ours, stock):
    """Every number that MuJoCo has computed: controls, forces and what the next step begins from, too."""
    for name in dir(stock):
        expected = getattr(stock, name)
        if isinstance(expected, np.ndarray) and expected.dtype.kind == "f":  # some indices are memory never written
            np.testing.assert_array_equal(getattr(ours, name), expected, err_msg=name)
    np.testing.assert_array_equal(ours.contact.geom, stock.contact.geom)
    np.testing.assert_array_equal(ours.contact.dist, stock.contact.dist)


def assert_equal_observations(ours, raw):
    def batch(array):
        return torch.from_numpy(np.ascontiguousarray(array))[None]

    eef, gripper = raw["robot_state"]["eef"], raw["robot_state"]["gripper"]
    processed = LiberoProcessorStep().observation(
        {
            "observation.images.front": batch(raw["pixels"]["image"]).permute(0, 3, 1, 2),
            "observation.images.wrist": batch(raw["pixels"]["image2"]).permute(0, 3, 1, 2),
            "observation.robot_state": {
                "eef": {name: batch(eef[name]) for name in ("pos", "quat")},
                "gripper": {"qpos": batch(gripper["qpos"])},
            },
        }
    )
    np.testing.assert_array_equal(ours.state, processed["observation.state"][0])
    for camera in ours.images:
        expected = processed[f"observation.images.{camera}"][0].permute(1, 2, 0)
        np.testing.assert_array_equal(ours.images[camera], expected)


def test_only_the_cameras_asked_for_are_rendered(simulation, monkeypatch):
    drawn = []
    draw = rendering.Renderer.draw
    monkeypatch.setattr(
        rendering.Renderer, "draw", lambda self, model, data, *a: drawn.append(a[0]) or draw(self, model, data, *a)
    )
    assert simulation.reset(1).images == {}
    simulation.step(ACTIONS[0])
    assert drawn == []
    observation, _ = simulation.step(ACTIONS[0], ["wrist"])
    assert list(observation.images) == ["wrist"]
    assert drawn == [libero.CAMERA_NAMES["wrist"]]


def test_fewer_faces_look_almost_the_same(simulation):
    simulation.reset(1)
    model = simulation._libero.sim.model._model
    whole = {name: getattr(model, name).copy() for name in (*rendering.FACES, "mesh_facenum")}
    pictures = []
    for faces in (nullcontext(), rendering.fewer_faces(model)):
        with faces:
            drawn = model.mesh_facenum.sum()
            renderer = rendering.Renderer(model, "stock")
        pictures.append(renderer.draw(model, simulation._libero.sim.data._data, "agentview", 64).astype(int))
        renderer.close()
    assert drawn < whole["mesh_facenum"].sum() / 3
    for name, array in whole.items():
        np.testing.assert_array_equal(getattr(model, name), array)
    assert 0 < np.abs(pictures[0] - pictures[1]).mean() < 3


def test_looking_changes_nothing(simulation):
    def last_state(look):
        simulation.reset(1, cameras=BOTH if look else ())
        for action in ACTIONS:
            observation, _ = simulation.step(action, BOTH if look else ())
            if look:
                assert simulation.render("front", 96).shape == (96, 96, 3)
        return observation.state, simulation.sim_state()

    for seen, unseen in zip(last_state(True), last_state(False), strict=True):
        np.testing.assert_array_equal(seen, unseen)


def test_a_state_and_images_have_the_datasets_shapes(simulation):
    observation = simulation.reset(1, cameras=BOTH)
    assert observation.state.shape == (8,)
    assert observation.state.dtype == np.float32
    for camera in BOTH:
        assert observation.images[camera].shape == (64, 64, 3)
        assert observation.images[camera].dtype == np.uint8
        assert observation.images[camera].std() > 10


def test_the_state_is_set_after_the_reset_whatever_its_seed_drew(simulation, init_states):
    bowls = []
    for seed, init_state_id in ((1, 5), (2, 5), (2, 6)):
        simulation.reset(seed, init_states[init_state_id])
        np.testing.assert_array_equal(simulation.init_state, init_states[init_state_id])
        bowls.append(simulation.body_position("akita_black_bowl_1_main"))
    np.testing.assert_allclose(bowls[0], bowls[1], atol=1e-4)
    assert np.linalg.norm(bowls[2] - bowls[1]) > 1e-3


def test_seeds_draw_different_episodes(simulation):
    simulation.reset(1)
    first = init_state_sha256(simulation.init_state)
    simulation.reset(2)
    assert init_state_sha256(simulation.init_state) != first


def test_what_a_seed_draws_does_not_depend_on_the_episodes_before():
    with LiberoSimulation(SPEC, 4) as drawer:  # LIBERO's drawer draws once more after every reset
        draws = []
        for _ in range(3):
            drawer.reset(6)
            draws.append((*drawer.init_state, *drawer.body_position("wooden_cabinet_1_main")))
    assert draws[0] == draws[1] == draws[2]


def test_an_episode_begins_with_the_model_as_it_was_compiled():
    with LiberoSimulation(SPEC, 6) as simulation:
        simulation.reset(1)
        for action in ACTIONS:
            simulation.step(action, BOTH)
        xml = simulation._libero.env.model.get_xml()
        simulation._libero.env._initialize_sim()
        model, expected = simulation._libero.sim.model._model, physics.mujoco.MjModel.from_xml_string(xml)
        for name in dir(expected):
            if isinstance(getattr(expected, name), np.ndarray):
                np.testing.assert_array_equal(getattr(model, name), getattr(expected, name), err_msg=name)


def test_the_wrist_holds_its_orientation_while_the_rotation_actions_are_zero(simulation):
    before = simulation.reset(1).state[3:6]
    for _ in range(10):
        observation, _ = simulation.step(np.array([0.3, 0.3, -0.3, 0, 0, 0, -1]))
    np.testing.assert_allclose(observation.state[3:6], before, atol=0.15)


def test_a_spread_lets_bowl_and_plate_begin_anywhere_in_a_wider_region():
    names = ("akita_black_bowl_1_main", "plate_1_main", "cookies_1_main")
    with LiberoSimulation(SPEC.model_copy(update={"spread": 0.1}), 0) as wide:
        begins = {name: [] for name in names}
        for seed in range(8):
            wide.reset(seed)
            for name in names:
                begins[name].append(wide.body_position(name)[:2])
    extents = {name: np.ptp(places, axis=0) for name, places in begins.items()}
    for name in names[:2]:
        assert (extents[name] > 0.08).all()
        assert (extents[name] < 0.23).all()
    assert (extents["cookies_1_main"] < 0.03).all()


def test_a_spread_widens_a_task_that_opens_a_drawer_first():
    with LiberoSimulation(SPEC.model_copy(update={"spread": 0.05}), 4) as drawer:
        drawer.reset(0)
        assert not drawer.is_solved()


def test_leaving_out_what_is_out_of_view_changes_no_pixel(monkeypatch):
    left_out = []

    def spied(*scene):
        left_out.append(out_of_view(*scene))
        return left_out[-1]

    out_of_view = rendering.out_of_view
    with LiberoSimulation(SPEC, 0) as simulation:
        simulation.reset(0)
        for _ in range(5):
            simulation.step(np.array([0.5, 0.3, -0.5, 0.2, 0.1, 0.3, 1]))
            monkeypatch.setattr(rendering, "out_of_view", spied)
            without = [simulation.render(camera, 64) for camera in ("front", "wrist")]
            monkeypatch.setattr(rendering, "out_of_view", lambda model, *_: np.zeros(model.ngeom, bool))
            whole = [simulation.render(camera, 64) for camera in ("front", "wrist")]
            assert all(np.array_equal(*pair) for pair in zip(without, whole, strict=True))
    assert all(geoms.any() for geoms in left_out[1::2])


def test_benchmark_states_are_fifty_distinct_ones(init_states):
    assert init_states.shape == (50, 92)
    assert len({init_state_sha256(state) for state in init_states}) == 50


def test_nothing_but_arrays_is_unpickled(tmp_path, monkeypatch):
    torch.save(print_digest, tmp_path / "states")
    planted = replace(libero_task("libero_spatial", 0), init_states_file=tmp_path / "states")
    monkeypatch.setattr(benchmark, "libero_task", lambda *_: planted)
    with pytest.raises(Exception, match="Unsupported global"):
        benchmark_init_states("libero_spatial", 0)


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (lambda s: LiberoSimulation(SPEC, 10), "libero_spatial has tasks 0 to 9, not 10"),
        (lambda s: benchmark_init_states("libero_spatial", -1), "has tasks 0 to 9, not -1"),
        (lambda s: s.step(np.zeros(6)), "an action is 7 finite numbers"),
        (lambda s: s.step([0, 0, np.nan, 0, 0, 0, 0]), "an action is 7 finite numbers"),
        (lambda s: s.step(np.zeros(7), ["side"]), "no camera 'side'; valid: front, wrist"),
        (lambda s: s.render("front", 4096), "an image's side is 1 to 1024 px, not 4096"),
        (lambda s: s.reset(1, cameras=["left"]), "no camera 'left'; valid: front, wrist"),
        (lambda s: s.reset(1, np.zeros(3)), "an initial state of this task is 92 finite numbers"),
        (lambda s: s.reset(1, np.full(92, np.inf)), "an initial state of this task is 92 finite numbers"),
    ],
)
def test_what_cannot_be_done_is_one_clear_error(simulation, do, message):
    simulation.reset(1)
    with pytest.raises(SimulationError, match=message):
        do(simulation)


def test_a_step_needs_a_reset():
    with LiberoSimulation(SPEC, 0) as fresh, pytest.raises(SimulationError, match="step before reset"):
        fresh.step(np.zeros(7))
