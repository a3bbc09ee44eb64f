"""The loader gives LeRobot's samples in its order; an interrupted training ends with the undisturbed weights."""

import contextlib
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
import torch
from accelerate.state import AcceleratorState
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from safetensors.torch import load_file

from lerobot_policy_world_modality import modeling_smolvla_world as modeling
from world_modality import train_llm_vla
from world_modality.artifacts import provenance
from world_modality.artifacts.files import read_json, write_json
from world_modality.data.dataset import episode_bounds, load_dataset, split_episodes
from world_modality.errors import InputError
from world_modality.progress import seconds_before
from world_modality.training import loop
from world_modality.training.loader import FrameBatches, training_batches
from world_modality.training.loop import Running, TrainInputs, train

FRONT, WRIST = "observation.images.image", "observation.images.image2"
CHUNK, FPS, LENGTHS = 4, 20, (1, 5, 9)
OFTEN = Running(save_every=3)


# ---- loader ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", [True, False])
def test_a_batch_is_what_lerobot_would_load(folder, cache):
    stock = LeRobotDataset(
        "noise", root=folder / "dataset", delta_timestamps={"action": [i / FPS for i in range(CHUNK)]}
    )
    batch = FrameBatches(load_dataset(folder / "dataset"), CHUNK, cache)[list(range(sum(LENGTHS)))]
    for i in range(sum(LENGTHS)):
        for key in ("index", "observation.state", "action", "action_is_pad", FRONT, WRIST):
            torch.testing.assert_close(batch[key][i], stock[i][key], rtol=0, atol=1e-6, msg=f"{key} of frame {i}")
        assert batch["task"][i] == stock[i]["task"]


def test_going_on_from_a_step_gives_the_batches_that_were_left(folder):
    dataset = load_dataset(folder / "dataset")
    frames = FrameBatches(dataset, CHUNK, cache_frames=True)
    undisturbed = training_batches(episode_bounds(dataset), frames, seed=1, batch_size=4, step=0, workers=0)
    indices = [next(undisturbed)["index"].tolist() for _ in range(12)]
    for step in (0, 1, 3, 4, 7):
        resumed = training_batches(episode_bounds(dataset), frames, seed=1, batch_size=4, step=step, workers=0)
        assert [next(resumed)["index"].tolist() for _ in range(12 - step)] == indices[step:]


def test_an_epoch_sees_every_frame_once(folder):
    dataset = load_dataset(folder / "dataset")
    frames = FrameBatches(dataset, CHUNK, cache_frames=True)
    batches = training_batches(episode_bounds(dataset), frames, seed=1, batch_size=4, step=0, workers=0)
    seen = [i for _ in range(4) for i in next(batches)["index"].tolist()]
    assert sorted(seen) == list(range(sum(LENGTHS)))


def test_held_out_episodes_are_never_trained_on(experiment, inputs, tmp_path, monkeypatch):
    seen = set()
    batches = loop.training_batches

    def watched(*arguments, **options):
        for batch in batches(*arguments, **options):
            seen.update(batch["index"].tolist())
            yield batch

    monkeypatch.setattr(loop, "training_batches", watched)
    spec = experiment.train_spec("E2").model_copy(update={"held_out_per_task": 1})
    with pytest.raises(InputError, match="task 1 has 1 episodes, of which 1 are held out"):
        train(spec, inputs, 0, tmp_path / "none", tmp_path / "progress")
    monkeypatch.setattr(loop, "split_episodes", lambda *_: ([2], [0, 1]))
    train(spec, inputs, 0, tmp_path / "trained", tmp_path / "progress")
    assert seen == set(range(6, 15))


def test_the_last_episodes_of_each_task_are_held_out(folder):
    dataset = load_dataset(folder / "dataset")
    assert split_episodes(dataset, 0) == ([0, 1, 2], [])
    with pytest.raises(InputError, match="task 1 has 1 episodes"):
        split_episodes(dataset, 1)


# ---- training -------------------------------------------------------------------------------------------------------


def test_an_interrupted_training_ends_with_the_weights_of_an_undisturbed_one(experiment, inputs, tmp_path, monkeypatch):
    spec = experiment.train_spec("E2")
    train(spec, inputs, 0, tmp_path / "undisturbed", tmp_path / "progress_a", OFTEN)

    update, calls = loop.update_policy, []

    def interrupted(*arguments, **keywords):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return update(*arguments, **keywords)

    monkeypatch.setattr(loop, "update_policy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(spec, inputs, 0, tmp_path / "resumed", tmp_path / "progress_b", OFTEN)
    assert not (tmp_path / "resumed").exists()
    train(spec, inputs, 0, tmp_path / "resumed", tmp_path / "progress_b", OFTEN)
    assert len(calls) == 6 + 7 - 3  # the state of step 3, within an epoch of 4, was the last one saved

    assert same_weights(tmp_path / "undisturbed", tmp_path / "resumed")
    assert read_json(tmp_path / "undisturbed/training.json") == read_json(tmp_path / "resumed/training.json")


def test_a_resumed_training_says_how_long_it_took_up_to_its_state_however_often_it_was_interrupted(
    experiment, inputs, tmp_path, monkeypatch, capsys
):
    clock, update, calls = [0.0], loop.update_policy, []

    def slow(*arguments, **keywords):
        clock[0] += 100
        calls.append(1)
        if len(calls) in (5, 9):  # in steps 5 and 7; the last states are those of steps 3 and 6
            raise KeyboardInterrupt
        return update(*arguments, **keywords)

    monkeypatch.setattr(loop, "update_policy", slow)
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
    said = []
    for ends in (KeyboardInterrupt, KeyboardInterrupt, None):
        with pytest.raises(ends) if ends else contextlib.nullcontext():
            train(experiment.train_spec("E2"), inputs, 0, tmp_path / "ckpt", tmp_path / "progress", OFTEN)
        said.append(seconds_before(capsys.readouterr().err))
    assert said == [0, 300, 600]


@pytest.fixture
def command(experiment, inputs, tmp_path, monkeypatch):
    """Run the program that trains E0 with a seed; returns how many updates it took. All states lie in one folder."""
    spec, update, calls = tmp_path / "spec.json", loop.update_policy, []
    write_json(spec, experiment.train_spec("E0").model_dump(mode="json"))
    monkeypatch.setattr(loop, "update_policy", lambda *a, **k: calls.append(1) or update(*a, **k))

    def run(output, seed=0):
        calls.clear()
        paths = {"dataset": inputs.dataset, "vlm": inputs.vlm, "spec": spec, "output": output}
        flags = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
        flags += ["--seed", str(seed), "--training_dir", str(tmp_path / ".training")]
        monkeypatch.setattr(sys, "argv", ["train", *flags])
        train_llm_vla.main()
        return len(calls)

    return run


def test_a_finished_training_outlives_a_failure_to_record_or_rename_its_checkpoint(command, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    assert command(tmp_path / "undisturbed") == 7
    for module, name in ((provenance, "write_record"), (provenance, "content_sha256")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, full)
            with pytest.raises(OSError, match="no space left"):
                command(tmp_path / "checkpoint")
        assert not (tmp_path / "checkpoint").exists()
    assert len(list((tmp_path / ".training").rglob("state.pt"))) == 1
    assert command(tmp_path / "checkpoint") == 0
    assert same_weights(tmp_path / "undisturbed", tmp_path / "checkpoint")
    assert read_json(tmp_path / "undisturbed/training.json") == read_json(tmp_path / "checkpoint/training.json")
    assert not (tmp_path / ".training").exists()


def test_a_finished_training_leaves_no_folder_and_touches_no_other_training(command, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "write_record", lambda *_: sys.exit("killed"))
        with pytest.raises(SystemExit, match="killed"):
            command(tmp_path / "seed_1", seed=1)
    [state] = (tmp_path / ".training").rglob("state.pt")
    assert command(tmp_path / "seed_0") == 7
    assert list((tmp_path / ".training").rglob("state.pt")) == [state]
    assert command(tmp_path / "seed_1", seed=1) == 0
    assert not (tmp_path / ".training").exists()


def test_a_state_is_saved_although_another_training_removes_the_empty_folder_at_that_moment(tmp_path, monkeypatch):
    make, folder = Path.mkdir, tmp_path / ".training"
    removed = []

    def raced(path, *arguments, **keywords):
        made = make(path, *arguments, **keywords)
        if path == folder and len(removed) < 2:
            removed.append(folder.rmdir())
        return made

    monkeypatch.setattr(Path, "mkdir", raced)
    network = torch.nn.Linear(1, 1)
    optimizer = torch.optim.AdamW(network.parameters())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    state = folder / "E0_seed_0_abc" / "state.pt"
    loop._save_state(state, 1, 0.0, network, loop.Averaged(network, 0.9), optimizer, scheduler)
    assert len(removed) == 2
    assert state.is_file()


def same_weights(*checkpoints):
    first, second = (load_file(folder / "model.safetensors") for folder in checkpoints)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("number", "step", "workers"), [(signal.SIGTERM, 2, 0), (signal.SIGUSR1, 7, 0), (signal.SIGTERM, 4, 1)]
)
def test_a_training_asked_to_stop_saves_its_state_and_goes_on_later(
    experiment, inputs, tmp_path, monkeypatch, capsys, number, step, workers
):
    spec, inputs = experiment.train_spec("E0"), TrainInputs(inputs.dataset, inputs.vlm, None, {})
    often, before = Running(save_every=3, loader_workers=workers), signal.getsignal(number)
    train(spec, inputs, 0, tmp_path / "undisturbed", tmp_path / "progress_a", often)
    update, calls = loop.update_policy, []

    def asked(*arguments, **keywords):
        calls.append(1)
        if len(calls) == step:
            whole_job = [psutil.Process(), *psutil.Process().children()]
            subprocess.run(["kill", f"-{number}", *(str(process.pid) for process in whole_job)], check=True)
            time.sleep(0.1)  # a worker that dies of it is noticed
        return update(*arguments, **keywords)

    monkeypatch.setattr(loop, "update_policy", asked)
    with pytest.raises(SystemExit) as stopped:
        train(spec, inputs, 0, tmp_path / "resumed", tmp_path / "progress_b", often)
    assert stopped.value.code == 128 + number
    said = f"stopped by {number.name} after step {step}: state saved; the same command goes on from it"
    assert capsys.readouterr().err.splitlines()[-1] == said
    assert signal.getsignal(number) is before
    train(spec, inputs, 0, tmp_path / "resumed", tmp_path / "progress_b", often)
    assert len(calls) == 7
    assert same_weights(tmp_path / "undisturbed", tmp_path / "resumed")


def test_a_state_saved_under_another_spec_is_not_taken_up(experiment, inputs, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    steps = []
    monkeypatch.setattr(loop.Averaged, "write_to_policy", stop)
    load = loop._load_state
    monkeypatch.setattr(loop, "_load_state", lambda *a: steps.append(load(*a)) or steps[-1])
    spec = experiment.train_spec("E0")
    others = spec.model_copy(update={"training": spec.training.model_copy(update={"learning_rate": 1e-4})})
    inputs = TrainInputs(inputs.dataset, inputs.vlm, None, {})
    for changed in (spec, others, spec):
        with pytest.raises(KeyboardInterrupt):
            train(changed, inputs, 0, tmp_path / "checkpoint", tmp_path / "progress", OFTEN)
    assert [step for step, _ in steps] == [0, 0, 7]


def test_options_that_share_a_seed_start_from_the_same_policy_and_see_the_same_noise(
    experiment, inputs, tmp_path, monkeypatch
):
    first = {}

    def keep(tracker, policy, batch, *_, **__):
        draw = torch.get_rng_state()
        weights = {n: p.detach().clone() for n, p in policy.named_parameters() if n.startswith("model.")}
        first[policy.name] = (weights, batch["index"], draw)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "update_policy", keep)
    alone = TrainInputs(inputs.dataset, inputs.vlm, None, {})
    for option, given in (("E0", alone), ("E2", inputs)):
        with pytest.raises(KeyboardInterrupt):
            train(experiment.train_spec(option), given, 3, tmp_path / option, tmp_path / "progress")
    (weights, index, draw), (world_weights, world_index, world_draw) = first["smolvla"], first["smolvla_world"]
    assert weights.keys() == world_weights.keys()
    assert all(torch.equal(weights[name], world_weights[name]) for name in weights)
    assert torch.equal(index, world_index)
    assert torch.equal(draw, world_draw)


def test_a_blind_option_keeps_its_blindfold_in_the_checkpoint(experiment, inputs, tmp_path):
    train(
        experiment.train_spec("S0"),
        TrainInputs(inputs.dataset, inputs.vlm, None, {}),
        0,
        tmp_path / "S0",
        tmp_path / "p",
    )
    steps = [step["registry_name"] for step in read_json(tmp_path / "S0/policy_preprocessor.json")["steps"]]
    assert steps[0] == "blank_images"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latents": {}}, "option E2 needs the latents of"),
        ({"latents": {"wrist": Path("x")}}, "option E2 needs the latents of"),
        ({"encoder": None}, "--encoder is missing"),
    ],
)
def test_missing_inputs_are_refused_before_anything_is_built(experiment, inputs, tmp_path, change, message):
    fields = {name: getattr(inputs, name) for name in ("dataset", "vlm", "encoder", "latents")} | change
    with pytest.raises(ValueError, match=message):
        train(experiment.train_spec("E2"), TrainInputs(**fields), 0, tmp_path / "checkpoint", tmp_path / "progress")


def test_a_training_asks_for_what_takes_long_once(experiment, inputs, tmp_path, monkeypatch):
    calls = Counter()

    def count(module, name):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, **k: calls.update([name]) or function(*a, **k))

    for name in ("dataset_fingerprint", "episode_bounds"):
        count(loop, name)
    monkeypatch.setattr(loop.VideoEncoder, "load", lambda *_: calls.update(["load the encoder"]))
    train(experiment.train_spec("E2"), inputs, 0, tmp_path / "checkpoint", tmp_path / "progress")
    assert calls == {"dataset_fingerprint": 1, "episode_bounds": 1}  # of three episodes


def test_an_update_reads_no_world_value_that_nobody_logs(experiment, inputs, tmp_path, monkeypatch):
    logs, forward = [], modeling.SmolVLAWorldPolicy.forward

    def kept(policy, *arguments):
        loss, log = forward(policy, *arguments)
        logs.append((policy.training, "copy_last" in log))
        return loss, log

    monkeypatch.setattr(modeling.SmolVLAWorldPolicy, "forward", kept)
    train(experiment.train_spec("E2"), inputs, 0, tmp_path / "checkpoint", tmp_path / "progress")
    assert Counter(logs) == {(True, False): 7, (False, True): 4}


def test_latents_of_another_camera_are_refused(experiment, inputs, tmp_path):
    swapped = TrainInputs(inputs.dataset, inputs.vlm, inputs.encoder, {"wrist": inputs.latents["front"]})
    with pytest.raises(ValueError, match=r"image_key is 'observation\.images\.image', expected"):
        train(experiment.train_spec("A"), swapped, 0, tmp_path / "checkpoint", tmp_path / "progress")


# ---- precision ------------------------------------------------------------------------------------------------------


@pytest.fixture
def train_in(experiment, inputs, tmp_path):
    """Train E2 in a precision and read its weights; a process keeps the precision it began with, so it is forgotten."""

    def run(precision, name):
        spec = experiment.train_spec("E2")
        spec = spec.model_copy(update={"training": spec.training.model_copy(update={"precision": precision})})
        AcceleratorState._reset_state(reset_partial_state=True)
        train(spec, inputs, 0, tmp_path / name, tmp_path / f"progress_{name}", OFTEN)
        return load_file(tmp_path / name / "model.safetensors"), read_json(tmp_path / name / "training.json")["metrics"]

    yield run
    AcceleratorState._reset_state(reset_partial_state=True)


def test_bfloat16_changes_the_products_and_keeps_float32_weights_averages_and_world_loss(train_in, monkeypatch):
    seen = {"means": set(), "products": set(), "losses": set()}
    average, loss = loop.Averaged.update, modeling.world_loss

    def averaged(averages):
        average(averages)
        seen["means"] |= {mean.dtype for mean in averages.mean}

    def world_loss(predicted, target, valid, reduction="mean"):
        found = loss(predicted, target, valid, reduction)
        if torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                assert torch.equal(found, loss(predicted, target, valid, reduction))
            seen["losses"] |= {predicted.dtype, target.dtype, found.dtype}
            seen["products"].add((predicted.flatten(1)[:, :8] @ target.flatten(1)[:, :8].T).dtype)
        return found

    monkeypatch.setattr(loop.Averaged, "update", averaged)
    monkeypatch.setattr(modeling, "world_loss", world_loss)
    weights, metrics = train_in("bf16", "half")
    assert seen == {"means": {torch.float32}, "products": {torch.bfloat16}, "losses": {torch.float32}}
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert all(weight.isfinite().all() for weight in weights.values())
    full_weights, full_metrics = train_in("fp32", "full")
    assert any(not torch.equal(weights[name], full_weights[name]) for name in weights)
    assert metrics["loss"] == pytest.approx(full_metrics["loss"], rel=0.05)


def test_a_resumed_training_keeps_its_precision(train_in, tmp_path, monkeypatch):
    train_in("bf16", "undisturbed")
    update, calls = loop.update_policy, []

    def interrupted(*arguments, **keywords):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return update(*arguments, **keywords)

    monkeypatch.setattr(loop, "update_policy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_in("bf16", "resumed")
    train_in("bf16", "resumed")
    assert same_weights(tmp_path / "undisturbed", tmp_path / "resumed")
