"""The small networks: loaded as published ones are, the same bytes every time, and trainable by LeRobot's SmolVLA."""

import json
from pathlib import Path

import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.policies.smolvla.processor_smolvla import make_smolvla_pre_post_processors
from transformers import AutoModel, AutoTokenizer, AutoVideoProcessor

from world_modality.artifacts.files import tree_sha256
from world_modality.experiment.config import default_config, load_experiment
from world_modality.latents import backbones

REPOSITORY = Path(__file__).resolve().parents[3]
IMAGE_KEYS = ("observation.images.image", "observation.images.image2")
INSTRUCTION = "pick up the black bowl between the plate and the ramekin and place it on the plate"


@pytest.fixture(scope="module")
def experiment():
    return load_experiment(default_config())


@pytest.fixture(scope="module")
def encoder_folder(experiment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder") / "encoder"
    backbones.build_small_encoder(experiment.encoder, folder)
    return folder


@pytest.fixture(scope="module")
def vlm_folder(experiment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vlm") / "vlm"
    backbones.build_small_vlm(experiment.vlm, folder)
    return folder


@pytest.fixture(scope="module")
def policy(experiment, vlm_folder):
    spec, vlm = experiment.policy, experiment.vlm
    config = SmolVLAConfig(
        vlm_model_name=str(vlm_folder),
        load_vlm_weights=False,
        freeze_vision_encoder=False,
        train_expert_only=False,
        resize_imgs_with_padding=(vlm.image_size, vlm.image_size),
        expert_width_multiplier=spec.expert_width,
        chunk_size=spec.chunk_size,
        n_action_steps=8,
        num_steps=spec.flow_steps,
        device="cpu",
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (8,)),
            **{key: PolicyFeature(FeatureType.VISUAL, (3, 64, 64)) for key in IMAGE_KEYS},
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (7,))},
    )
    torch.manual_seed(0)
    return SmolVLAPolicy(config)


def observation(batch_size: int) -> dict:
    generator = torch.Generator().manual_seed(1)
    batch = {key: torch.rand(batch_size, 3, 64, 64, generator=generator) for key in IMAGE_KEYS}
    return {**batch, "observation.state": torch.zeros(batch_size, 8), "task": [INSTRUCTION] * batch_size}


def test_the_small_encoder_loads_as_published_ones_do(encoder_folder, experiment):
    model = AutoModel.from_pretrained(encoder_folder)
    assert type(model).__name__ == "VJEPA2Model"
    assert model.config.hidden_size == experiment.encoder.hidden_size
    assert not AutoVideoProcessor.from_pretrained(encoder_folder).do_resize


def test_the_same_encoder_spec_gives_the_same_bytes_and_another_seed_gives_others(encoder_folder, experiment, tmp_path):
    torch.rand(3)  # the weights depend on the spec's seed, not on the state of the global generator
    backbones.build_small_encoder(experiment.encoder, tmp_path / "same")
    backbones.build_small_encoder(experiment.encoder.model_copy(update={"seed": 1}), tmp_path / "other")
    assert tree_sha256(tmp_path / "same") == tree_sha256(encoder_folder)
    assert tree_sha256(tmp_path / "other") != tree_sha256(encoder_folder)


def test_building_an_encoder_leaves_the_global_random_state_alone(experiment, tmp_path):
    before = torch.get_rng_state()
    backbones.build_small_encoder(experiment.encoder, tmp_path / "encoder")
    assert torch.equal(before, torch.get_rng_state())


def test_the_same_vlm_spec_gives_the_same_bytes_without_paths(vlm_folder, experiment, tmp_path):
    backbones.build_small_vlm(experiment.vlm, tmp_path / "elsewhere")
    assert tree_sha256(tmp_path / "elsewhere") == tree_sha256(vlm_folder)
    assert not any(str(vlm_folder.parent).encode() in file.read_bytes() for file in vlm_folder.iterdir())


def test_instructions_are_one_token_a_word_and_any_text_survives(vlm_folder):
    tokenizer = AutoTokenizer.from_pretrained(vlm_folder)
    assert len(tokenizer(INSTRUCTION).input_ids) == len(INSTRUCTION.split())
    assert tokenizer.decode(tokenizer("Grasp the Öl-Kanne!\n").input_ids).strip(" ") == "Grasp the Öl-Kanne!\n"


def test_embeddings_are_untied_on_both_levels(vlm_folder):
    config = json.loads((vlm_folder / "config.json").read_text())
    assert config["tie_word_embeddings"] is config["text_config"]["tie_word_embeddings"] is False


def test_smolvla_of_the_default_sizes_has_about_0_7_million_parameters_and_trains_its_vision(policy):
    parameters = sum(p.numel() for p in policy.parameters())
    assert 0.6e6 < parameters < 0.9e6
    assert all(p.requires_grad for p in policy.model.vlm_with_expert.get_vlm_model().vision_model.parameters())


def test_smolvla_trains_and_acts_on_the_small_vlm(policy):
    preprocess, _ = make_smolvla_pre_post_processors(policy.config, dataset_stats=None)
    batch = preprocess({**observation(2), "action": torch.zeros(2, policy.config.chunk_size, 7)})
    loss, _ = policy.forward(batch)
    loss.backward()
    assert torch.isfinite(loss)
    policy.reset()
    assert policy.select_action(preprocess(observation(1))).shape == (1, 7)


def test_a_smolvla_checkpoint_loads_back_equal(policy, tmp_path):
    policy.save_pretrained(tmp_path)
    loaded = SmolVLAPolicy.from_pretrained(tmp_path, strict=True)
    for (name, saved), (_, back) in zip(policy.named_parameters(), loaded.named_parameters(), strict=True):
        assert torch.equal(saved, back), name
