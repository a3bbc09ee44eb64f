"""Encode one camera of a dataset into world latents: one V-JEPA 2 latent per frame.

    python scripts/precompute_world_latents.py --dataset HuggingFaceVLA/libero \
        --image_key observation.images.image2 --output latents.parquet

Reads a LeRobotDataset (hub id or folder) and a V-JEPA 2 (hub id or folder); writes the Parquet table in which
training looks up latents. Encoding is the costliest part of a world modality, so it is done once, before any training.
"""

import argparse
from pathlib import Path

from world_modality.artifacts.provenance import making
from world_modality.data.dataset import check_image_key, load_dataset
from world_modality.latents.encoder import PRECISIONS, VideoEncoder, encode_dataset
from world_modality.program import run, whole_number

PUBLISHED_ENCODER = "facebook/vjepa2-vitg-fpc64-256"

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--dataset", required=True, help="LeRobotDataset: hub id or folder")
parser.add_argument("--revision", help="commit or tag of the dataset (hub id)")
parser.add_argument("--image_key", required=True, help="camera to encode, e.g. observation.images.image2")
parser.add_argument("--output", required=True, type=Path, help="Parquet file to write")
parser.add_argument("--temporal_window", type=whole_number(1), default=4, help="frames in one window (4)")
parser.add_argument("--encoder", default=PUBLISHED_ENCODER, help=f"V-JEPA 2: hub id or folder ({PUBLISHED_ENCODER})")
parser.add_argument("--encoder_revision", help="commit or tag of the encoder (hub id)")
parser.add_argument("--image_size", type=whole_number(1), help="side of the frames it sees [px] (the encoder's own)")
parser.add_argument("--batch_size", type=whole_number(1), default=64, help="windows encoded at once (64)")
parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to compute (cpu)")
parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of the matrix products (fp32)")

processors = "processors of the job: those after the first decode frames ahead of the encoder; changes no latent (1)"
parser.add_argument("--processors", type=whole_number(1), default=1, help=processors)


def main() -> None:
    arguments = parser.parse_args()
    inputs = {"dataset": arguments.dataset, "encoder": arguments.encoder}
    spec = {name: value for name, value in vars(arguments).items() if name not in (*inputs, "output", "processors")}
    with making(arguments.output, __file__, inputs, spec, foreign=inputs) as table:
        dataset = load_dataset(arguments.dataset, revision=arguments.revision)
        check_image_key(dataset, arguments.image_key)  # before the encoder loads, which takes long
        encoder = VideoEncoder.load(
            arguments.encoder, arguments.encoder_revision, arguments.device, arguments.image_size, arguments.precision
        )
        encode_dataset(
            dataset,
            arguments.image_key,
            encoder,
            arguments.temporal_window,
            arguments.batch_size,
            table,
            dataset_revision=arguments.revision,
            workers=arguments.processors - 1,
        )


if __name__ == "__main__":
    run(main)
