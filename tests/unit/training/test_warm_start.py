"""A training that starts at a published SmolVLA starts at exactly that policy, in its own units, or not at all."""

import dataclasses
import json
import pickle
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from lerobot.policies.factory import make_pre_post_processors
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from safetensors.torch import load_file, save_file

from lerobot_policy_world_modality.modeling_smolvla_world import WORLD_MODULES
from world_modality import train_llm_vla
from world_modality.artifacts.files import read_json, write_json
from world_modality.artifacts.provenance import read_provenance
from world_modality.artifacts.records import content_sha256
from world_modality.data.dataset import load_dataset
from world_modality.errors import InputError
from world_modality.evaluation.pilot import Pilot
from world_modality.evaluation.rollout import Ask
from world_modality.latents.table import LatentTable
from world_modality.training.loader import FrameBatches
from world_modality.training.loop import TrainInputs, train
from world_modality.training.warm_start import initial_policy, initial_processors, plain_config, world_config

FRONT, WRIST = "observation.images.image", "observation.images.image2"
SIZE, CHUNK = 32, 4
ELSEWHERE = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"  # where a published policy looks for its VLM
MEAN, STD = 5.0, 3.0  # of the published policy's states and actions; the dataset's are about 0 and 1


@pytest.fixture(scope="module")
def published(experiment, folder):
    """A plain smolvla as one is published: weights in mixed precision, its own flags and statistics, a hub's names."""
    path = folder / "published"
    image = PolicyFeature(type=FeatureType.VISUAL, shape=(3, 256, 256))
    config = SmolVLAConfig(
        input_features={
            WRIST: image,  # in an order of its own
            FRONT: image,
            "observation.state": PolicyFeature(type=FeatureType.STATE, shape=(8,)),
        },
        output_features={"action": PolicyFeature(type=FeatureType.ACTION, shape=(7,))},
        device="cpu",
        vlm_model_name=str(folder / "vlm"),
        resize_imgs_with_padding=(SIZE, SIZE),
        num_vlm_layers=0,
        expert_width_multiplier=experiment.policy.expert_width,
        chunk_size=CHUNK,
        n_action_steps=1,
        num_steps=2,
    )
    torch.manual_seed(9)
    policy = SmolVLAPolicy(config)
    policy.model.vlm_with_expert.to(torch.bfloat16)
    policy.save_pretrained(path)
    stats = {
        key: {"mean": torch.full((size,), MEAN), "std": torch.full((size,), STD)}
        for key, size in (("observation.state", 8), ("action", 7))
    }
    for processor in make_pre_post_processors(config, dataset_stats=stats):
        processor.save_pretrained(path)
    edit(path / "config.json", vlm_model_name=ELSEWHERE, load_vlm_weights=True, pretrained_path="lerobot/smolvla_base")
    text = (path / "policy_preprocessor.json").read_text()
    (path / "policy_preprocessor.json").write_text(text.replace(str(folder / "vlm"), ELSEWHERE))
    return path


@pytest.fixture
def copy(published, tmp_path):
    """A published policy that may be tampered with."""
    return shutil.copytree(published, tmp_path / "copy")


@pytest.fixture(scope="module")
def meta(folder):
    return load_dataset(folder / "dataset").meta


def edit(path, **changes):
    path.write_text(json.dumps(read_json(path) | changes))


def warm_spec(experiment, option, **changes):
    """The spec of an option that starts at a published policy."""
    spec = experiment.train_spec(option)
    hub = {"source": "hub", "repo_id": "me/smolvla", "revision": "main"}
    training = spec.training.model_copy(update={"steps": 2})
    return spec.model_copy(update={"policy": spec.policy.model_copy(update=hub | changes), "training": training})


def warm_inputs(folder, published, option):
    latents = {"front": folder / "front.parquet"} if option == "E2" else {}
    encoder = folder / "encoder" if latents else None
    return TrainInputs(folder / "dataset", folder / "vlm", encoder, latents, published)


def warm_policy(experiment, folder, published, meta, option, seed=0):
    spec = warm_spec(experiment, option)
    config, table = plain_config(spec, folder / "vlm", published, meta), None
    if spec.cameras:
        table = LatentTable.open(folder / "front.parquet")
        config = world_config(config, spec, folder / "encoder", table)
    torch.manual_seed(seed)
    policy = initial_policy(config, published, meta)
    if table is not None:
        policy.attach_latents(table)
    return policy


# ---- the policy -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["E0", "E2"])
def test_it_starts_as_the_published_policy_bit_for_bit(experiment, folder, published, meta, option):
    policy = warm_policy(experiment, folder, published, meta, option)
    config = PreTrainedConfig.from_pretrained(published)
    config.vlm_model_name, config.load_vlm_weights = str(folder / "vlm"), False
    reference = SmolVLAPolicy.from_pretrained(published, config=config)
    preprocessor, _ = initial_processors(policy.config, published, meta)
    batch = preprocessor(FrameBatches(load_dataset(folder / "dataset"), CHUNK, cache_frames=True)[[0, 3, 9]])
    noise, time = torch.randn(3, CHUNK, 32), torch.rand(3)
    for it in (policy, reference):
        it.train()
    losses = [it.forward(dict(batch), noise, time)[1]["loss"] for it in (policy, reference)]
    assert losses[0] == losses[1]
    chunks = [it.predict_action_chunk(dict(batch), noise=noise) for it in (policy, reference)]
    assert torch.equal(*chunks)
    assert chunks[0].abs().max() > 0


def test_its_own_flags_are_kept_and_where_it_runs_and_learns_is_ours(experiment, folder, published, meta):
    config = plain_config(warm_spec(experiment, "E0"), folder / "vlm", published, meta)
    assert (config.freeze_vision_encoder, config.train_expert_only, config.num_vlm_layers) == (True, True, 0)
    assert list(config.image_features) == [WRIST, FRONT]
    assert config.vlm_model_name == str(folder / "vlm")
    assert (config.load_vlm_weights, config.push_to_hub, config.pretrained_path) == (False, False, None)
    assert config.n_action_steps == CHUNK
    assert (config.optimizer_lr, config.scheduler_decay_steps) == (experiment.training.learning_rate, 2)


def test_a_world_option_is_the_plain_policy_with_the_world_modality(experiment, folder, published, meta):
    spec = warm_spec(experiment, "E2")
    plain = plain_config(spec, folder / "vlm", published, meta)
    world = world_config(plain, spec, folder / "encoder", LatentTable.open(folder / "front.parquet"))
    assert all(getattr(world, field.name) == getattr(plain, field.name) for field in dataclasses.fields(plain))
    assert world.world_image_keys == [FRONT]


def test_seeds_differ_in_the_world_modality_alone(experiment, folder, published, meta):
    first, again, other = (
        warm_policy(experiment, folder, published, meta, "E2", seed).state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    changed = {name for name in first if not torch.equal(first[name], other[name])}
    assert changed
    assert all(name.startswith(WORLD_MODULES) for name in changed)


def test_weights_stored_in_bfloat16_are_trained_in_float32(experiment, folder, published, meta):
    stored = load_file(published / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16, torch.float32}
    policy = warm_policy(experiment, folder, published, meta, "E0")
    assert {parameter.dtype for parameter in policy.parameters()} == {torch.float32}


def test_a_vlm_that_asks_for_bfloat16_weights_is_refused(experiment, folder, published, meta, tmp_path):
    vlm = shutil.copytree(folder / "vlm", tmp_path / "vlm")
    config = read_json(vlm / "config.json")
    edit(vlm / "config.json", dtype="bfloat16", text_config=config["text_config"] | {"dtype": "bfloat16"})
    config = plain_config(warm_spec(experiment, "E0"), vlm, published, meta)
    with pytest.raises(InputError, match=r"vlm/config\.json: asks for torch\.bfloat16 weights"):
        initial_policy(config, published, meta)


# ---- weights --------------------------------------------------------------------------------------------------------


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


HEAD, BIAS = "model.vlm_with_expert.vlm.lm_head.weight", "model.action_out_proj.bias"
UNFIT = {
    r"1 missing \(model\.action_out_proj\.bias\)": lambda w: w.pop(BIAS),
    r"\d+ missing \(model\.\S+, model\.\S+, model\.\S+, …\)": lambda w: [w.pop(n) for n in list(w) if "lm_expert" in n],
    r"1 unexpected \(normalize_inputs\.mean\)": lambda w: w.update({"normalize_inputs.mean": torch.zeros(8)}),
    r"1 unexpected \(cross_attention\.gate\)": lambda w: w.update({"cross_attention.gate": torch.ones(())}),
    r"1 of another shape \(model\.action_out_proj\.bias\)": lambda w: w.update({BIAS: torch.zeros(5)}),
    r"1 missing \(\S+\); 1 unexpected \(other\)": lambda w: w.update({"other": w.pop(BIAS)}),
}


@pytest.mark.parametrize("message", UNFIT)
@pytest.mark.parametrize("option", ["E0", "E2"])
def test_every_weight_is_accounted_for(experiment, folder, copy, meta, option, message):
    change_weights(copy, UNFIT[message])
    with pytest.raises(InputError, match=rf"model\.safetensors: not the weights of this policy: {message}$"):
        warm_policy(experiment, folder, copy, meta, option)


def tie(monkeypatch):
    """Build policies whose input and output embeddings are one tensor."""
    build = SmolVLAPolicy.__init__

    def tied(policy, *arguments, **keywords):
        build(policy, *arguments, **keywords)
        vlm = policy.model.vlm_with_expert.vlm
        vlm.lm_head.weight = vlm.model.text_model.embed_tokens.weight

    monkeypatch.setattr(SmolVLAPolicy, "__init__", tied)


def test_tied_weights_may_be_stored_once(experiment, folder, copy, meta, monkeypatch):
    tie(monkeypatch)
    change_weights(copy, lambda weights: weights.pop(HEAD))
    vlm = warm_policy(experiment, folder, copy, meta, "E0").model.vlm_with_expert.vlm
    assert vlm.lm_head.weight is vlm.model.text_model.embed_tokens.weight


def test_tied_weights_stored_with_two_values_are_refused(experiment, folder, copy, meta, monkeypatch):
    tie(monkeypatch)
    change_weights(copy, lambda weights: weights[HEAD].add_(1))
    with pytest.raises(InputError, match=r"1 tied to another value"):
        warm_policy(experiment, folder, copy, meta, "E0")


# ---- configuration --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "given", "message"),
    [
        ("hub", False, "policy.source is hub: --policy is missing"),
        ("small", True, r"policy\.source is small: it takes no --policy .*published"),
    ],
)
def test_a_policy_is_given_where_the_config_names_one(experiment, folder, published, tmp_path, source, given, message):
    spec = warm_spec(experiment, "E0", source=source)
    inputs = warm_inputs(folder, published if given else None, "E0")
    with pytest.raises(InputError, match=message):
        train(spec, inputs, 0, tmp_path / "checkpoint", tmp_path / "progress")


def test_sizes_must_be_those_of_the_config_and_all_that_differ_are_named(experiment, folder, copy, meta):
    edit(copy / "config.json", chunk_size=50, num_steps=10, resize_imgs_with_padding=[512, 512], num_vlm_layers=1)
    edit(copy / "config.json", expert_width_multiplier=0.5)
    with pytest.raises(InputError) as error:
        plain_config(warm_spec(experiment, "E0"), folder / "vlm", copy, meta)
    assert str(error.value).endswith(
        "has other sizes than the config: policy.chunk_size 4 (its chunk_size 50), "
        "policy.flow_steps 2 (its num_steps 10), policy.expert_width 0.75 (its expert_width_multiplier 0.5), "
        "vlm.layers 2 (its num_vlm_layers 1), vlm.image_size (32, 32) (its resize_imgs_with_padding (512, 512))"
    )


def change_feature(key, shape=None, name=None, kind="input_features"):
    def change(path):
        features = read_json(path / "config.json")[kind]
        feature = features.pop(key)
        edit(path / "config.json", **{kind: features | {name or key: feature | {"shape": shape or feature["shape"]}}})

    return change


REFUSED = {
    "model.safetensors is missing": lambda path: (path / "model.safetensors").unlink(),
    "policy_postprocessor.json is missing": lambda path: (path / "policy_postprocessor.json").unlink(),
    "is a pi0 policy, expected a plain smolvla": lambda path: edit(path / "config.json", type="pi0"),
    "is a smolvla_world policy, expected": lambda path: edit(path / "config.json", type="smolvla_world"),
    f"sees {FRONT}, observation.images.up, the experiment's image_keys are {FRONT}, {WRIST}": change_feature(
        WRIST, name="observation.images.up"
    ),
    "its observation.state has shape (6,), the dataset's (8,)": change_feature("observation.state", shape=[6]),
    "its observation.state has shape None, the dataset's (8,)": change_feature("observation.state", name="state"),
    "its action has shape (14,), the dataset's (7,)": change_feature("action", shape=[14], kind="output_features"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_policy_made_for_something_else_is_refused(experiment, folder, copy, meta, message):
    REFUSED[message](copy)
    with pytest.raises(InputError) as error:
        plain_config(warm_spec(experiment, "E0"), folder / "vlm", copy, meta)
    assert message in str(error.value)


# ---- training and rollout -------------------------------------------------------------------------------------------


@pytest.fixture
def pilot(experiment, folder, tmp_path):
    """Train an option from a published policy and give the result to a pilot."""

    def make(published, option):
        spec = warm_spec(experiment, option)
        train(spec, warm_inputs(folder, published, option), 0, tmp_path / option, tmp_path / "progress")
        protocol = experiment.rollout_spec(option).protocol
        protocol = protocol.model_copy(
            update={"simulation": protocol.simulation.model_copy(update={"camera_size": SIZE})}
        )
        return Pilot(tmp_path / option, experiment.rollout_spec(option).model_copy(update={"protocol": protocol}), 0)

    return make


def ask():
    images = {camera: np.full((SIZE, SIZE, 3), 100, np.uint8) for camera in ("front", "wrist")}
    seen = SimpleNamespace(state=np.full(8, MEAN + 2 * STD, np.float32), images=images)
    return Ask(3, 0, 0, seen, {camera: np.stack([image] * 7) for camera, image in images.items()})


@pytest.mark.parametrize("option", ["E0", "E2", "S0"])
def test_a_checkpoint_keeps_the_units_of_the_published_policy(published, folder, pilot, tmp_path, option):
    it = pilot(published, option)
    batch = it._batch([ask()])
    torch.testing.assert_close(batch["observation.state"], torch.full((1, 8), 2.0))
    torch.testing.assert_close(it.postprocessor(torch.ones(1, 7)), torch.full((1, 7), MEAN + STD))
    assert (batch[FRONT].max() == 0) == (option == "S0")
    assert it.act([ask()])[0].actions.shape == (2, 7)
    saved = (tmp_path / option / "policy_preprocessor.json").read_text()
    assert str(folder / "vlm") in saved
    assert ELSEWHERE not in saved


def test_empty_cameras_are_nobodys_to_provide(experiment, folder, copy, pilot):
    edit(copy / "config.json", empty_cameras=1)
    policy = pilot(copy, "E2")
    assert "observation.images.empty_camera_0" in policy.policy.config.image_features
    assert policy.view.at(0) == ["front", "wrist"]
    assert np.isfinite(policy.act([ask()])[0].actions).all()


def test_a_checkpoint_says_which_policy_it_started_from(experiment, folder, published, tmp_path, monkeypatch):
    write_json(tmp_path / "spec.json", warm_spec(experiment, "E0").model_dump(mode="json"))
    paths = {"dataset": folder / "dataset", "vlm": folder / "vlm", "policy": published, "spec": tmp_path / "spec.json"}
    flags = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
    monkeypatch.setattr(sys, "argv", ["train", *flags, "--seed", "0", "--output", str(tmp_path / "checkpoint")])
    train_llm_vla.main()
    made_from = {ingredient.role: ingredient.sha256 for ingredient in read_provenance(tmp_path / "checkpoint").inputs}
    assert made_from["policy"] == content_sha256(published)
    assert read_json(tmp_path / "checkpoint/training.json")["inputs"]["policy"] == made_from["policy"]


# ---- processors -----------------------------------------------------------------------------------------------------


def edit_statistics(folder, pattern, change):
    """Change the statistics that a published processor keeps."""
    (path,) = folder.glob(pattern)
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def prefixed(tensors):
    for name in list(tensors):
        tensors[f"so100.buffer.{name}"] = tensors.pop(name)


def renamed(folder):
    path = folder / "policy_preprocessor.json"
    content = read_json(path)
    (step,) = (s for s in content["steps"] if "rename" in s["registry_name"])
    step["config"]["rename_map"] = {WRIST: "observation.images.empty"}
    path.write_text(json.dumps(content))


def statistics(pattern, change):
    return lambda folder: edit_statistics(folder, f"policy_{pattern}*.safetensors", change)


UNNORMALIZED = {
    "other names": (
        statistics("preprocessor", prefixed),
        r"have no mean of observation\.state, so it would not be normalized; they have statistics of so100\.buffer\.",
    ),
    "no statistics of the action": (
        statistics("postprocessor", lambda tensors: [tensors.pop(n) for n in list(tensors) if "action" in n]),
        "have no mean of action, so it would not be normalized",
    ),
    "not a number": (
        statistics("preprocessor", lambda tensors: tensors["observation.state.std"].fill_(float("nan"))),
        r"the std of observation\.state in its processors is not 8 finite numbers",
    ),
    "another width": (
        statistics("postprocessor", lambda tensors: tensors.update({"action.std": torch.ones(6)})),
        "the std of action in its processors is not 7 finite numbers",
    ),
    "a state that does not vary": (
        statistics("preprocessor", lambda tensors: tensors["observation.state.std"][6:7].fill_(0)),
        r"observation\.state\[6\] does not vary; in a rollout it does",
    ),
    "a camera renamed": (renamed, rf"renames {WRIST}, which the policy sees, to observation\.images\.empty"),
}


@pytest.mark.parametrize("what", UNNORMALIZED)
def test_processors_that_would_not_normalize_what_the_policy_sees_are_refused(experiment, folder, copy, meta, what):
    spoil, message = UNNORMALIZED[what]
    spoil(copy)
    config = plain_config(warm_spec(experiment, "E0"), folder / "vlm", copy, meta)
    with pytest.raises(InputError, match=message):
        initial_processors(config, copy, meta)


def test_a_published_policy_is_never_unpickled(experiment, folder, copy, meta, tmp_path):
    """Not its weights, and not the statistics of its processors."""
    mark = tmp_path / "unpickled"

    class Planted:
        def __reduce__(self):
            return Path.touch, (mark,)

    for path in copy.glob("*.safetensors"):
        path.write_bytes(pickle.dumps(Planted()))
    config = plain_config(warm_spec(experiment, "E0"), folder / "vlm", copy, meta)
    for load in (initial_policy, initial_processors):
        with pytest.raises(InputError, match="cannot be read"):
            load(config, copy, meta)
    assert not mark.exists()
