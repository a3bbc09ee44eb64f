"""Encode one camera of a dataset into world latents: one V-JEPA 2 latent per frame.

    python scripts/precompute_world_latents.py --dataset HuggingFaceVLA/libero \
        --image_key observation.images.image2 --output latents.parquet

Reads a LeRobotDataset (hub id or folder) and a V-JEPA 2 (hub id or folder); writes the Parquet table that training
looks latents up in. Encoding is what a world modality costs most, so it is done once, ahead of every training.
"""

import argparse
from pathlib import Path

from world_modality.demonstrations import dataset_fingerprint, load_dataset
from world_modality.encoder import VideoEncoder, check_image_key, encode_dataset

PUBLISHED_ENCODER = "facebook/vjepa2-vitg-fpc64-256"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="LeRobotDataset: hub id or folder")
    parser.add_argument("--revision", help="commit or tag of the dataset (hub id)")
    parser.add_argument("--image_key", required=True, help="camera to encode, e.g. observation.images.image2")
    parser.add_argument("--output", required=True, type=Path, help="Parquet file to write")
    parser.add_argument("--temporal_window", type=int, default=4, help="frames in one window, its own the last (4)")
    parser.add_argument("--encoder", default=PUBLISHED_ENCODER, help=f"hub id or folder ({PUBLISHED_ENCODER})")
    parser.add_argument("--encoder_revision", help="commit or tag of the encoder (hub id)")
    parser.add_argument("--image_size", type=int, help="side the frames are resized to [px] (the encoder's own)")
    parser.add_argument("--batch_size", type=int, default=64, help="windows encoded at once (64)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    dataset = load_dataset(args.dataset, revision=args.revision)
    check_image_key(dataset, args.image_key)  # before the encoder loads, which takes long
    encoder = VideoEncoder.load(args.encoder, args.encoder_revision, args.device, args.image_size)
    source = {
        "dataset": Path(args.dataset).name if Path(args.dataset).is_dir() else args.dataset,
        "dataset_revision": args.revision,
        "dataset_fingerprint": dataset_fingerprint(dataset),
    }
    encode_dataset(dataset, args.image_key, encoder, args.temporal_window, args.batch_size, args.output, source)


if __name__ == "__main__":
    main()
