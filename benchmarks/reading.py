"""What ways there are to read the frames of a dataset, and what each takes: seconds, memory, and bytes left on disk.

Demonstrations of noise (PNG in Parquet, two cameras) are opened, read once from the first frame to the last, and read
in random order as a training does that keeps no frames in memory. All ways must give the same pixels. Each measurement
is a process of its own with its own `HF_HOME`; "again" is a second process with the same one. Prints a table.

    python -m benchmarks.reading --size 256 --frames 1500 --random 640
"""

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks import memory

CAMERAS = ("observation.images.image", "observation.images.image2")
EPISODE = 150  # frames in an episode, about as many as LIBERO's have
Reader = tuple[Callable[[], Iterator[np.ndarray]], Callable[[int], Iterator[np.ndarray]]]


def project(folder: Path) -> Reader:
    """Ours: all frames, and the frames of one row; each frame is (3, H, W) uint8."""
    from world_modality.data.dataset import CameraFrames, load_dataset

    dataset = load_dataset(folder)
    cameras = [CameraFrames(dataset, key) for key in CAMERAS]
    return (
        lambda: (frame.numpy() for camera in cameras for episode in camera.episodes() for frame in episode),
        lambda row: (camera.frames([row])[0].numpy() for camera in cameras),
    )


def parquet(folder: Path) -> Reader:
    """pyarrow alone, one row group of one camera at a time; for a random frame, the whole row group that holds it."""
    import pyarrow.parquet as pq
    from PIL import Image

    files = [pq.ParquetFile(path, memory_map=True) for path in sorted((folder / "data").glob("*/*.parquet"))]
    groups = [(file, group) for file in files for group in range(file.num_row_groups)]
    starts = np.cumsum([0, *(file.metadata.row_group(group).num_rows for file, group in groups)])

    def read(place: int, key: str):
        file, group = groups[place]
        return file.read_row_group(group, columns=[f"{key}.bytes"])[key].combine_chunks().field("bytes")

    def decode(stored) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(stored.as_buffer())).convert("RGB")).transpose(2, 0, 1)

    def frames(row: int) -> Iterator[np.ndarray]:
        place = int(np.searchsorted(starts, row, side="right")) - 1
        return (decode(read(place, key)[row - int(starts[place])]) for key in CAMERAS)

    return (
        lambda: (decode(stored) for key in CAMERAS for place in range(len(groups)) for stored in read(place, key)),
        frames,
    )


def stock(folder: Path) -> Reader:
    """LeRobot's own samples, which decode the images of both cameras."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset("local/noise", root=folder)

    def frames(row: int) -> Iterator[np.ndarray]:
        sample = dataset[row]
        return ((sample[key] * 255).round().byte().numpy() for key in CAMERAS)

    return lambda: (frame for row in range(len(dataset)) for frame in frames(row)), frames


WAYS = {"ours": project, "pyarrow": parquet, "LeRobotDataset": stock}


def measure(way: str, folder: Path, frames: int, random: int) -> dict:
    """Seconds of each part, peak memory [MiB], and a hash of the pixels that were read at random."""
    import lerobot.datasets.lerobot_dataset
    import torch  # noqa: F401, so that no way pays for it

    began = time.perf_counter()
    everything, frames_of = WAYS[way](folder)
    opened = time.perf_counter()
    total = sum(int(frame.sum()) for frame in everything())
    read = time.perf_counter()
    digest = hashlib.sha256(str(total).encode())
    for row in np.random.default_rng(0).integers(0, frames, random).tolist():
        for frame in frames_of(row):
            digest.update(np.ascontiguousarray(frame))
    ended = time.perf_counter()
    seconds = {"open": opened - began, "in order": read - opened, "at random": ended - read}
    return seconds | {"peak": memory.peak_mb(), "pixels": digest.hexdigest()}


def in_a_process(way: str, folder: Path, home: Path, args: argparse.Namespace) -> dict:
    command = [sys.executable, "-m", "benchmarks.reading", "--measure", way, str(folder)]
    command += ["--frames", str(args.frames), "--random", str(args.random)]
    environment = os.environ | {"HF_HOME": str(home)}
    ended = subprocess.run(
        command, cwd=memory.REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    left = sum(path.stat().st_size for path in home.rglob("*") if path.is_file())
    return json.loads(ended.stdout.splitlines()[-1]) | {"left": left / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="side of the images [px]")
    parser.add_argument("--frames", type=int, default=3000, help=f"frames, a multiple of {EPISODE}")
    parser.add_argument("--random", type=int, default=1280, help="rows to read in random order")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure[0], Path(args.measure[1]), args.frames, args.random)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "noise"
        memory.write_noise(folder, args.frames, args.size, EPISODE)
        found = {}
        for way in WAYS:
            for time_of_it in ("", ", again"):
                found[way + time_of_it] = in_a_process(way, folder, Path(name) / way, args)
        size = sum(path.stat().st_size for path in (folder / "data").rglob("*.parquet")) / 2**20
    if len({measured["pixels"] for measured in found.values()}) > 1:
        sys.exit("error: the pixels differ")
    print(f"{args.frames} frames of two cameras, {args.size} px, {size:.0f} MiB of Parquet; the pixels are equal")
    columns = ("open [s]", "in order [s]", "at random [s]", "peak [MiB]", "left on disk [MiB]")
    print(f"{'':24}" + "".join(f"{column:>20}" for column in columns))
    for way, measured in found.items():
        seconds = "".join(f"{measured[part]:20.2f}" for part in ("open", "in order", "at random"))
        print(f"{way:24}{seconds}{measured['peak']:20.0f}{measured['left']:20.1f}")


if __name__ == "__main__":
    main()
