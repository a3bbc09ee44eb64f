"""Checkpoints of a few updates, and pilots that roll them out."""

import pytest

from tests.unit.evaluation.scenes import SIZE
from world_modality.evaluation.pilot import Pilot
from world_modality.training.loop import TrainInputs, train


@pytest.fixture(scope="module")
def checkpoints(experiment, folder, tmp_path_factory):
    """E0, E2 and S0 after a few updates."""
    root = tmp_path_factory.mktemp("checkpoints")
    front = {"front": folder / "front.parquet"}
    for option, latents in (("E0", {}), ("E2", front), ("S0", {})):
        inputs = TrainInputs(folder / "dataset", folder / "vlm", folder / "encoder" if latents else None, latents)
        train(experiment.train_spec(option), inputs, 0, root / option, root / "progress")
    return root


@pytest.fixture
def spec(experiment):
    """Make the spec of an option's rollouts, of scenes."""

    def make(option, horizon=24, memory=None, **protocol):
        spec = experiment.rollout_spec(option)
        simulation = spec.protocol.simulation.model_copy(update={"camera_size": SIZE})
        changes = {"horizon": horizon, "simulation": simulation} | protocol
        changes = {"protocol": spec.protocol.model_copy(update=changes), "memory": memory or spec.memory}
        return spec.model_copy(update=changes)

    return make


@pytest.fixture
def pilot(checkpoints, spec):
    """Make the pilot of an option."""

    def make(option, n_action_steps=2, **changes):
        made = spec(option, n_action_steps=n_action_steps, **changes)
        return Pilot(checkpoints / made.source_option, made, 0)

    return make
