"""The manifest of an option's checkpoints: which seeds, what they were made from, what they reached."""

from __future__ import annotations

from pathlib import Path

from world_modality.provenance import file_sha256, read_json, write_json


def write_manifest(option: str, checkpoints: list[Path], output: Path) -> None:
    """Join the `training.json` of each seed's checkpoint into `ckpt_<option>/manifest.json`.

    Raises:
        ValueError: a checkpoint is another option's, or its weights are not those its training recorded.
    """
    records = {}
    for folder in checkpoints:
        record = read_json(folder / "training.json")
        if record["spec"]["option"] != option:
            raise ValueError(f"{folder}: trained as option {record['spec']['option']}, expected {option}")
        sha256 = file_sha256(folder / "model.safetensors")
        if sha256 != record["weights_sha256"]:
            raise ValueError(f"{folder}/model.safetensors: sha256 {sha256}, expected {record['weights_sha256']}")
        records[str(record["seed"])] = record
    budgets = [record["spec"]["training"] | {"dataset": record["inputs"]["dataset"]} for record in records.values()]
    for budget in budgets:
        if budget != budgets[0]:
            raise ValueError(f"{option}: one seed was trained with {budget}, another with {budgets[0]}")
    seeds = {
        seed: {
            "weights_sha256": record["weights_sha256"],
            "inputs": record["inputs"],
            "loss": record["metrics"]["loss"],
            "world": record["metrics"].get("world"),
        }
        for seed, record in records.items()
    }
    write_json(output, {"option": option, "training_budget": budgets[0], "seeds": seeds})
