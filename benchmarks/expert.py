"""How often the scripted expert solves each task, and in how many steps: prints a table; nothing is rendered.

Reads the simulator, writes nothing. The resets are the seeds from `--seed` on, as the recorder would use them.

    python benchmarks/expert.py --tasks 0 1 --resets 20
"""

import argparse

from world_modality.experiment.sections import Simulation
from world_modality.experiment.suites import SUITE_SIZES
from world_modality.simulation.expert import SUITE, solve
from world_modality.simulation.libero import LiberoSimulation


def steps_to_success(simulation: LiberoSimulation, seed: int) -> int | None:
    """Control steps the expert needs from a seeded reset, or None where it does not succeed."""
    simulation.reset(seed)
    return solve(simulation)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=list(range(SUITE_SIZES[SUITE])))
    parser.add_argument("--resets", type=int, default=20, help="seeded resets per task")
    parser.add_argument("--seed", type=int, default=1000, help="first reset seed")
    parser.add_argument("--spread", type=float, default=0.0, help="how much wider bowl and plate may begin [m]")
    args = parser.parse_args()
    spec = Simulation(suite=SUITE, camera_size=64, render="fast", spread=args.spread, settle_steps=10)
    print("task  success  mean steps  failed seeds  instruction")
    for task in args.tasks:
        with LiberoSimulation(spec, task) as simulation:
            outcomes = {seed: steps_to_success(simulation, seed) for seed in range(args.seed, args.seed + args.resets)}
            steps = [count for count in outcomes.values() if count is not None]
            failed = " ".join(str(seed) for seed, count in outcomes.items() if count is None) or "-"
            mean = f"{sum(steps) / len(steps):.1f}" if steps else "-"
            print(
                f"{task:4}  {len(steps):3}/{args.resets:<3}  {mean:>10}  {failed:>12}  {simulation.task_description}",
                flush=True,
            )


if __name__ == "__main__":
    main()
