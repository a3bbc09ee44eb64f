"""How long an update takes: our training loop, `lerobot-train`, and an update alone on a batch in memory.

    python -m benchmarks.training --updates 60 --rounds 3
    python -m benchmarks.training --dataset results/dataset --vlm results/vlm
    python -m benchmarks.training --device cuda --updates 200

Trains the baseline (E0, a plain `smolvla`) with the default configuration, on demonstrations of noise or on those
given. LeRobot's loop is the function behind `lerobot-train`, given the same policy configuration, dataset, seed and
batch size; it loads samples in its own process, or in four others, which is its default.

All are first checked to train the same: from the same weights, with the flow noise of each update drawn from the same
seed, they must see the same frames, and have the same losses and end at the same weights but for rounding (LeRobot's
AdamW is not fused). LeRobot's loop leaves out the moving average of the weights, which ours keeps and saves.

Then they take turns, one run each in every round. A step is the time from the begin of an update to the begin of the
next: loading, preprocessing, update, average. `update alone` is the part of it that our loop would need if every batch
were in memory and ready: forward, backward, clipping, AdamW, schedule. On a GPU, where our loop does not wait for an
update, it is what the host takes to launch one. The first steps of a run are not counted.
"""

import argparse
import contextlib
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.scripts import lerobot_train

from benchmarks.memory import experiment, write_noise
from world_modality.data.dataset import load_dataset
from world_modality.experiment.specs import TrainSpec
from world_modality.latents.backbones import build_small_vlm
from world_modality.latents.encoder import check_device
from world_modality.training import loop
from world_modality.training.warm_start import plain_config

OURS, OWN_PROCESS, DEFAULT = "ours", "lerobot-train, no workers", "lerobot-train, 4 workers"
UNCOUNTED = 20  # first steps of a run: with workers, batches that were loaded ahead of the training
LOSSES, WEIGHTS = 1e-4, 1e-3  # how far losses (relative) and weights (relative to their norm) may be apart


@dataclass
class Trace:
    """What a loop did, as seen from its updates."""

    began: list[float] = field(default_factory=list)  # of each update [s]
    updates: list[float] = field(default_factory=list)  # duration of each [s]
    frames: list[list[int]] = field(default_factory=list)
    losses: list[float | torch.Tensor] = field(default_factory=list)  # read after the run: on a GPU reading waits
    weights: torch.Tensor | None = None  # after the last update, all in one vector

    def steps(self) -> np.ndarray:
        """Times from update to update [s]."""
        return np.diff(self.began)[UNCOUNTED:]


@contextlib.contextmanager
def traced(module, start: dict) -> Iterator[Trace]:
    """Watch the updates that a module's loop makes; all loops begin with the weights that the first one had."""
    trace, update = Trace(), lerobot_train.update_policy

    def watched(tracker, policy, batch, *args, **kwargs):
        if not trace.began:
            start.setdefault("weights", {name: value.clone() for name, value in policy.state_dict().items()})
            policy.load_state_dict(start["weights"])
        torch.manual_seed(len(trace.began))  # of the flow noise
        trace.began.append(time.perf_counter())
        result = update(tracker, policy, batch, *args, **kwargs)
        trace.updates.append(time.perf_counter() - trace.began[-1])
        trace.frames.append(batch["index"].tolist())
        trace.losses.append(result[0].loss.val)
        trace.weights = torch.cat([p.detach().flatten() for p in policy.parameters()])
        return result

    with mock.patch.object(module, "update_policy", watched):
        yield trace
    trace.losses = [float(loss) for loss in trace.losses]


def ours(spec: TrainSpec, dataset: Path, vlm: Path, start: dict) -> Trace:
    with tempfile.TemporaryDirectory() as name, traced(loop, start) as trace:
        inputs = loop.TrainInputs(dataset, vlm, None, {})
        loop.train(spec, inputs, 0, Path(name) / "ckpt", Path(name) / "training")
    return trace


def lerobots(spec: TrainSpec, dataset: Path, vlm: Path, start: dict, workers: int) -> Trace:
    meta = load_dataset(dataset).meta
    with tempfile.TemporaryDirectory() as name, traced(lerobot_train, start) as trace:
        config = TrainPipelineConfig(
            dataset=DatasetConfig(repo_id=dataset.name, root=str(dataset)),
            policy=plain_config(spec, vlm, None, meta),
            seed=0,
            steps=spec.training.steps,
            batch_size=spec.training.batch_size,
            num_workers=workers,
            save_checkpoint=False,
            output_dir=Path(name) / "run",
        )
        lerobot_train.train(config)
    return trace


def check_equal(traces: dict[str, Trace]) -> None:
    """Refuse to time loops that do not train the same."""
    reference = traces[OURS]
    for name, trace in traces.items():
        if trace.frames != reference.frames:
            raise SystemExit(f"{name}: its batches hold other frames than ours")
        np.testing.assert_allclose(trace.losses, reference.losses, rtol=LOSSES, err_msg=name)
        apart = (trace.weights - reference.weights).norm() / reference.weights.norm()
        if apart > WEIGHTS:
            raise SystemExit(f"{name}: after {len(trace.losses)} updates its weights are {apart:.1e} apart from ours")
        loss = np.max(np.abs(np.divide(trace.losses, reference.losses) - 1))
        print(f"{name}: the same frames; losses differ by {loss:.0e} at most, weights in the end by {apart:.0e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=60, help="updates of each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--frames", type=int, default=500, help="frames of noise")
    parser.add_argument("--dataset", type=Path, help="demonstrations to train on instead of noise")
    parser.add_argument("--vlm", type=Path, help="SmolVLM of the policy (the default experiment's)")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    check_device(args.device)
    spec = experiment(args.updates).train_spec("E0").model_copy(update={"device": args.device})
    with tempfile.TemporaryDirectory() as name:
        dataset, vlm = args.dataset or Path(name) / "noise", args.vlm or Path(name) / "vlm"
        if not args.dataset:
            write_noise(dataset, args.frames)
        if not args.vlm:
            build_small_vlm(experiment().vlm, vlm)
        start: dict = {}
        loops: dict[str, Callable[[], Trace]] = {
            OURS: lambda: ours(spec, dataset, vlm, start),
            OWN_PROCESS: lambda: lerobots(spec, dataset, vlm, start, workers=0),
            DEFAULT: lambda: lerobots(spec, dataset, vlm, start, workers=4),
        }
        runs = [{loop: run() for loop, run in loops.items()} for _ in range(args.rounds)]
    check_equal(runs[0])
    steps = {name: np.concatenate([traces[name].steps() for traces in runs]) for name in loops}
    steps["ours, update alone"] = np.concatenate([traces[OURS].updates[UNCOUNTED:-1] for traces in runs])
    print(f"{'a step':28}{'ms (median)':>12}{'mean':>8}{'to ours':>9}")
    for name, times in steps.items():
        ratio = np.mean(times) / np.mean(steps[OURS])
        print(f"{name:28}{1e3 * np.median(times):12.0f}{1e3 * np.mean(times):8.0f}{ratio:9.2f}")


if __name__ == "__main__":
    main()
