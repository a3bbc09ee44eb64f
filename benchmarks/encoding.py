"""How long it takes to encode a camera of a dataset into latents: ours, window by window, and the encoder alone.

    python -m benchmarks.encoding --frames 300 --rounds 3
    python -m benchmarks.encoding --device cuda --size vitg --precision bf16 --workers 7 --frames 4000 --ways ours alone
    python -m benchmarks.encoding --dataset results/dataset --encoder results/encoder

`--size vitg` is a V-JEPA 2 of the sizes of the published ViT-g with random weights, 3.8 GB of them, which takes as long
as the published one. The last lines say how long each way would take for all windows of one camera of
HuggingFaceVLA/libero.

The ways take turns on the same demonstrations (of noise, or those given) with the same V-JEPA 2:

    ours              `encode_dataset`, which writes the latent table: each frame decoded once, windows in batches
    single            the earlier study's way: each window decodes its frames and is encoded by itself, and
                      `VJEPA2Model.forward` also runs the predictor, whose output no one uses
    batched           the same, but windows are encoded as many at once as ours are
    alone             the encoder on windows that are in memory, as many at once as ours: the limit of any way

The latents of all ways are compared first. In a batch of another size they are summed in another order, so in float16,
as the table holds them, they may be a few units in the last place apart. Hashing the weights, which a job does once,
is not counted, nor is the first batch.
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
from transformers import VJEPA2Config, VJEPA2Model

from benchmarks.memory import EPISODE, experiment, write_noise
from world_modality.data.dataset import CameraFrames, episode_bounds, load_dataset
from world_modality.data.stored import StoredDataset
from world_modality.latents.backbones import build_small_encoder
from world_modality.latents.encoder import PRECISIONS, VideoEncoder, check_device, encode_dataset
from world_modality.latents.table import LatentTable, past_rows

# How far a latent may be from ours, relative to its norm: a few units of the last place of what is rounded to.
TOLERANCE = {"fp32": 2**-8, "bf16": 0.01}
OURS, SINGLE, BATCHED, ALONE = WAYS = ("ours", "single", "batched", "alone")
LIBERO_WINDOWS, GOAL_MINUTES = 273_465, 10  # of one camera of HuggingFaceVLA/libero; for ViT-g on one H100
VITG = {"hidden_size": 1408, "num_hidden_layers": 40, "num_attention_heads": 22, "mlp_ratio": 48 / 11}
UNUSED = {"pred_hidden_size": 64, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 1, "num_pooler_layers": 1}


def window_rows(dataset: StoredDataset, window: int) -> Iterator[list[int]]:
    """The rows of each frame's window."""
    for start, end in episode_bounds(dataset):
        yield from past_rows(torch.arange(start, end), start, window).tolist()


def windows(dataset: StoredDataset, key: str, window: int) -> Iterator[torch.Tensor]:
    """Each frame's window (m, 3, H, W)."""
    for frames in CameraFrames(dataset, key).episodes():
        for rows in past_rows(torch.arange(len(frames)), 0, window):
            yield frames[rows]


@torch.no_grad()
def with_predictor(encoder: VideoEncoder, windows: torch.Tensor) -> torch.Tensor:
    """Latents (N, D) of windows (N, m, 3, H, W), from a forward pass that also runs the predictor."""
    frames = windows.to(encoder.model.device).flatten(0, 1)
    pixels = encoder.preprocess(frames).unflatten(0, windows.shape[:2])
    with torch.autocast(encoder.model.device.type, torch.bfloat16, enabled=encoder.precision == "bf16"):
        tokens = encoder.model(pixels).last_hidden_state
    return tokens.float().mean(1)


def window_by_window(dataset, key: str, encoder: VideoEncoder, window: int, batch_size: int) -> np.ndarray:
    frames, latents = CameraFrames(dataset, key), []
    for rows in itertools.batched(window_rows(dataset, window), batch_size):
        windows = torch.stack([frames.frames(one) for one in rows])
        latents.append(with_predictor(encoder, windows).cpu())
    return torch.cat(latents).half().numpy()


def alone(encoder: VideoEncoder, batches: list[torch.Tensor]) -> np.ndarray:
    return torch.cat([encoder.encode(windows) for windows in batches]).cpu().half().numpy()


def ours(dataset, key: str, encoder: VideoEncoder, window: int, batch_size: int, table: Path, workers: int) -> Path:
    encode_dataset(dataset, key, encoder, window, batch_size, table, workers=workers)
    return table  # it is read for the comparison, not in the time that encoding takes


def timed(encode: Callable[[], np.ndarray | Path]) -> tuple[np.ndarray | Path, float]:
    began = time.perf_counter()
    latents = encode()
    return latents, time.perf_counter() - began


def vitg(image_size: int, device: str, precision: str) -> VideoEncoder:
    """A V-JEPA 2 of ViT-g's sizes (patches of 16 px, tubelets of 2 frames) with weights drawn from a seed."""
    torch.manual_seed(0)
    model = VJEPA2Model(VJEPA2Config(crop_size=image_size, patch_size=16, tubelet_size=2, **VITG, **UNUSED))
    return VideoEncoder(model.eval().requires_grad_(False).to(device), "vitg", None, precision)


def load_encoder(args: argparse.Namespace, folder: Path) -> VideoEncoder:
    if args.size == "vitg":
        return vitg(args.image_size, args.device, args.precision)
    if not args.encoder:
        sizes = experiment().encoder_spec().model_copy(update={"image_size": args.image_size})
        build_small_encoder(sizes, folder / "encoder")
    return VideoEncoder.load(args.encoder or folder / "encoder", device=args.device, precision=args.precision)


def check_equal(found: dict[str, np.ndarray], tolerance: float) -> None:
    """Refuse to compare the times of ways whose latents differ."""
    reference = found[OURS].astype(np.float32)
    for name, latents in found.items():
        apart = np.linalg.norm(latents - reference, axis=1) / np.linalg.norm(reference, axis=1)
        print(f"{name}: {len(latents)} latents, relative difference from ours at most {apart.max():.1e}")
        if len(latents) != len(reference) or apart.max() > tolerance:
            raise SystemExit(f"{name}: its latents are not ours (tolerance {tolerance:.1e})")


def report(encoder: VideoEncoder, windows: int, seconds: dict[str, float]) -> None:
    weights = sum(weight.numel() for weight in encoder.model.encoder.parameters())
    device, side = encoder.model.device, encoder.image_size
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device
    print(f"{name}, {encoder.precision}, {windows} windows at {side} px, {weights / 1e6:.0f} M weights")
    if device.type == "cuda":
        print(f"at most {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB of the GPU's memory")
    print(f"{'way':10}{'seconds':>9}{'windows/s':>11}{'to ours':>9}")
    for way, taken in seconds.items():
        print(f"{way:10}{taken:9.2f}{windows / taken:11.2f}{taken / seconds[OURS]:9.2f}")
    goal = f" (goal on an H100: {GOAL_MINUTES} min)" if encoder.name == "vitg" else ""
    for way, taken in seconds.items():
        print(f"{way}: {LIBERO_WINDOWS:,} windows in {LIBERO_WINDOWS * taken / windows / 60:.1f} min{goal}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="fp32", choices=PRECISIONS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=300, help="frames of noise")
    parser.add_argument("--image_size", type=int, help="side of images of noise and what the encoder sees [px]")
    parser.add_argument("--batch_size", type=int, help="windows encoded at once (latents.batch_size)")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode for `ours`")
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS, help="besides `ours`, which always runs")
    parser.add_argument("--dataset", type=Path, help="demonstrations to encode instead of noise")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--encoder", help="V-JEPA 2: hub id or folder (the default experiment's small one)")
    weights.add_argument("--size", choices=["small", "vitg"], default="small", help="of random weights")
    args = parser.parse_args()
    args.image_size = args.image_size or (256 if args.size == "vitg" else 64)
    check_device(args.device)
    logging.disable(logging.WARNING)
    spec = experiment()
    key, window, batch = spec.image_keys["front"], spec.world.window, args.batch_size or spec.latents.batch_size
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not args.dataset:
            write_noise(folder / "noise", args.frames, args.image_size, min(EPISODE, args.frames))
        dataset = load_dataset(args.dataset or folder / "noise")
        encoder = load_encoder(args, folder)
        identity = encoder.identity()
        encoder.identity = lambda: identity
        batches = itertools.batched(windows(dataset, key, window), batch)
        in_memory = [torch.stack(some).to(args.device) for some in batches]
        alone(encoder, in_memory[:1])  # the first batch takes longer than any other
        about = (dataset, key, encoder, window)
        ways: dict[str, Callable] = {
            OURS: lambda: ours(*about, batch, folder / "latents.parquet", args.workers),
            SINGLE: lambda: window_by_window(*about, 1),
            BATCHED: lambda: window_by_window(*about, batch),
            ALONE: lambda: alone(encoder, in_memory),
        }
        ways = {way: encode for way, encode in ways.items() if way in (OURS, *args.ways)}
        rounds = [{way: timed(encode) for way, encode in ways.items()} for _ in range(args.rounds)]
        found = {way: latents for way, (latents, _) in rounds[0].items()}
        latents = LatentTable.open(found[OURS]).latents.numpy()
        check_equal(found | {OURS: latents}, TOLERANCE[args.precision])
    report(encoder, len(latents), {way: float(np.median([one[way][1] for one in rounds])) for way in ways})


if __name__ == "__main__":
    main()
