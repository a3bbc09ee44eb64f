"""Judge success counts from elsewhere, such as a paper: which branch the tree would take, and what they are worth.

    python scripts/tools/judge_counts.py docs/published_counts.yaml

Reads counts by task (YAML or JSON) and the thresholds of `config.yaml`; prints the text. Published counts do not say
which episodes started from the same state, so they are judged unpaired.
"""

import argparse

from world_modality.decision.published import judge, read_counts, render
from world_modality.experiment.config import default_config, load_experiment
from world_modality.program import existing, run

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("counts", type=existing, help="counts by task (YAML), as in docs/published_counts.yaml")


def main() -> None:
    arguments = parser.parse_args()
    print(render(judge(read_counts(arguments.counts), load_experiment(default_config()).decision)), end="")


if __name__ == "__main__":
    run(main)
