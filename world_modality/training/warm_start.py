"""Where a training starts: from weights drawn from its seed, or from a published plain `smolvla` and its processors.

A published policy keeps everything in its configuration that shapes the network, and its sizes must be those of the
experiment's config. A world option is the same plain policy with the world modality added, and the gate at 0.

Non-obvious behaviours of LeRobot and transformers:
* `from_pretrained` is not strict: missing weights stay random, with a logged warning. Here every weight is checked.
* A published config names the policy it was itself trained from (`pretrained_path`), and `make_policy` would load that
  policy instead.
* `num_vlm_layers: 0` means all layers of the VLM: 32 in HuggingFaceVLA/smolvla_libero.
* transformers builds parts of SmolVLA in the dtype that the VLM's `config.json` names. The published VLM names
  bfloat16, in which small updates and averages are rounded away. Weights *stored* in bfloat16 do no harm, because
  float32 can hold them.
* The statistics a policy was trained with are part of it: with another dataset's statistics it acts in other units.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.datasets import LeRobotDatasetMetadata
from lerobot.policies.factory import make_policy, make_pre_post_processors
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.processor import NormalizerProcessorStep, PolicyProcessorPipeline, UnnormalizerProcessorStep
from lerobot.utils.constants import ACTION, OBS_STATE
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig

from lerobot_policy_world_modality import SmolVLAWorldConfig, seen_image_keys
from lerobot_policy_world_modality.modeling_smolvla_world import WORLD_MODULES
from world_modality.artifacts.files import read_json
from world_modality.data.contract import STILL
from world_modality.errors import InputError
from world_modality.experiment.specs import TrainSpec
from world_modality.latents.table import LatentTable
from world_modality.training.checkpoint import require_files

STATISTICS = {
    NormalizationMode.MEAN_STD: ("mean", "std"),
    NormalizationMode.MIN_MAX: ("min", "max"),
    NormalizationMode.QUANTILES: ("q01", "q99"),
    NormalizationMode.QUANTILE10: ("q10", "q90"),
}
PUBLISHED_FILES = ("config.json", "model.safetensors", "policy_preprocessor.json", "policy_postprocessor.json")
SHOWN = 3  # how many names an error message lists for each way in which weights do not fit


# ---- configuration --------------------------------------------------------------------------------------------------


def plain_config(spec: TrainSpec, vlm: Path, published: Path | None, meta: LeRobotDatasetMetadata) -> SmolVLAConfig:
    """The configuration of the policy without its world modality.

    Args:
        vlm: folder of the VLM's config, tokenizer and processor.
        published: folder of the policy to start from, if the spec asks for one.
        meta: metadata of the demonstrations.

    Raises:
        InputError: a published policy is missing, not asked for, incomplete or not a plain `smolvla`, has other sizes,
            or was made for other cameras, states or actions; the message names the offender.
    """
    if (spec.policy.source == "hub") != (published is not None):
        missing = "--policy is missing" if published is None else f"it takes no --policy {published}"
        raise InputError(f"policy.source is {spec.policy.source}: {missing}")
    if published is None:
        config = SmolVLAConfig(
            device=spec.device,
            freeze_vision_encoder=False,  # a small VLM is noise until it is trained
            train_expert_only=False,
            resize_imgs_with_padding=(spec.vlm.image_size, spec.vlm.image_size),
            expert_width_multiplier=spec.policy.expert_width,
            num_vlm_layers=spec.vlm.layers,
            chunk_size=spec.policy.chunk_size,
            n_action_steps=spec.policy.chunk_size,
            num_steps=spec.policy.flow_steps,
        )
    else:
        config = _published_config(published)
        _check_sizes(config, spec, vlm, published)
        _check_features(config, spec, meta, published)
    options = spec.training
    return dataclasses.replace(
        config,
        device=spec.device,
        push_to_hub=False,
        pretrained_path=None,
        pretrained_revision=None,
        vlm_model_name=str(vlm),
        load_vlm_weights=False,
        n_action_steps=config.chunk_size,  # the evaluation decides how many of them are executed
        optimizer_lr=options.learning_rate,
        optimizer_weight_decay=options.weight_decay,
        optimizer_grad_clip_norm=options.grad_clip_norm,
        scheduler_warmup_steps=options.warmup_steps,
        scheduler_decay_steps=options.steps,
        scheduler_decay_lr=options.final_learning_rate,
    )


def world_config(plain: SmolVLAConfig, spec: TrainSpec, encoder: Path, latents: LatentTable) -> SmolVLAWorldConfig:
    """A plain policy's configuration, extended by the option's world modality."""
    world = spec.world
    return SmolVLAWorldConfig(
        **{field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)},
        world_image_keys=[spec.image_keys[camera] for camera in spec.cameras],
        world_encoder=str(encoder),
        world_window=world.window,
        world_history=world.history,
        world_horizon=world.horizon,
        world_latent_dim=latents.dim,
        world_prophet_width=world.prophet_width,
        world_prophet_layers=world.prophet_layers,
        world_heads=world.heads,
        world_loss_weight=world.loss_weight,
        world_memory=spec.memory,
    )


def _published_config(published: Path) -> SmolVLAConfig:
    require_files(published, PUBLISHED_FILES, "a published policy")
    kind = read_json(published / "config.json").get("type")
    if kind != "smolvla":
        raise InputError(f"{published}: is a {kind} policy, expected a plain smolvla (type in config.json)")
    return PreTrainedConfig.from_pretrained(published)


def _check_sizes(config: SmolVLAConfig, spec: TrainSpec, vlm: Path, published: Path) -> None:
    layers = config.num_vlm_layers
    if layers <= 0:
        layers = AutoConfig.from_pretrained(vlm).text_config.num_hidden_layers
    side = (spec.vlm.image_size, spec.vlm.image_size)
    sizes = {
        "policy.chunk_size": (spec.policy.chunk_size, "chunk_size", config.chunk_size),
        "policy.flow_steps": (spec.policy.flow_steps, "num_steps", config.num_steps),
        "policy.expert_width": (spec.policy.expert_width, "expert_width_multiplier", config.expert_width_multiplier),
        "vlm.layers": (spec.vlm.layers, "num_vlm_layers", layers),
        "vlm.image_size": (side, "resize_imgs_with_padding", tuple(config.resize_imgs_with_padding or ())),
    }
    differ = [f"{key} {ours} (its {name} {its})" for key, (ours, name, its) in sizes.items() if ours != its]
    if differ:
        raise InputError(f"{published}: has other sizes than the config: {', '.join(differ)}")


def _check_features(config: SmolVLAConfig, spec: TrainSpec, meta: LeRobotDatasetMetadata, published: Path) -> None:
    """Compare the policy's cameras, state and action with the experiment's: a rollout has these two cameras alone."""
    seen, cameras = sorted(seen_image_keys(config)), sorted(spec.image_keys.values())
    if seen != cameras:
        raise InputError(f"{published}: sees {', '.join(seen)}, the experiment's image_keys are {', '.join(cameras)}")
    for key, feature in ((OBS_STATE, config.robot_state_feature), (ACTION, config.action_feature)):
        its, ours = feature and tuple(feature.shape), tuple(meta.features[key]["shape"])
        if its != ours:
            raise InputError(f"{published}: its {key} has shape {its}, the dataset's {ours}")


# ---- weights and processors -----------------------------------------------------------------------------------------


def initial_policy(config: SmolVLAConfig, published: Path | None, meta: LeRobotDatasetMetadata) -> SmolVLAPolicy:
    """The policy a training starts from, in float32; weights that are not published come from torch's global RNG.

    Raises:
        InputError: the VLM's config asks for weights other than float32, or the published weights are not exactly
            those of the plain policy.
    """
    policy = make_policy(config, ds_meta=meta)
    for dtype in {parameter.dtype for parameter in policy.parameters()} - {torch.float32}:
        raise InputError(
            f"{config.vlm_model_name}/config.json: asks for {dtype} weights, training needs float32 (dtype)"
        )
    if published is not None:
        _load_weights(policy, published / "model.safetensors")
    return policy


def _load_weights(policy: SmolVLAPolicy, path: Path) -> None:
    """Load all of a plain policy's weights and buffers, and nothing else, whatever dtype they are stored in.

    Tied weights share memory, so a file may hold them under only one of their names. If it holds them under several,
    the values must be equal, because the last one read would be used for all. Buffers that are not part of a state dict
    follow from the configuration.
    """
    try:
        stored = load_file(path, device=policy.config.device)
    except SafetensorError as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    wanted = {name: value for name, value in policy.state_dict().items() if not name.startswith(WORLD_MODULES)}
    common = wanted.keys() & stored.keys()
    loaded = {wanted[name].data_ptr() for name in common}
    problems = {
        "missing": [name for name in wanted.keys() - common if wanted[name].data_ptr() not in loaded],
        "unexpected": list(stored.keys() - common),
        "of another shape": [name for name in common if stored[name].shape != wanted[name].shape],
    }
    if not any(problems.values()):
        policy.load_state_dict(stored, strict=False)
        problems["tied to another value"] = [n for n in common if not torch.equal(wanted[n], stored[n].to(wanted[n]))]
    if any(problems.values()):
        raise InputError(f"{path}: not the weights of this policy: {_told(problems)}")


def _told(problems: dict[str, list[str]]) -> str:
    parts = []
    for kind, names in problems.items():
        shown = ", ".join(sorted(names)[:SHOWN]) + (", …" if len(names) > SHOWN else "")
        parts += [f"{len(names)} {kind} ({shown})"] if names else []
    return "; ".join(parts)


def initial_processors(
    config: SmolVLAConfig, published: Path | None, meta: LeRobotDatasetMetadata
) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]:
    """Pre- and postprocessor: the published policy's own, with its statistics, or new ones with the dataset's."""
    if published is None:
        return make_pre_post_processors(config, dataset_stats=meta.stats)
    here = {
        "device_processor": {"device": config.device},
        "tokenizer_processor": {"tokenizer_name": config.vlm_model_name},
    }
    try:
        processors = make_pre_post_processors(config, pretrained_path=str(published), preprocessor_overrides=here)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{published}: its processors cannot be read ({reason})") from error
    _check_processors(*processors, config, published)
    return processors


def _check_processors(
    preprocessor: PolicyProcessorPipeline,
    postprocessor: PolicyProcessorPipeline,
    config: SmolVLAConfig,
    published: Path,
) -> None:
    """Check that published processors pass every feature on, and have the statistics that normalize it.

    LeRobot says nothing where they do not: a feature without statistics stays in raw units, and an image under another
    name is not seen.
    """
    renamed = {old: new for step in preprocessor.steps for old, new in getattr(step, "rename_map", {}).items()}
    for old, new in renamed.items():
        if old in config.input_features and new != old:
            raise InputError(
                f"{published}: its preprocessor renames {old}, which the policy sees, to {new} (rename_map)"
            )
    for pipeline, key in ((preprocessor, OBS_STATE), (postprocessor, ACTION)):
        feature = (config.input_features | config.output_features)[key]
        mode = config.normalization_mapping.get(feature.type.value, NormalizationMode.IDENTITY)
        if mode != NormalizationMode.IDENTITY:
            _check_statistics(pipeline, key, feature.shape[0], STATISTICS[mode], published)


def _check_statistics(
    pipeline: PolicyProcessorPipeline, key: str, width: int, names: tuple[str, str], published: Path
) -> None:
    stored: dict[str, Tensor] = {}
    for step in pipeline.steps:
        stored |= step.state_dict() if isinstance(step, NormalizerProcessorStep | UnnormalizerProcessorStep) else {}
    for name in names:
        value = stored.get(f"{key}.{name}")
        if value is None:
            features = sorted({other.rpartition(".")[0] for other in stored})
            raise InputError(
                f"{published}: its processors have no {name} of {key}, so it would not be normalized; they have "
                f"statistics of {', '.join(features) or 'nothing'}"
            )
        if value.shape != (width,) or not value.isfinite().all():
            raise InputError(f"{published}: the {name} of {key} in its processors is not {width} finite numbers")
    low, high = (stored[f"{key}.{name}"] for name in names)
    still = (high if names[1] == "std" else high - low) < STILL
    if key == OBS_STATE and still.any():
        at = int(still.int().argmax())
        raise InputError(
            f"{published}: by the statistics of its processors, {key}[{at}] does not vary; in a rollout it does, and "
            "its difference would be divided by 1e-8"
        )
