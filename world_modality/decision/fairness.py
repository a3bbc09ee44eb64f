"""The fairness audit: checks that the trained artifacts themselves differ only in what defines each option.

`audit` reads every checkpoint as a flat list of facts: its training, its policy, its processors with their statistics,
and hashes of what it was trained on. It compares each option's checkpoint with the baseline's of the same training
seed, and each world option's also with that of the tree's world option. What two options may differ in follows from
their rows of the option table, which the checkpoints record; any other difference is refused by name. `evaluations`
checks that the evaluations share the same protocol, and the same seeds in the episodes that both have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from world_modality.artifacts.files import file_sha256, read_json
from world_modality.decision.evaluations import ComparisonError, Evaluation, check_comparable
from world_modality.errors import InputError
from world_modality.training.checkpoint import read_training

Facts = Mapping[str, Any]

TRAINING = ("batch_size", "dataset", "optimizer", "rename_map", "sample_weighting", "scheduler", "seed", "steps")
# The keys that each part of a row allows to differ, with all keys below them; a name that ends in "_" is a prefix.
WORLD = ("policy.type", "policy.world_", "inputs.encoder", "inputs.latents")
CAMERAS = ("policy.world_image_keys", "policy.world_latent_dim", "inputs.latents")
BLANK_STEP = "blank_images"
BLANK = (f"preprocessor.{BLANK_STEP}.",)
SCHEDULE = {
    "learning_rate": ("training.optimizer.lr", "training.scheduler.peak_lr", "policy.optimizer_lr"),
    "warmup_steps": ("training.scheduler.num_warmup_steps", "policy.scheduler_warmup_steps"),
    "final_learning_rate": ("training.scheduler.decay_lr", "policy.scheduler_decay_lr"),
}


@dataclass(frozen=True)
class Trained:
    """One checkpoint: the row it was trained for, and everything about it that could make a difference."""

    folder: Path
    option: str
    seed: int
    row: Mapping[str, Any]
    weights_sha256: str
    facts: Facts


def read_trained(folder: Path) -> Trained:
    """Read a checkpoint's facts.

    Raises:
        ComparisonError: one of its files is missing.
    """
    try:
        training = read_training(folder)
    except InputError as error:
        raise ComparisonError(str(error)) from None
    config = read_json(folder / "train_config.json")
    parts = {
        "training": {name: config[name] for name in TRAINING}
        | {name: training["spec"]["training"][name] for name in ("ema_decay", "precision")}
        | {"held_out_per_task": training["spec"]["held_out_per_task"]},
        "policy": read_json(folder / "config.json"),
        "preprocessor": _processor(folder, "policy_preprocessor.json"),
        "postprocessor": _processor(folder, "policy_postprocessor.json"),
        "inputs": training["inputs"],
    }
    return Trained(
        folder=folder,
        option=training["spec"]["option"],
        seed=training["seed"],
        row=training["spec"],
        weights_sha256=training["weights_sha256"],
        facts=dict(_flat(parts)),
    )


def _processor(folder: Path, name: str) -> dict[str, Any]:
    """The steps of a processor, each with its settings and the hash of its statistics, and their order.

    If a name occurs again, it is numbered: `normalizer_processor#2`. The order leaves out a `blank_images` step at the
    start, so that it is the same with and without that step.
    """
    steps = read_json(folder / name)["steps"]
    order = [step.get("registry_name") or step["class"] for step in steps]
    facts: dict[str, Any] = {"order": order[1:] if order[:1] == [BLANK_STEP] else order}
    for position, (step_name, step) in enumerate(zip(order, steps, strict=True)):
        earlier = order[:position].count(step_name)
        state = step.get("state_file")
        facts[f"{step_name}#{earlier + 1}" if earlier else step_name] = {
            "present": True,
            "config": step["config"],
            "statistics": file_sha256(folder / state) if state else None,
        }
    return facts


def _flat(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(content, Mapping) and content:
        for key, value in content.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, content


# ---- the audit ------------------------------------------------------------------------------------------------------


def audit(folders: Sequence[Path], evaluations: Sequence[Evaluation], baseline: str, world: str) -> dict[str, Any]:
    """The content of `fairness.json`: how each option differs from the baseline and from the world option.

    Args:
        folders: the checkpoints of all training seeds, of every option that trains its own.
        evaluations: a complete set for these options and for those that borrow their checkpoints.

    Raises:
        ComparisonError: two options differ in more than what defines them; names the checkpoint and the key.
    """
    trained = [read_trained(folder) for folder in folders]
    by_name = {(t.option, t.seed): t for t in trained}
    check_comparable(evaluations, baseline, adaptive=True)  # `decide` knows whether options may differ in length
    _check_evaluated(by_name, evaluations)
    options: dict[str, Any] = {}
    for checkpoint in trained:
        found = options.setdefault(checkpoint.option, {"seeds": [], "differs_from": {}})
        found["seeds"].append(checkpoint.seed)
        for reference in (baseline, world):
            other = by_name.get((reference, checkpoint.seed))
            if other is None:
                raise ComparisonError(f"{checkpoint.folder}: {reference} has no checkpoint of seed {checkpoint.seed}")
            if reference == world and not checkpoint.row["cameras"]:
                continue
            found["differs_from"][reference] = _differences(checkpoint, other)
    return {"baseline": baseline, "world": world, "options": options, "shared": _shared(trained)}


def _differences(checkpoint: Trained, reference: Trained) -> dict[str, list[Any]]:
    """The keys in which two checkpoints differ, with the values of both; refuses a key that may not differ."""
    allowed = _allowed(checkpoint.row, reference.row)
    differences = {}
    for key in sorted({*checkpoint.facts, *reference.facts}):
        here, there = checkpoint.facts.get(key, "absent"), reference.facts.get(key, "absent")
        if here == there:
            continue
        if not any(f"{key}.".startswith(name if name[-1] in "._" else f"{name}.") for name in allowed):
            raise ComparisonError(f"{checkpoint.folder}: {key} is {here!r}, but {there!r} in {reference.folder}")
        differences[key] = [here, there]
    return differences


def _allowed(row: Mapping[str, Any], reference: Mapping[str, Any]) -> list[str]:
    """The keys in which two options may differ, according to their rows."""
    allowed: list[str] = []
    if bool(row["cameras"]) != bool(reference["cameras"]):
        allowed += WORLD
    elif row["cameras"] != reference["cameras"]:
        allowed += CAMERAS
    if row["memory"] != reference["memory"]:
        allowed.append("policy.world_memory")
    if row["world"] and reference["world"] and row["world"]["window"] != reference["world"]["window"]:
        allowed += ["policy.world_window", "inputs.latents"]
    if row["images"] != reference["images"]:
        allowed += BLANK
    for name in {*row["own_schedule"], *reference["own_schedule"]}:
        allowed += SCHEDULE[name]
    return allowed


def _check_evaluated(trained: Mapping[tuple[str, int], Trained], evaluations: Sequence[Evaluation]) -> None:
    """Check that every evaluation rolled out the audited checkpoints."""
    for evaluation in evaluations:
        source = evaluation.checkpoint.source_option
        for name, sha256 in evaluation.checkpoint.hashes.items():
            checkpoint = trained.get((source, int(name.removeprefix("seed_"))))
            if checkpoint is None:
                raise ComparisonError(f"{evaluation.name}: the checkpoint of {source}, {name}, was not audited")
            if checkpoint.weights_sha256 != sha256:
                raise ComparisonError(
                    f"{evaluation.name}: rolled out weights {sha256[:12]}, but {checkpoint.folder} has "
                    f"{checkpoint.weights_sha256[:12]}"
                )


def _shared(trained: Sequence[Trained]) -> dict[str, Any]:
    """The facts that are the same in all checkpoints, of every option and seed."""
    first, *others = (t.facts for t in trained)
    return {key: value for key, value in sorted(first.items()) if all(o.get(key, _ABSENT) == value for o in others)}


_ABSENT = object()
