"""The training itself: SmolVLA, alone or with a world modality, on LeRobot's own components.

The update (`update_policy`), the optimizer's settings, scheduler, sampler, processors and checkpoint are LeRobot's; the
optimizer itself is torch's AdamW as one fused kernel. The loop is ours, because LeRobot's loop accepts neither another
loader nor averaged weights, and does not resume a run exactly.

Non-obvious behaviours:

* The flow noise comes from torch's global RNG, which is seeded again after the policy is built. So options that share a
  seed see the same samples and the same noise, however many parameters each has.
* A training in progress keeps its state in a folder of its own and replaces it atomically. A training with the same
  spec and inputs resumes from it and ends with the weights of an undisturbed run. The state of a finished training is
  removed only after its checkpoint has its final name; until then it is the only result of hours of work.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.scripts.lerobot_train import update_policy
from lerobot.utils.logging_utils import AverageMeter, MetricsTracker
from lerobot.utils.random_utils import set_seed
from torch.optim.swa_utils import get_ema_multi_avg_fn

from lerobot_policy_world_modality import SmolVLAWorldConfig
from lerobot_policy_world_modality.modeling_smolvla_world import SmolVLAWorldPolicy, world_effect
from lerobot_policy_world_modality.processor_smolvla_world import insert_blank_images
from world_modality import program
from world_modality.artifacts.files import atomic_path, file_sha256, read_json, text_sha256, write_json
from world_modality.artifacts.provenance import package_versions, read_provenance
from world_modality.artifacts.records import content_sha256
from world_modality.artifacts.sources import source_code
from world_modality.data.dataset import (
    check_image_key,
    dataset_fingerprint,
    demonstrated,
    episode_bounds,
    load_dataset,
    split_episodes,
)
from world_modality.errors import InputError
from world_modality.experiment.specs import TrainSpec
from world_modality.experiment.suites import check_demonstrated
from world_modality.latents.encoder import VideoEncoder, check_device
from world_modality.latents.table import LatentTable, join_tables
from world_modality.progress import Progress, report_resumed
from world_modality.training.loader import FrameBatches, training_batches
from world_modality.training.unread import Losses, UnreadAccelerator, unread
from world_modality.training.warm_start import initial_policy, initial_processors, plain_config, world_config

METRIC_BATCHES = 8  # batches on which a finished policy is measured


@dataclasses.dataclass(frozen=True)
class TrainInputs:
    """The artifacts one training reads."""

    dataset: Path
    vlm: Path
    encoder: Path | None
    latents: dict[str, Path]  # camera -> latents_<camera>.parquet
    policy: Path | None = None  # the published policy to start from


class Averaged:
    """Exponential moving average of a policy's trainable weights."""

    def __init__(self, policy: torch.nn.Module, decay: float):
        self.live = [p for p in policy.parameters() if p.requires_grad]
        self.mean = [p.detach().clone() for p in self.live]
        self._average = get_ema_multi_avg_fn(decay)

    def update(self) -> None:
        self._average(self.mean, [p.detach() for p in self.live], None)

    @torch.no_grad()
    def write_to_policy(self) -> None:
        for live, mean in zip(self.live, self.mean, strict=True):
            live.copy_(mean)


@dataclasses.dataclass(frozen=True)
class Running:
    """How a training runs; nothing here changes the weights."""

    save_every: int = 400  # updates between two saved training states
    cache_frames: bool = True  # keep every decoded image in memory
    loader_workers: int = 0  # processes that load batches in parallel with the training
    suite: str | None = None  # whose tasks will be evaluated
    evaluated: Sequence[int] = ()  # the tasks, which must have been demonstrated


def train(
    spec: TrainSpec, inputs: TrainInputs, seed: int, output: Path, training_dir: Path, running: Running = Running()
) -> Path:
    """Train `spec.option` with `seed` and write its checkpoint to `output`.

    If a training with the same spec and inputs was interrupted, it resumes from its state in `training_dir`.

    Returns:
        the file of its last state; `remove_state` should remove it once the checkpoint has its final name.

    Raises:
        InputError: a task to be evaluated was not demonstrated; the latents have another camera, dataset or window than
            the option asks for; the horizon is longer than every episode; the VLM is not a SmolVLM; the published
            policy is not the spec's; or the device is not available.
        FloatingPointError: a loss was not finite. That is found when progress is printed, and before a state is saved.
    """
    check_device(spec.device)  # LeRobot would use the CPU instead
    _check_vlm(inputs.vlm)
    dataset = load_dataset(inputs.dataset)
    check_demonstrated(dataset.repo_id, demonstrated(dataset), running.suite, running.evaluated)
    for key in spec.image_keys.values():
        check_image_key(dataset, key)
    trained, _ = split_episodes(dataset, spec.held_out_per_task)
    all_bounds = episode_bounds(dataset)
    bounds = [all_bounds[episode] for episode in trained]
    _check_horizon(spec, bounds)
    config = plain_config(spec, inputs.vlm, inputs.policy, dataset.meta)
    fingerprint = dataset_fingerprint(dataset)
    latents = _open_latents(spec, inputs, fingerprint)
    if latents is not None:
        config = world_config(config, spec, inputs.encoder, latents)
    run = _pipeline_config(spec, inputs, seed, config)
    set_seed(seed)
    policy = initial_policy(config, inputs.policy, dataset.meta)
    preprocessor, postprocessor = initial_processors(config, inputs.policy, dataset.meta)
    if spec.images == "blank":
        insert_blank_images(preprocessor)
    if latents is not None:
        policy.attach_latents(latents)
    if not running.cache_frames:
        dataset.copy_for_random_order()
    frames = FrameBatches(dataset, config.chunk_size, running.cache_frames)

    made_from = _made_from(spec, inputs, fingerprint, seed) | {"instructions": demonstrated(dataset)}
    key = json.dumps([made_from, source_code("world_modality/train_llm_vla.py")], sort_keys=True)
    state = training_dir / f"{spec.option}_seed_{seed}_{text_sha256(key)[:16]}" / "state.pt"
    set_seed(seed)
    _optimize(spec, run, policy, preprocessor, bounds, frames, seed, state, running)
    metrics = measure(policy, preprocessor, frames, bounds, spec.training.batch_size, seed)
    with atomic_path(output) as folder:
        policy.save_pretrained(folder)
        run.save_pretrained(folder)
        preprocessor.save_pretrained(folder)
        postprocessor.save_pretrained(folder)
        weights_sha256 = file_sha256(folder / "model.safetensors")
        write_json(folder / "training.json", made_from | {"weights_sha256": weights_sha256, "metrics": metrics})
    return state


def _optimize(spec, run, policy, preprocessor, bounds, frames, seed, state, running) -> None:
    """Make `spec.training.steps` updates, then write the averaged weights to the policy.

    When asked to stop (SIGTERM, SIGUSR1), it finishes the current update, saves the state and ends the process. No
    value is read off the device but for a line of progress or a saved state.
    """
    options = spec.training
    optimizer, scheduler = _fused_adamw(run, policy)
    averaged = Averaged(policy, options.ema_decay)
    stage, began = f"train {spec.option} seed {seed}", time.monotonic()
    step, before = _load_state(state, policy, averaged, optimizer, scheduler)
    if step:
        report_resumed(stage, step, before)
    precision = "bf16" if options.precision == "bf16" else "no"
    accelerator = UnreadAccelerator(cpu=spec.device == "cpu", mixed_precision=precision)  # for `update_policy`
    # LeRobot's update sets the last meter whenever it sees a GPU, even one that is not used.
    meters = {name: AverageMeter(name, ":.3f") for name in ("loss", "grad_norm", "lr", "update_s", "gpu_mem_gb")}
    tracker = MetricsTracker(
        options.batch_size, len(frames), len(bounds), meters, initial_step=step, accelerator=accelerator
    )
    pinned = spec.device == "cuda"
    batches = training_batches(bounds, frames, seed, options.batch_size, step, running.loader_workers, pinned)
    progress = Progress(stage, options.steps, done=step)
    losses = Losses(spec.option, step)
    log = policy.unlogged() if isinstance(policy, SmolVLAWorldPolicy) else contextlib.nullcontext()
    with contextlib.closing(batches), log, unread(policy), program.stop_requests() as asked:
        while step < options.steps:
            loaded = next(batches)
            batch = preprocessor(loaded) | {"index": loaded["index"]}  # latents are looked up by it on the host
            tracker, _ = update_policy(
                tracker, policy, batch, optimizer, options.grad_clip_norm, accelerator, lr_scheduler=scheduler
            )
            averaged.update()
            step += 1
            losses.add(tracker.loss.val)
            if asked or step % running.save_every == 0 or step == options.steps:
                losses.last()  # no state is saved after a loss that is not finite
                seconds = before + time.monotonic() - began
                _save_state(state, step, seconds, policy, averaged, optimizer, scheduler)
            if asked:
                program.stop(asked[0], f"after step {step}: state saved; the same command goes on from it")
            progress.update(step, lambda: f"loss {losses.last():.3f}")
    averaged.write_to_policy()


def _fused_adamw(run: TrainPipelineConfig, policy):
    """The optimizer and scheduler that LeRobot would build, except that AdamW runs as one fused kernel for all weights.

    On a CPU, fused updates take a fifth of the time. They round differently, so the weights are not those that the
    other kernel would give.
    """
    settings = dataclasses.asdict(run.optimizer)
    del settings["grad_clip_norm"]  # a setting of the update, not of the optimizer
    optimizer = torch.optim.AdamW(policy.get_optim_params(), **settings, fused=True)
    return optimizer, run.scheduler.build(optimizer, run.steps)


def _save_state(path: Path, step, seconds, policy, averaged, optimizer, scheduler) -> None:
    """Save a training in progress; `seconds` is how long its steps have taken, in this run and those before."""
    content = {
        "step": step,
        "seconds": seconds,
        "policy": policy.state_dict(),
        "mean": averaged.mean,
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all(),
    }
    while not path.parent.is_dir():  # another training may end, find the folder above this one empty, and remove it
        with contextlib.suppress(FileNotFoundError):
            path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def remove_state(path: Path) -> None:
    """Remove a training's state, and also the folder of all states if this was the last one."""
    shutil.rmtree(path.parent, ignore_errors=True)
    with contextlib.suppress(OSError):  # other trainings have states there
        path.parent.parent.rmdir()


def _load_state(path: Path, policy, averaged, optimizer, scheduler) -> tuple[int, float]:
    """Restore a training in progress exactly; returns its last step and the seconds up to it (0, 0: no state)."""
    if not path.exists():
        return 0, 0.0
    content = torch.load(path, weights_only=True)
    policy.load_state_dict(content["policy"])
    averaged.mean = content["mean"]
    optimizer.load_state_dict(content["optimizer"])
    scheduler.load_state_dict(content["scheduler"])
    torch.set_rng_state(content["rng"])
    if content["cuda_rng"]:
        torch.cuda.set_rng_state_all(content["cuda_rng"])
    return content["step"], content["seconds"]


@torch.no_grad()
def measure(
    policy, preprocessor, frames: FrameBatches, bounds: list[tuple[int, int]], batch_size: int, seed: int
) -> dict:
    """Losses on evenly spaced training frames under fixed noise and, with a world modality, whether it has an effect.

    Returns `loss` (flow matching) and, for a world option, `world`: its world loss and copy-last's, |tanh(gate)|, and
    the RMS change of the normalized actions when the memory is zeroed.
    """
    set_seed(seed)
    policy.eval()
    rows = torch.cat([torch.arange(start, end) for start, end in bounds])
    count = min(len(rows), METRIC_BATCHES * batch_size)
    chosen = rows[torch.linspace(0, len(rows) - 1, count).long()].tolist()
    stride = -(-count // batch_size)  # every batch spans the dataset
    batches = [preprocessor(frames[chosen[i::stride]]) for i in range(stride)]
    sums: dict[str, float] = {}
    for batch in batches:
        _, values = policy.forward(batch)
        for key, value in values.items():
            sums[key] = sums.get(key, 0.0) + float(value) * len(batch["index"]) / count
    if not isinstance(policy.config, SmolVLAWorldConfig):
        return {"loss": sums["loss"]}
    generator = torch.Generator().manual_seed(seed)
    shape = (len(batches[0]["index"]), policy.config.chunk_size, policy.config.max_action_dim)
    noise = torch.randn(shape, generator=generator).to(policy.config.device)
    world = {key: sums[key] for key in ("world_loss", "copy_last")}
    return {"loss": sums["loss"], "world": world | world_effect(policy, batches[0], noise)}


# ---- the inputs, checked and recorded -------------------------------------------------------------------------------


def _check_vlm(folder: Path) -> None:
    config = folder / "config.json"
    kind = read_json(config).get("model_type", "nothing") if config.is_file() else "no config.json"
    if kind != "smolvlm":
        raise InputError(f"{folder}: has {kind}, expected a SmolVLM (model_type smolvlm in config.json)")


def _check_horizon(spec: TrainSpec, bounds: list[tuple[int, int]]) -> None:
    """Refuse a horizon so long that no episode has its last frame."""
    longest = max(end - start for start, end in bounds)
    if spec.world and spec.world.horizon >= longest:
        raise InputError(
            f"world.horizon {spec.world.horizon}: the longest episode has {longest} frames, so at most {longest - 1} "
            "lie ahead of any"
        )


def _open_latents(spec: TrainSpec, inputs: TrainInputs, fingerprint: str) -> LatentTable | None:
    """The latents of the option's cameras, with each table checked against the option and the dataset."""
    if set(inputs.latents) != set(spec.cameras):
        given, wanted = sorted(inputs.latents) or "none", sorted(spec.cameras) or "none"
        raise InputError(f"option {spec.option} needs the latents of {wanted}, not of {given}")
    if not spec.cameras:
        return None
    if inputs.encoder is None:
        raise InputError(f"option {spec.option} encodes its camera at rollout: --encoder is missing")
    same = {"dataset_fingerprint": fingerprint, "window": spec.world.window}
    tables = [
        LatentTable.open(inputs.latents[camera], expect=same | {"image_key": spec.image_keys[camera]})
        for camera in spec.cameras
    ]
    _check_encoder(inputs, dict(zip(spec.cameras, tables, strict=True)))
    return join_tables(tables)


def _check_encoder(inputs: TrainInputs, tables: dict[str, LatentTable]) -> None:
    """Refuse latents that another encoder made.

    If the record of the latents names exactly these files, that is enough. Otherwise the weights themselves are loaded
    and hashed, which is slow for a published encoder.
    """
    files = content_sha256(inputs.encoder)
    unsure = [camera for camera in tables if files not in _encoder_files(inputs.latents[camera])]
    if unsure:
        weights = VideoEncoder.load(inputs.encoder).identity()["encoder_sha256"]
        for camera in unsure:
            tables[camera].specs[0].require({"encoder_sha256": weights}, str(inputs.latents[camera]))


def _encoder_files(latents: Path) -> list[str | None]:
    """Content hash of the encoder that the record of a latent table names."""
    record = read_provenance(latents)
    return [ingredient.sha256 for ingredient in record.inputs if ingredient.role == "encoder"] if record else []


def _pipeline_config(spec: TrainSpec, inputs: TrainInputs, seed: int, policy: SmolVLAConfig) -> TrainPipelineConfig:
    """LeRobot's description of the training, which is saved with the checkpoint as `train_config.json`."""
    options = spec.training
    return TrainPipelineConfig(
        dataset=DatasetConfig(repo_id=inputs.dataset.name, root=str(inputs.dataset)),
        policy=policy,
        seed=seed,
        steps=options.steps,
        batch_size=options.batch_size,
        optimizer=policy.get_optimizer_preset(),
        scheduler=policy.get_scheduler_preset(),
    )


def _made_from(spec: TrainSpec, inputs: TrainInputs, fingerprint: str, seed: int) -> dict:
    return {
        "spec": spec.model_dump(mode="json"),
        "seed": seed,
        "inputs": {
            "dataset": fingerprint,
            "latents": {camera: content_sha256(path) for camera, path in inputs.latents.items()},
            "vlm": content_sha256(inputs.vlm),
            "encoder": content_sha256(inputs.encoder) if inputs.encoder else None,
            "policy": content_sha256(inputs.policy) if inputs.policy else None,
        },
        "versions": package_versions("lerobot", "torch", "transformers"),
    }
