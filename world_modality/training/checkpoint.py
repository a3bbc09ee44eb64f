"""The folder of a trained checkpoint: which files it has, what its training recorded, which folders it reads.

Light (no torch): a LeRobot `pretrained_model` and the `training.json` next to its weights, seen from outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from world_modality.artifacts.files import read_json
from world_modality.errors import InputError

FILES = (
    "config.json",
    "model.safetensors",
    "policy_preprocessor.json",
    "policy_postprocessor.json",
    "training.json",
    "train_config.json",
)


def require_files(folder: Path, files: Sequence[str] = FILES, kind: str = "a checkpoint") -> None:
    """Refuse a folder that lacks a file.

    Raises:
        InputError: naming the first file that is missing, and all that the folder should have.
    """
    for name in files:
        if not (folder / name).is_file():
            raise InputError(f"{folder}: {name} is missing; {kind} has {', '.join(files)}")


def read_training(checkpoint: Path) -> dict[str, Any]:
    """What the training of a whole checkpoint recorded: `spec`, `seed`, `inputs`, `weights_sha256`, `metrics`.

    Raises:
        InputError: a file of the checkpoint is missing.
    """
    require_files(checkpoint)
    return read_json(checkpoint / "training.json")


def folders_of(checkpoint: Path) -> dict[str, Path]:
    """The folders a checkpoint names, and reads when it is loaded: its VLM's, and its encoder's where it has one.

    Raises:
        InputError: the checkpoint has no readable `config.json`.
    """
    if not (checkpoint / "config.json").is_file():
        require_files(checkpoint)
    config = read_json(checkpoint / "config.json")
    named = {"vlm": config.get("vlm_model_name"), "encoder": config.get("world_encoder")}
    return {role: Path(folder) for role, folder in named.items() if folder and Path(folder).is_dir()}
