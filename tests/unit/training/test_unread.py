"""An update leaves its values on the device: it reads none, and a loss that is not finite is still found in time."""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from world_modality.artifacts.files import read_json
from world_modality.training import loop
from world_modality.training.loop import Running, TrainInputs, train
from world_modality.training.unread import Losses, Whole

# Operators that a GPU would have to finish before the host goes on, because a value or a shape depends on theirs, and
# what of Tensor's methods needs the values in Python.
WAITING = {"aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.unique_dim", "aten._unique2"}
READING = ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__", "__array__", "__format__")


ON_THE_HOST = ("sample_beta",)
OURS = ("count", "__torch_dispatch__", "__torch_function__")


class Reads(TorchDispatchMode):
    """Counts reads of values, by what reads them.

    Left out is what never leaves the host: the numbers of frames (int64), and the times of the flow, which LeRobot
    draws there.
    """

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        name = str(function.overloadpacket)
        indices = [i for i in arguments[1] if i is not None] if name.startswith("aten.index") else []
        masks = [index for index in indices if isinstance(index, torch.Tensor) and index.dtype == torch.bool]
        to_host = name == "aten._to_copy" and str((keywords or {}).get("device")) == "cpu"
        if name in WAITING or masks or to_host:
            self.count(name, (masks or arguments)[0])
        return function(*arguments, **keywords or {})

    def count(self, name, tensor):
        stack = [f for f in traceback.extract_stack() if f.name not in OURS and "/torch/" not in f.filename]
        if tensor.dtype != torch.int64 and stack[-1].name not in ON_THE_HOST:
            caller = stack[-1]
            self.found[f"{name} at {caller.filename}:{caller.lineno}"] += 1


class ReadsInPython(TorchFunctionMode):
    """Counts calls of methods that read values; on a CPU most of them are no operator."""

    def __init__(self, reads):
        super().__init__()
        self.reads, self.methods = reads, {getattr(torch.Tensor, name): name for name in READING}

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        if function in self.methods:
            self.reads.count(self.methods[function], arguments[0])
        return function(*arguments, **keywords or {})


@contextlib.contextmanager
def counted_reads():
    with Reads() as reads, ReadsInPython(reads):
        yield reads.found


@pytest.mark.parametrize(
    "read",
    [
        lambda t: t.item(),
        lambda t: t.tolist(),
        lambda t: t.cpu(),
        lambda t: t.to("cpu", copy=True),
        lambda t: t.numpy(),
        float,
        bool,
        lambda t: f"{t:.3f}",
        lambda t: t.nonzero(),
        lambda t: t.reshape(1)[t.reshape(1) > 0],
        lambda t: torch.nn.utils.clip_grad_norm_([with_gradient(t)], 1.0, error_if_nonfinite=True),
    ],
)
def test_the_count_sees_every_way_to_read_a_value(read):
    with counted_reads() as found:
        read(torch.tensor(1.0))
    assert found.total() > 0


def with_gradient(tensor):
    tensor.grad = torch.ones_like(tensor)
    return tensor


def test_the_count_sees_nothing_in_work_alone():
    with counted_reads() as found:
        weights = torch.ones(2, 3, requires_grad=True)
        torch.where((weights @ weights.T).isfinite(), 0.0, 1.0).sum()
        (weights.square().mean() * 2).backward()
        torch.optim.AdamW([weights], fused=True).step()
    assert not found


@pytest.fixture
def reads_by_update(experiment, inputs, tmp_path, monkeypatch):
    """reads_by_update(option): what is read between the ends of one update and the next, for each pair of them."""

    def run(option):
        average, before, steps = loop.Averaged.update, Counter(), []

        def noted(averages):
            average(averages)
            steps.append(found - before)
            before.update(found - before)

        monkeypatch.setattr(loop.Averaged, "update", noted)
        given = inputs if option == "E2" else TrainInputs(inputs.dataset, inputs.vlm, None, {})
        with counted_reads() as found:
            train(experiment.train_spec(option), given, 0, tmp_path / option, tmp_path / "progress", Running(100))
        return steps

    return run


@pytest.mark.parametrize("option", ["E0", "E2"])
def test_an_update_reads_no_value(reads_by_update, option):
    _, *steps = reads_by_update(option)
    progress = steps.pop(0)  # a line is printed after the first update
    assert len(steps) == 5
    assert progress.total() == 1
    assert steps == [Counter()] * 5


def test_a_whole_mask_does_what_a_mask_of_ones_does():
    mask, whole = torch.ones(2, 3, dtype=torch.bool), Whole.of_shape((2, 3), torch.device("cpu"))
    values = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(values[whole], values[mask])
    target = torch.zeros(2, 3)
    target[whole.view(2, -1)] = values[mask]
    assert torch.equal(target, values)
    assert whole.all() is True
    assert torch.equal(whole[:, 0].sum(), mask[:, 0].sum())
    assert type(whole[:, 0]) is torch.Tensor
    with counted_reads() as found:
        values[whole]
    assert not found


def test_a_loss_that_is_not_finite_ends_the_training_and_is_in_no_saved_state(
    experiment, inputs, tmp_path, monkeypatch
):
    update, calls = loop.update_policy, []

    def spoiled(tracker, policy, batch, *arguments, **keywords):
        calls.append(1)
        if len(calls) == 4:
            batch["action"][0] = torch.nan
        return update(tracker, policy, batch, *arguments, **keywords)

    monkeypatch.setattr(loop, "update_policy", spoiled)
    alone = TrainInputs(inputs.dataset, inputs.vlm, None, {})
    with pytest.raises(FloatingPointError, match="E0: the loss of step 4 is nan"):
        train(experiment.train_spec("E0"), alone, 0, tmp_path / "E0", tmp_path / "progress", Running(save_every=3))
    [state] = (tmp_path / "progress").rglob("state.pt")
    assert torch.load(state, weights_only=True)["step"] == 3
    assert not (tmp_path / "E0").exists()


def test_a_world_memory_that_is_not_finite_makes_the_loss_so(experiment, inputs, tmp_path, monkeypatch):
    memory = loop.SmolVLAWorldPolicy.memory_from

    def spoiled(policy, sources):
        return memory(policy, sources).index_fill(0, torch.tensor([0]), torch.inf)

    monkeypatch.setattr(loop.SmolVLAWorldPolicy, "memory_from", spoiled)
    with pytest.raises(FloatingPointError, match="E2: the loss of step 1 is nan"):
        train(experiment.train_spec("E2"), inputs, 0, tmp_path / "E2", tmp_path / "progress")


def test_unread_losses_are_those_that_lerobot_would_read(experiment, inputs, tmp_path, monkeypatch):
    """Reading every value, as LeRobot does, gives the same losses and the same weights."""
    kept, weights = {}, {}
    for name in ("unread", "read"):
        with monkeypatch.context() as patch:
            losses = kept[name] = []
            add = Losses.add
            patch.setattr(
                Losses, "add", lambda self, loss, add=add, to=losses: to.append(float(loss)) or add(self, loss)
            )
            if name == "read":
                patch.setattr(loop, "unread", lambda _: contextlib.nullcontext())
                patch.setattr(loop, "UnreadAccelerator", loop.UnreadAccelerator.__base__)
                patch.setattr(Losses, "add", lambda self, loss, to=losses: to.append(loss))
            train(experiment.train_spec("E2"), inputs, 0, tmp_path / name, tmp_path / f"progress_{name}")
        weights[name] = load_file(tmp_path / name / "model.safetensors")
    assert kept["unread"] == kept["read"]
    assert all(torch.equal(weights["read"][name], weight) for name, weight in weights["unread"].items())
    metrics = [read_json(tmp_path / name / "training.json")["metrics"] for name in ("unread", "read")]
    assert metrics[0] == metrics[1]


def test_losses_are_read_at_once_and_the_first_that_is_not_finite_is_named():
    losses = Losses("E0", step=10)
    for value in (3.0, 2.0):
        losses.add(torch.tensor(value))
    assert losses.last() == 2.0
    assert losses.last() == 2.0
    for value in (1.0, torch.inf, torch.nan):
        losses.add(torch.tensor(value))
    with pytest.raises(FloatingPointError, match="E0: the loss of step 14 is inf"):
        losses.last()
