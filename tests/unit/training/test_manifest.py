"""The manifest lists an option's checkpoints and refuses what does not belong together."""

import pytest

from world_modality.artifacts.files import file_sha256, read_json, write_json
from world_modality.errors import InputError
from world_modality.training.checkpoint import FILES
from world_modality.training.manifest import write_manifest

POLICY = {"policy": {"chunk_size": 16}, "vlm": {"layers": 2}, "held_out_per_task": 2}
SCHEDULE = {"learning_rate": 1e-3, "warmup_steps": 5, "final_learning_rate": 1e-5}


def checkpoint(root, seed, option="E0", steps=100, world=None):
    folder = root / f"seed_{seed}"
    folder.mkdir()
    for name in FILES:
        (folder / name).touch()
    (folder / "model.safetensors").write_text(f"weights of seed {seed}")
    record = {
        "spec": {"option": option, "training": {"steps": steps, "batch_size": 4} | SCHEDULE, **POLICY},
        "seed": seed,
        "inputs": {"dataset": "abc"},
        "weights_sha256": file_sha256(folder / "model.safetensors"),
        "metrics": {"loss": 0.5} | ({"world": world} if world else {}),
    }
    write_json(folder / "training.json", record)
    return folder


def test_a_manifest_lists_every_seed_with_its_weights_and_their_budget(tmp_path):
    folders = [checkpoint(tmp_path, seed, world={"gate": 0.1}) for seed in (0, 1)]
    write_manifest("E0", folders, tmp_path / "manifest.json")
    manifest = read_json(tmp_path / "manifest.json")
    assert list(manifest["seeds"]) == ["0", "1"]
    assert manifest["seeds"]["1"]["weights_sha256"] == file_sha256(folders[1] / "model.safetensors")
    assert manifest["seeds"]["0"]["world"] == {"gate": 0.1}
    assert manifest["training_budget"] == {"steps": 100, "batch_size": 4, "dataset": "abc"} | POLICY
    assert manifest["learning_schedule"] == SCHEDULE


def test_another_options_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match="seed_0: trained as option E0, expected E2"):
        write_manifest("E2", [checkpoint(tmp_path, 0)], tmp_path / "manifest.json")


def test_weights_that_are_not_those_trained_are_refused(tmp_path):
    folder = checkpoint(tmp_path, 0)
    (folder / "model.safetensors").write_text("swapped")
    with pytest.raises(ValueError, match=r"seed_0/model\.safetensors: sha256 .* expected"):
        write_manifest("E0", [folder], tmp_path / "manifest.json")


def test_seeds_of_another_budget_are_refused(tmp_path):
    folders = [checkpoint(tmp_path, 0), checkpoint(tmp_path, 1, steps=50)]
    with pytest.raises(ValueError, match=r"E0: one seed was trained with .*'steps': 50"):
        write_manifest("E0", folders, tmp_path / "manifest.json")
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize("name", FILES)
def test_a_checkpoint_that_lacks_a_file_is_refused_and_told_what_it_should_have(tmp_path, name):
    folder = checkpoint(tmp_path, 0)
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"seed_0: {name} is missing; a checkpoint has {', '.join(FILES)}"):
        write_manifest("E0", [folder], tmp_path / "manifest.json")
