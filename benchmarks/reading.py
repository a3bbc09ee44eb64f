"""What ways there are to read the frames of a dataset, and what each takes: time, memory, room on disk.

Demonstrations of noise (PNG in Parquet, two cameras) are opened, read once from the first frame to the last, and read
in random order as a training does that keeps no frames in memory. All ways must give the same pixels. Each measurement
is a process of its own with its own `HF_HOME`; "again" is a second process with the same one. Prints a table. Times are
CPU times, so that other work on the machine does not count.

With `--repeat`, the demonstrations are only opened and checked, with their episodes repeated that often.

    python -m benchmarks.reading --size 256 --frames 450 --random 160
    python -m benchmarks.reading --size 16 --frames 2250 --repeat 122
"""

import argparse
import functools
import hashlib
import importlib
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


def ours(folder: Path, copy: bool = False) -> Reader:
    """All frames, and the frames of one row, each (3, H, W) uint8."""
    from world_modality.data.dataset import CameraFrames, load_dataset

    dataset = load_dataset(folder)
    if copy:
        dataset.copy_for_random_order()
    cameras = [CameraFrames(dataset, key) for key in CAMERAS]
    return (
        lambda: (frame.numpy() for camera in cameras for episode in camera.episodes() for frame in episode),
        lambda row: (camera.frames([row])[0].numpy() for camera in cameras),
    )


def one_column(folder: Path) -> Reader:
    """The Arrow copy that `datasets` makes, one camera at a time."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset("local/noise", root=folder).hf_dataset
    columns = [(key, dataset.select_columns([key]).with_format(None)) for key in CAMERAS]

    def frame(key, column, row: int) -> np.ndarray:
        return np.asarray(column[row][key].convert("RGB")).transpose(2, 0, 1)

    return (
        lambda: (frame(*column, row) for column in columns for row in range(len(dataset))),
        lambda row: (frame(*column, row) for column in columns),
    )


def stock(folder: Path) -> Reader:
    """LeRobot's own samples, which decode the images of both cameras."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset("local/noise", root=folder)

    def frames(row: int) -> Iterator[np.ndarray]:
        sample = dataset[row]
        return ((sample[key] * 255).round().byte().numpy() for key in CAMERAS)

    return lambda: (frame for row in range(len(dataset)) for frame in frames(row)), frames


def opened(folder: Path) -> Reader:
    from world_modality.data.dataset import load_dataset

    load_dataset(folder)
    return lambda: iter(()), lambda row: iter(())


WAYS = {
    "pyarrow": ours,
    "pyarrow, with a copy": functools.partial(ours, copy=True),
    "datasets, a column": one_column,
    "LeRobotDataset": stock,
    "opened": opened,
}


def repeat_episodes(folder: Path, times: int) -> None:
    """Repeat the episodes of a dataset of one data file, which becomes `times` files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    data, episodes = (next((folder / name).rglob("*.parquet")) for name in ("data", "meta/episodes"))
    frames, table = pq.read_table(data), pq.read_table(episodes)

    def shifted(table: pa.Table, steps: dict[str, int], again: int) -> pa.Table:
        for name, step in steps.items():
            values = pa.array(table[name].to_numpy() + again * step)
            table = table.set_column(table.schema.get_field_index(name), name, values)
        return table

    rows, count = len(frames), len(table)
    places = {"episode_index": count, "dataset_from_index": rows, "dataset_to_index": rows, "data/file_index": 1}
    for again in range(times):
        part = shifted(frames, {"index": rows, "episode_index": count}, again)
        pq.write_table(part, data.with_name(f"file-{again:03d}.parquet"), row_group_size=EPISODE)
    pq.write_table(pa.concat_tables([shifted(table, places, again) for again in range(times)]), episodes)
    info = folder / "meta/info.json"
    content = json.loads(info.read_text())
    info.write_text(json.dumps(content | {"total_episodes": count * times, "total_frames": rows * times}))


def measure(way: str, folder: Path, frames: int, random: int) -> dict:
    """CPU time of each part [s], peak memory [MiB], and a hash of the pixels that were read at random."""
    import torch  # noqa: F401, so that no way pays for it

    for library in ("lerobot.datasets.lerobot_dataset", "world_modality.data.dataset"):
        importlib.import_module(library)  # which takes longer than opening
    began = time.process_time()
    everything, frames_of = WAYS[way](folder)
    opened = time.process_time()
    total = sum(int(frame.sum()) for frame in everything())
    read = time.process_time()
    digest = hashlib.sha256(str(total).encode())
    for row in np.random.default_rng(0).integers(0, frames, random).tolist():
        for frame in frames_of(row):
            digest.update(np.ascontiguousarray(frame))
    ended = time.process_time()
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
    parser.add_argument("--repeat", type=int, default=0, help="how often to repeat the episodes")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure[0], Path(args.measure[1]), args.frames, args.random)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "noise"
        memory.write_noise(folder, args.frames, args.size, EPISODE)
        if args.repeat:
            repeat_episodes(folder, args.repeat)
        found = {}
        for way in ["opened"] if args.repeat else list(WAYS)[:-1]:
            for when in ("", ", again"):
                found[way + when] = in_a_process(way, folder, Path(name) / way, args)
        size = sum(path.stat().st_size for path in (folder / "data").rglob("*.parquet")) / 2**20
    if len({measured["pixels"] for measured in found.values()}) > 1:
        sys.exit("error: the pixels differ")
    count = args.frames * max(1, args.repeat)
    print(f"{count} frames of two cameras, {args.size} px, {size:.0f} MiB of Parquet")
    columns = ("open [s]", "in order [s]", "at random [s]", "peak [MiB]", "left on disk [MiB]")
    print(f"{'':28}" + "".join(f"{column:>20}" for column in columns))
    for way, measured in found.items():
        seconds = "".join(f"{measured[part]:20.2f}" for part in ("open", "in order", "at random"))
        print(f"{way:28}{seconds}{measured['peak']:20.0f}{measured['left']:20.1f}")


if __name__ == "__main__":
    main()
