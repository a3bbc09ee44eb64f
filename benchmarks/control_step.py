"""How long a control step without pictures takes: robosuite's own, ours, and MuJoCo's part of both; prints a table.

The same random actions are taken in two simulations, in turn, so that other work on the machine slows both alike. After
each step their states must be equal, bit for bit. Times are the medians of a process's CPU time. MuJoCo's part is the
same number of its physics steps from the same states, with the controls held.

    python -m benchmarks.control_step --task 0 --steps 300
"""

import argparse
import copy
import time
from collections.abc import Callable

import mujoco
import numpy as np

from world_modality.experiment.sections import Simulation
from world_modality.experiment.suites import ACTION_DIM
from world_modality.simulation.expert import SUITE
from world_modality.simulation.libero import LiberoSimulation

PHYSICS_STEPS = 25
SPEC = Simulation(suite=SUITE, camera_size=64, render="fast", spread=0, settle_steps=10)
STOCK, OURS, MUJOCO = "robosuite's own", "ours", "MuJoCo alone"


def duration(work: Callable[[], object]) -> float:
    """CPU time of a call [s]."""
    began = time.process_time()
    work()
    return time.process_time() - began


def physics(simulation: LiberoSimulation) -> Callable[[], None]:
    """MuJoCo's work in a control step from the present state, on a copy of it."""
    model, data = simulation._libero.sim.model._model, copy.copy(simulation._libero.sim.data._data)

    def steps() -> None:
        for _ in range(PHYSICS_STEPS):
            mujoco.mj_step1(model, data)
            mujoco.mj_step2(model, data)

    return steps


def measure(stock: LiberoSimulation, ours: LiberoSimulation, actions: np.ndarray) -> dict[str, list[float]]:
    """Times of each control step [s]."""
    times = {STOCK: [], OURS: [], MUJOCO: []}
    for action in actions:
        times[MUJOCO].append(duration(physics(ours)))
        times[STOCK].append(duration(lambda: stock._libero.step(action.astype(np.float64))))  # noqa: B023
        times[OURS].append(duration(lambda: ours.step(action)))  # noqa: B023
        np.testing.assert_array_equal(ours.sim_state(), stock.sim_state())
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", type=int, default=0)
    parser.add_argument("--steps", type=int, default=300)
    args = parser.parse_args()
    actions = np.random.default_rng(0).uniform(-1, 1, (args.steps, ACTION_DIM)).astype(np.float32)
    with LiberoSimulation(SPEC, args.task) as stock, LiberoSimulation(SPEC, args.task) as ours:
        stock.reset(0)
        ours.reset(0)
        times = measure(stock, ours, actions)
    print("control step      ms     to robosuite's")
    for name, durations in times.items():
        print(f"{name:15} {np.median(durations) * 1e3:6.2f}     {np.median(durations) / np.median(times[STOCK]):.2f}")


if __name__ == "__main__":
    main()
