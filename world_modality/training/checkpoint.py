"""The folder of a trained checkpoint: its files, the record of its training, and the folders it reads.

It is a LeRobot `pretrained_model` with a `training.json` next to the weights. Nothing here loads the policy.
Light (no torch).
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
    """Refuse a folder that lacks one of `files`.

    Raises:
        InputError: a file is missing; names the first one, and all files that the folder should have.
    """
    for name in files:
        if not (folder / name).is_file():
            raise InputError(f"{folder}: {name} is missing; {kind} has {', '.join(files)}")


def read_training(checkpoint: Path) -> dict[str, Any]:
    """The record of a complete checkpoint's training: `spec`, `seed`, `inputs`, `versions`, `instructions`,
    `weights_sha256`, `metrics`.

    Raises:
        InputError: a file of the checkpoint is missing.
    """
    require_files(checkpoint)
    return read_json(checkpoint / "training.json")


def folders_of(checkpoint: Path) -> dict[str, Path]:
    """The local folders that a checkpoint's config names: the VLM and, if it has one, the encoder; no hub ids.

    Raises:
        InputError: the checkpoint has no readable `config.json`.
    """
    if not (checkpoint / "config.json").is_file():
        require_files(checkpoint)
    config = read_json(checkpoint / "config.json")
    named = {"vlm": config.get("vlm_model_name"), "encoder": config.get("world_encoder")}
    return {role: Path(folder) for role, folder in named.items() if folder and Path(folder).is_dir()}
