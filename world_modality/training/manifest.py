"""The manifest of an option's checkpoints: their seeds, what each was made from, and what was measured on it."""

from __future__ import annotations

from pathlib import Path

from world_modality.artifacts.files import file_sha256, write_json
from world_modality.errors import InputError
from world_modality.training.checkpoint import read_training

SCHEDULE = ("learning_rate", "warmup_steps", "final_learning_rate")  # what an option may set for itself


def write_manifest(option: str, checkpoints: list[Path], output: Path) -> None:
    """Join the `training.json` of each seed's checkpoint into `ckpt_<option>/manifest.json`.

    Raises:
        InputError: a checkpoint lacks a file, belongs to another option, has other weights than its training
            recorded, or was trained in another way than the first one.
    """
    records = {}
    for folder in checkpoints:
        record = read_training(folder)
        if record["spec"]["option"] != option:
            raise InputError(f"{folder}: trained as option {record['spec']['option']}, expected {option}")
        sha256 = file_sha256(folder / "model.safetensors")
        if sha256 != record["weights_sha256"]:
            raise InputError(f"{folder}/model.safetensors: sha256 {sha256}, expected {record['weights_sha256']}")
        records[str(record["seed"])] = record
    trainings = [_training(record) for record in records.values()]
    for training in trainings:
        if training != trainings[0]:
            raise InputError(f"{option}: one seed was trained with {training}, another with {trainings[0]}")
    schedule = {name: trainings[0][name] for name in SCHEDULE}
    budget = {name: value for name, value in trainings[0].items() if name not in schedule}
    seeds = {
        seed: {
            "weights_sha256": record["weights_sha256"],
            "inputs": record["inputs"],
            "loss": record["metrics"]["loss"],
            "world": record["metrics"].get("world"),
        }
        for seed, record in records.items()
    }
    content = {"option": option, "training_budget": budget, "learning_schedule": schedule, "seeds": seeds}
    write_json(output, content)


def _training(record: dict) -> dict:
    """What must be equal between two trainings for their policies to be comparable, and the learning schedule."""
    spec = record["spec"]
    same = {name: spec[name] for name in ("policy", "vlm", "held_out_per_task")}
    return spec["training"] | same | {"dataset": record["inputs"]["dataset"]}
