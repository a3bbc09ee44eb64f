"""Drawn initial states: solvable, frozen, each a function of its number alone, and refused where they do not fit."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from world_modality.errors import InputError
from world_modality.evaluation import drawing as module
from world_modality.evaluation.drawing import draw_init_states
from world_modality.evaluation.init_states import init_states
from world_modality.experiment.sections import Simulation
from world_modality.experiment.seeds import EVALUATION_SEEDS, env_seed, init_state_seed
from world_modality.experiment.specs import InitStatesSpec
from world_modality.simulation.benchmark import init_state_sha256
from world_modality.simulation.libero import LiberoSimulation

WIDE = Simulation(suite="libero_spatial", camera_size=64, render="fast", spread=0.08, settle_steps=10)

DRAWN = InitStatesSpec(suite="libero_spatial", spread=0.08, settle_steps=10)


class Scene:
    """A simulator whose states are their seeds, and whose unsolvable ones end in 0."""

    def __init__(self, spec, task_id):
        self.spec, self.task_id, self.resets = spec, task_id, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def reset(self, seed, init_state=None):
        self.seed = seed
        self.init_state = np.full(3, float(seed)) if init_state is None else init_state


@pytest.fixture
def scene(monkeypatch):
    monkeypatch.setattr(module, "LiberoSimulation", Scene)
    monkeypatch.setattr(module, "solve", lambda s: None if s.init_state[0] % 10 == 0 else 90)


def test_a_state_does_not_depend_on_the_block_it_is_drawn_in(scene, tmp_path):
    for name, block in (("all", range(30)), ("last", range(20, 30))):
        draw_init_states(DRAWN, 1, block, tmp_path / f"{name}.parquet")
    everything = init_states(WIDE, 1, [tmp_path / "all.parquet"])
    last = init_states(WIDE, 1, [tmp_path / "last.parquet"])
    assert list(everything) == list(range(30))
    assert {n: s.tobytes() for n, s in last.items()} == {n: everything[n].tobytes() for n in range(20, 30)}


def test_a_state_the_expert_cannot_solve_is_drawn_again(scene, tmp_path):
    draw_init_states(DRAWN, 1, range(50), tmp_path / "states.parquet")
    table = pq.read_table(tmp_path / "states.parquet")
    draws = table["draws"].to_pylist()
    assert max(draws) > 1
    for number, state in init_states(WIDE, 1, [tmp_path / "states.parquet"]).items():
        assert state[0] == init_state_seed(1, number, draws[number] - 1)
        assert state[0] % 10


def test_no_demonstration_begins_at_a_seed_of_the_evaluation():
    assert min(init_state_seed(t, n, d) for t in range(3) for n in range(50) for d in range(3)) >= EVALUATION_SEEDS


def test_too_wide_a_spread_is_one_clear_error(monkeypatch, scene, tmp_path):
    monkeypatch.setattr(module, "solve", lambda _: None)
    with pytest.raises(InputError, match=r"expert solves none; simulation.spread 0.08 is too wide"):
        draw_init_states(DRAWN, 1, range(2), tmp_path / "states.parquet")
    assert list(tmp_path.iterdir()) == []


def test_without_a_spread_they_are_the_benchmarks(tmp_path):
    narrow = WIDE.model_copy(update={"spread": 0})
    assert len(init_states(narrow, 0, [])) == 50
    with pytest.raises(InputError, match="LIBERO's benchmark states and no files"):
        init_states(narrow, 0, [tmp_path / "states.parquet"])
    with pytest.raises(InputError, match=r"spread 0\.08 needs files"):
        init_states(WIDE, 0, [])
    with pytest.raises(InputError, match="LIBERO's benchmark"):
        draw_init_states(DRAWN.model_copy(update={"spread": 0}), 0, range(2), tmp_path / "states.parquet")


def test_files_that_do_not_fit_are_refused(scene, tmp_path):
    path = tmp_path / "states.parquet"
    draw_init_states(DRAWN, 1, range(3), path)
    with pytest.raises(InputError, match="initial states with task 1, expected 0"):
        init_states(WIDE, 0, [path])
    with pytest.raises(InputError, match=r"spread 0\.08, expected 0\.05"):
        init_states(WIDE.model_copy(update={"spread": 0.05}), 1, [path])
    with pytest.raises(InputError, match="initial state 0 is in another file as well"):
        init_states(WIDE, 1, [path, path])
    table = pq.read_table(path)
    moved = table.set_column(4, "state", table["state"].combine_chunks().take([1, 0, 2]))
    pq.write_table(moved, path)
    with pytest.raises(InputError, match="initial state 0 is not the one that was drawn"):
        init_states(WIDE, 1, [path])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="truncated or damaged Parquet"):
        init_states(WIDE, 1, [path])


def test_the_expert_solves_the_very_episode_that_is_evaluated(tmp_path):
    path = tmp_path / "states.parquet"
    draw_init_states(DRAWN, 1, range(1), path)
    [steps] = pq.read_table(path)["expert_steps"].to_pylist()
    [state] = init_states(WIDE, 1, [path]).values()
    with LiberoSimulation(WIDE, 1) as simulation:
        simulation.reset(env_seed(1, 0), state)
        assert init_state_sha256(simulation.init_state) == init_state_sha256(state)
        assert module.solve(simulation) == steps
