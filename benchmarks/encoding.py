"""How long it takes to encode a camera of a dataset into latents: ours, window by window, and the encoder alone.

    python -m benchmarks.encoding --frames 300 --rounds 3
    python -m benchmarks.encoding --device cuda --image_size 256 --frames 1000
    python -m benchmarks.encoding --dataset results/dataset --encoder results/encoder

The ways take turns on the same demonstrations (of noise, or those given) with the same V-JEPA 2:

    ours              `encode_dataset`, which writes the latent table: each frame decoded once, windows in batches
    window by window  the earlier study's way: each window decodes its frames and is encoded by itself, and
                      `VJEPA2Model.forward` also runs the predictor, whose output no one uses
    the same, batched the same, but windows are encoded as many at once as ours are
    encoder alone     the encoder on windows that are in memory, as many at once as ours: the limit of any way

The latents of all ways are compared first. In a batch of another size they are summed in another order, so in float16,
as the table holds them, they may be a few units in the last place apart.
"""

import argparse
import itertools
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from benchmarks.memory import experiment, write_noise
from world_modality.data.dataset import CameraFrames, episode_bounds, load_dataset
from world_modality.latents.backbones import build_small_encoder
from world_modality.latents.encoder import VideoEncoder, encode_dataset
from world_modality.latents.table import LatentTable, past_rows

TOLERANCE = 2**-8  # how far a latent may be from ours, relative to its norm: a few units of float16's last place
OURS, ALONE = "ours", "encoder alone"


def window_rows(dataset: LeRobotDataset, window: int) -> Iterator[list[int]]:
    """The rows of each frame's window."""
    for start, end in episode_bounds(dataset):
        yield from past_rows(torch.arange(start, end), start, window).tolist()


@torch.no_grad()
def with_predictor(encoder: VideoEncoder, windows: torch.Tensor) -> torch.Tensor:
    """Latents (N, D) of windows (N, m, 3, H, W), from a forward pass that also runs the predictor."""
    frames = windows.to(encoder.model.device).flatten(0, 1)
    pixels = encoder.preprocess(frames).unflatten(0, windows.shape[:2])
    return encoder.model(pixels).last_hidden_state.float().mean(1)


def window_by_window(dataset, key: str, encoder: VideoEncoder, window: int, batch_size: int) -> np.ndarray:
    frames, latents = CameraFrames(dataset, key), []
    for rows in itertools.batched(window_rows(dataset, window), batch_size):
        windows = torch.stack([frames.frames(one) for one in rows])
        latents.append(with_predictor(encoder, windows).cpu())
    return torch.cat(latents).half().numpy()


def alone(encoder: VideoEncoder, batches: list[torch.Tensor]) -> np.ndarray:
    return torch.cat([encoder.encode(windows).cpu() for windows in batches]).half().numpy()


def ours(dataset, key: str, encoder: VideoEncoder, window: int, batch_size: int, table: Path) -> Path:
    encode_dataset(dataset, key, encoder, window, batch_size, table)
    return table  # it is read for the comparison, not in the time that encoding takes


def timed(encode: Callable[[], np.ndarray | Path]) -> tuple[np.ndarray | Path, float]:
    began = time.perf_counter()
    latents = encode()
    return latents, time.perf_counter() - began


def check_equal(found: dict[str, np.ndarray]) -> None:
    """Refuse to compare the times of ways whose latents differ."""
    reference = found[OURS].astype(np.float32)
    for name, latents in found.items():
        apart = np.linalg.norm(latents - reference, axis=1) / np.linalg.norm(reference, axis=1)
        print(f"{name}: {len(latents)} latents, relative difference from ours at most {apart.max():.1e}")
        if len(latents) != len(reference) or apart.max() > TOLERANCE:
            raise SystemExit(f"{name}: its latents are not ours (tolerance {TOLERANCE:.1e})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=300, help="frames of noise")
    parser.add_argument("--image_size", type=int, default=64, help="side of the images of noise [px]")
    parser.add_argument("--dataset", type=Path, help="demonstrations to encode instead of noise")
    parser.add_argument("--encoder", help="V-JEPA 2: hub id or folder (the default experiment's small one)")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    spec, size = experiment(), args.image_size
    key, window, batch = spec.image_keys["front"], spec.world.window, spec.latents.batch_size
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not args.dataset:
            write_noise(folder / "noise", args.frames, size)
        if not args.encoder:
            build_small_encoder(spec.encoder_spec().model_copy(update={"image_size": size}), folder / "encoder")
        dataset = load_dataset(args.dataset or folder / "noise")
        encoder = VideoEncoder.load(args.encoder or folder / "encoder", device=args.device)
        frames = CameraFrames(dataset, key)
        windows = (frames.frames(rows) for rows in window_rows(dataset, window))
        in_memory = [torch.stack(some).to(args.device) for some in itertools.batched(windows, batch)]
        alone(encoder, in_memory[:1])  # the first batch takes longer than any other
        about = (dataset, key, encoder, window)
        ways: dict[str, Callable] = {
            OURS: lambda: ours(*about, batch, folder / "latents.parquet"),
            "window by window": lambda: window_by_window(*about, 1),
            "the same, batched": lambda: window_by_window(*about, batch),
            ALONE: lambda: alone(encoder, in_memory),
        }
        rounds = [{way: timed(encode) for way, encode in ways.items()} for _ in range(args.rounds)]
        found = {way: latents for way, (latents, _) in rounds[0].items()}
        check_equal(found | {OURS: LatentTable.open(found[OURS]).latents.numpy()})
    seconds = {way: np.median([one[way][1] for one in rounds]) for way in ways}
    print(f"{args.device}, {len(dataset)} frames, {encoder.image_size} px, latents of {encoder.dim}")
    print(f"{'way':18}{'seconds':>9}{'frames/s':>10}{'to ours':>9}")
    for way, taken in seconds.items():
        print(f"{way:18}{taken:9.2f}{len(dataset) / taken:10.0f}{taken / seconds[OURS]:9.2f}")


if __name__ == "__main__":
    main()
