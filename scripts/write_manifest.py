"""Join an option's checkpoints into its manifest.

Reads the checkpoint folders of every seed; writes `results/ckpt_<option>/manifest.json`. Ask for it to train an option.
"""

import argparse
from pathlib import Path

from world_modality.artifacts.provenance import making
from world_modality.program import existing, run
from world_modality.training.manifest import write_manifest

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--option", required=True)
parser.add_argument("--checkpoints", type=existing, nargs="+", required=True, help="one folder per seed")
parser.add_argument("--output", type=Path, required=True)


def main() -> None:
    arguments = parser.parse_args()
    spec = {"option": arguments.option}
    with making(arguments.output, __file__, {"checkpoints": arguments.checkpoints}, spec) as manifest:
        write_manifest(arguments.option, arguments.checkpoints, manifest)


if __name__ == "__main__":
    run(main)
