"""Write to `experiments/costs.yaml` what the stages of the plan cost in a run, under the scale of that run.

    python scripts/tools/write_costs.py --on "one H100"

Reads the times of a run's jobs from Snakemake's benchmark files (`benchmarks/out/`), and which jobs there are from its
merged config (`results/run_config.yaml`). The costs of other scales stay as they are. A person has to read and commit
the file, so no measurement decides anything by itself.
"""

import argparse
from pathlib import Path

from world_modality.artifacts.files import read_run_config, read_text, write_text
from world_modality.experiment import paths
from world_modality.experiment.config import COSTS, default_config, load_experiment
from world_modality.experiment.costs import measure, measured_episodes, scale_text, with_costs
from world_modality.program import existing, run

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--directory", type=existing, default=Path(), help="folder of the experiment (this one)")
parser.add_argument("--on", default="", help="the device it ran on, in words")
parser.add_argument("--output", type=Path, default=COSTS, help=f"file to write ({COSTS.parent.name}/{COSTS.name})")


def main() -> None:
    arguments = parser.parse_args()
    experiment = load_experiment(read_run_config(arguments.directory / paths.RUN_CONFIG))
    measured = measure(experiment, arguments.directory)
    before = load_experiment(default_config()).costs.get(experiment.scale)
    episodes = measured_episodes(experiment, arguments.directory)
    costs = scale_text(measured, episodes, experiment.scale, before, arguments.on)
    write_text(arguments.output, with_costs(read_text(COSTS), experiment.scale, costs))


if __name__ == "__main__":
    run(main)
