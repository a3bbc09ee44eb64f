"""Build a small V-JEPA 2 from the spec's sizes and seed.

Reads nothing; writes a folder that `VJEPA2Model.from_pretrained` loads. It is a separate program so that all policies
and latent tables of an experiment share one encoder, identified by its hash.
"""

import argparse
from pathlib import Path

from world_modality.artifacts.provenance import making
from world_modality.experiment.sections import EncoderWeights
from world_modality.experiment.specs import spec_argument
from world_modality.latents.backbones import build_small_encoder
from world_modality.program import run

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--spec", required=True, type=spec_argument(EncoderWeights), help="the config's encoder (JSON)")
parser.add_argument("--output", required=True, type=Path, help="folder to write")


def main() -> None:
    arguments = parser.parse_args()
    with making(arguments.output, __file__, {}, arguments.spec) as folder:
        build_small_encoder(arguments.spec, folder)


if __name__ == "__main__":
    run(main)
