"""How wide initial states must vary before eyes matter: success of E0, S0 and E0-blind at each spread; prints a table.

Runs the pipeline for each `simulation.spread` in a folder of its own (what is there stays), with the configuration's
training budget: demonstrations, initial states and both trainings are new for each. E0 sees, S0 was trained
without eyes, E0-blind is E0 with its eyes shut at rollout.

    python benchmarks/spread.py --spreads 0 0.025 0.05 0.1 --directory runs/spread
"""

import argparse
import itertools
import json
import subprocess
import sys
from pathlib import Path

from world_modality.decision.evaluations import check_comparable, episode_table, read_evaluation
from world_modality.decision.pairs import differences, pair_outcomes
from world_modality.decision.statistics import weigh
from world_modality.experiment.config import default_config, load_experiment

REPOSITORY = Path(__file__).resolve().parents[1]
OPTIONS = ("E0", "S0", "E0-blind")


def evaluate(spread: float, folder: Path, tasks: list[int], cores: int) -> list[Path]:
    """The evaluations at one spread, made where they are not there yet."""
    names = [f"results/eval_{option}_{task}.json" for option, task in itertools.product(OPTIONS, tasks)]
    command = [Path(sys.executable).with_name("snakemake"), "--snakefile", REPOSITORY / "Snakefile"]
    command += ["--directory", folder, "--configfile", REPOSITORY / "experiments" / "complete.yaml"]
    command += ["--cores", str(cores), "--config", f"simulation={json.dumps({'spread': spread})}", "--", *names]
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(command, check=True)
    return [folder / name for name in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spreads", type=float, nargs="+", default=[0, 0.025, 0.05, 0.1], help="[m]")
    parser.add_argument("--directory", type=Path, default=Path("runs/spread"))
    parser.add_argument("--tasks", type=int, nargs="+", default=[0, 1], help="the configuration's evaluation.tasks")
    parser.add_argument("--cores", type=int, default=2)
    args = parser.parse_args()
    rows, settings = [], load_experiment(default_config()).decision
    for spread in args.spreads:
        paths = evaluate(spread, args.directory / f"{spread:g}", args.tasks, args.cores)
        evaluations = [read_evaluation(path) for path in paths]
        check_comparable(evaluations, "E0")
        table = episode_table(evaluations)
        counts = {option: table.filter(option=option)["success"] for option in OPTIONS}
        pairs = [pair_outcomes(table, option, "E0", args.tasks) for option in OPTIONS[1:]]
        worse = [
            weigh(differences(paired, "success"), settings.margin, settings.confidence, "fixed") for paired in pairs
        ]
        rows.append(
            [
                f"{spread:g}",
                *(f"{c.sum()}/{len(c)}" for c in counts.values()),
                *(f"{evidence.p_worse:.1g}" for evidence in worse),
            ]
        )
    print("spread [m]      E0      S0  E0-blind  p(S0 worse)  p(E0-blind worse)")
    for row in rows:
        print(f"{row[0]:>10}  {row[1]:>6}  {row[2]:>6}  {row[3]:>8}  {row[4]:>11}  {row[5]:>17}")


if __name__ == "__main__":
    main()
