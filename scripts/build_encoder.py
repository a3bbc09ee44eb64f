"""Build the small V-JEPA 2 that stands in for a published one at embedded scale.

Reads nothing. Writes a folder that `VJEPA2Model.from_pretrained` loads. A program of its own so that every policy and
every latent table of an experiment shares one encoder, known by its hash.
"""

import argparse
from pathlib import Path

from world_modality.backbones import build_small_encoder
from world_modality.config import Encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", required=True, type=Encoder.model_validate_json, help="the config's encoder, as JSON")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    args = parser.parse_args()
    build_small_encoder(args.spec, args.output)


if __name__ == "__main__":
    main()
