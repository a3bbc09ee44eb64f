"""Say in plain words what would run, and because of which key, source or file.

    python scripts/tools/why.py
    python scripts/tools/why.py results/ckpt_E2/manifest.json --configfile experiments/smoke.yaml --directory runs/wide

Reads the experiment and Snakemake's memory of the last run; writes to the standard output and changes nothing.
"""

import argparse
from pathlib import Path

from world_modality.program import run
from world_modality.report.rebuild import explain, hidden_jobs, plan

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("targets", nargs="*", default=["all"], help="files or rules to plan for (all)")
parser.add_argument("--configfile", type=Path, nargs="*", default=[], help="overlays of config.yaml, in order")
parser.add_argument("--directory", type=Path, default=Path(), help="folder of the experiment (this one)")


def main() -> None:
    arguments = parser.parse_args()
    planned = plan(arguments.targets, arguments.directory, arguments.configfile)
    print(explain(planned, hidden_jobs(planned, arguments.directory, arguments.configfile)), end="")


if __name__ == "__main__":
    run(main)
