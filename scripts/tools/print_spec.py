"""Print the spec that a rule hands to its program, for running the program by hand.

Reads the merged config; writes JSON to the standard output:

    python -m world_modality.train_llm_vla --spec "$(python scripts/tools/print_spec.py train E2)" ...
"""

import argparse

import yaml
from snakemake.utils import update_config

from world_modality.experiment.config import Experiment, default_config, load_experiment
from world_modality.program import existing, run

SPECS = {
    "record": lambda experiment, _: experiment.record_spec(),
    "train": Experiment.train_spec,
    "rollout": Experiment.rollout_spec,
    "evaluation": Experiment.evaluation_spec,
    "judge": lambda experiment, _: experiment.judge_spec(),
    "decision": lambda experiment, _: experiment.decision_spec(),
}

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("stage", choices=SPECS)
parser.add_argument(
    "option", nargs="?", default="(none given)", help="an option of the table, if the stage runs once per option"
)
parser.add_argument("--configfile", type=existing, nargs="*", default=[], help="overlays of config.yaml, in order")


def main() -> None:
    arguments = parser.parse_args()
    config = default_config()
    for overlay in arguments.configfile:
        update_config(config, yaml.safe_load(overlay.read_text()))
    print(SPECS[arguments.stage](load_experiment(config), arguments.option).model_dump_json())


if __name__ == "__main__":
    run(main)
