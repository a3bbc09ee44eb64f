"""Build the small SmolVLM that SmolVLA is built on at embedded scale.

Reads nothing; writes a folder (config, tokenizer, processor) for SmolVLA's `vlm_model_name`. Every checkpoint trained
on it stores its path, so it is an artifact with a fixed path.
"""

import argparse
from pathlib import Path

from world_modality.artifacts.provenance import making
from world_modality.experiment.sections import Vlm
from world_modality.experiment.specs import spec_argument
from world_modality.latents.backbones import build_small_vlm
from world_modality.program import run

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--spec", required=True, type=spec_argument(Vlm), help="the config's vlm (JSON)")
parser.add_argument("--output", required=True, type=Path, help="folder to write")


def main() -> None:
    arguments = parser.parse_args()
    with making(arguments.output, __file__, {}, arguments.spec) as folder:
        build_small_vlm(arguments.spec, folder)


if __name__ == "__main__":
    run(main)
