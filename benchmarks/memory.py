"""Whether a stage needs more memory the longer it runs: its peak at one length and at ten times that length.

Each measurement is a process of its own, which encodes that many frames, trains for that many updates, or rolls out
that many episodes in the simulator. Demonstrations are noise and the networks are small, so what the lengths leave
behind shows. Prints a table and draws `memory.png` into `--output`.

    python -m benchmarks.memory --frames 300 --updates 30 --episodes 3
"""

import argparse
import functools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from world_modality.experiment.config import Experiment, default_config, load_experiment
from world_modality.experiment.suites import suite_instructions

REPOSITORY = Path(__file__).resolve().parents[1]
SIZE, EPISODE = 64, 50  # side of the images [px], frames in an episode


@functools.cache
def experiment(updates: int = 2) -> Experiment:
    config = default_config()
    config["simulation"] |= {"spread": 0}
    config["demonstrations"] |= {"held_out_per_task": 0}
    config["evaluation"] |= {"horizon": 40}
    config["training"] |= {"steps": updates, "warmup_steps": 0, "cache_frames": False}
    return load_experiment(config)


def write_noise(folder: Path, frames: int, size: int = SIZE, episode: int = EPISODE) -> None:
    """Demonstrations of noise, with the features of recorded ones; `episode` is how many frames an episode has."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from world_modality.data.demonstrations import features

    kinds, draw = features(experiment().record_spec()), np.random.default_rng(0)
    for kind in kinds.values():
        kind |= {"shape": (size, size, 3)} if kind["dtype"] == "image" else {}
    dataset = LeRobotDataset.create("local/noise", 20, kinds, folder, use_videos=False)
    for number in range(frames):
        frame = {
            key: draw.integers(0, 256, kind["shape"], dtype=np.uint8)
            if kind["dtype"] == "image"
            else draw.uniform(-1, 1, kind["shape"]).astype(np.float32)
            for key, kind in kinds.items()
        }
        dataset.add_frame(frame | {"task": suite_instructions("libero_spatial")[0]})
        if number % episode == episode - 1:
            dataset.save_episode()
    dataset.finalize()


def encode(folder: Path, frames: int) -> None:
    from world_modality.data.dataset import load_dataset
    from world_modality.latents.encoder import VideoEncoder, encode_dataset

    encoder, world = VideoEncoder.load(folder / "encoder"), experiment().world
    dataset = load_dataset(folder / f"noise_{frames}")
    encode_dataset(dataset, experiment().image_keys["front"], encoder, world.window, 64, folder / f"{frames}.parquet")


def train(folder: Path, updates: int) -> None:
    from world_modality.training.loop import Running, TrainInputs
    from world_modality.training.loop import train as train_policy

    inputs = TrainInputs(folder / "noise", folder / "vlm", None, {})
    spec, running = experiment(updates).train_spec("E0"), Running(cache_frames=False)
    train_policy(spec, inputs, 0, folder / f"ckpt_{updates}", folder / "training", running)


def roll_out(folder: Path, episodes: int) -> None:
    from world_modality.evaluation.blocks import evaluate_block
    from world_modality.evaluation.init_states import init_states

    spec = experiment().rollout_spec("E0")
    states = init_states(spec.protocol.simulation, 0, [])
    outputs = (folder / f"{episodes}.jsonl", folder / f"{episodes}_attention.parquet")
    evaluate_block(folder / "ckpt", spec, 0, 0, range(episodes), states, *outputs)


STAGES = {"encode": (encode, "frames"), "train": (train, "updates"), "roll out": (roll_out, "episodes")}


def peak_mb() -> float:
    """The most memory that this process has held [MiB]."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) / 1024


def measured(folder: Path, stage: str, amount: int) -> float:
    command = [sys.executable, "-m", "benchmarks.memory", "--measure", stage, str(amount), str(folder)]
    ended = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    return float(ended.stdout.split()[-1])


def prepare(folder: Path, frames: int) -> None:
    """What the stages read: two sets of demonstrations, backbones and a checkpoint."""
    from world_modality.data.dataset import load_dataset
    from world_modality.latents.backbones import build_small_encoder, build_small_vlm

    build_small_encoder(experiment().encoder_spec(), folder / "encoder")
    build_small_vlm(experiment().vlm, folder / "vlm")
    for amount in (frames, 10 * frames):
        write_noise(folder / f"noise_{amount}", amount)
        load_dataset(
            folder / f"noise_{amount}"
        )  # the first load makes an Arrow copy of the data, which is not the stage
    (folder / "noise").symlink_to(f"noise_{frames}")
    train(folder, 2)
    (folder / "ckpt_2").rename(folder / "ckpt")
    shutil.rmtree(folder / "training")  # else a training of two updates would have nothing left to do


def draw(peaks: dict[str, list[float]], lengths: dict[str, list[int]], path: Path) -> None:
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    for axes, (stage, values) in zip(figure.subplots(1, len(peaks)), peaks.items(), strict=True):
        axes.bar([f"{length}" for length in lengths[stage]], values, width=0.6)
        axes.set(title=stage, xlabel=STAGES[stage][1], ylabel="peak memory [MiB]")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=300, help=f"frames to encode, a multiple of {EPISODE}")
    parser.add_argument("--updates", type=int, default=30, help="updates of a training")
    parser.add_argument(
        "--episodes", type=int, default=3, help="episodes in the simulator; ten times as many are 50 at most"
    )
    parser.add_argument("--output", type=Path, default=Path("benchmarks/out"))
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        stage, amount, folder = args.measure
        STAGES[stage][0](Path(folder), int(amount))
        print(peak_mb())
        return
    lengths = {stage: [n, 10 * n] for stage, (_, unit) in STAGES.items() for n in [getattr(args, unit)]}
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name), args.frames)
        peaks = {s: [measured(Path(name), s, n) for n in lengths[s]] for s in STAGES}
    print(f"{'stage':10}{'length':>18}{'peak [MiB]':>12}{'ten times as long':>19}{'more':>8}")
    for stage, (short, long) in peaks.items():
        length = f"{lengths[stage][0]} {STAGES[stage][1]}"
        print(f"{stage:10}{length:>18}{short:12.0f}{long:19.0f}{100 * (long / short - 1):+7.1f}%")
    draw(peaks, lengths, args.output / "memory.png")


if __name__ == "__main__":
    main()
