"""Configuration of `smolvla_world`: SmolVLA that attends to a predicted future of what its world cameras see.

Non-obvious behaviours of LeRobot:

* `config.json` in a checkpoint is this dataclass. So it names the encoder, and a local one by its path: build it once
  and leave it in place.
* Command-line overrides are parsed by type: `--policy.world_image_keys='["observation.images.image"]'`.
* A policy with `empty_cameras` lists them among its images, but fills them in itself.
* `input_features` is empty until `make_policy` fills it from the dataset. So `validate_features`, which SmolVLA calls
  when it is built, checks what depends on them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.utils.constants import OBS_IMAGES

from lerobot_policy_world_modality.prophet import MEMORIES
from world_modality.experiment.sections import Precision

PRECISIONS = get_args(Precision)


def seen_image_keys(config: SmolVLAConfig) -> list[str]:
    """Image keys of what a SmolVLA is shown, in its own order: all images but the empty cameras."""
    empty = {f"{OBS_IMAGES}.empty_camera_{i}" for i in range(config.empty_cameras)}
    return [key for key in config.image_features if key not in empty]


@PreTrainedConfig.register_subclass("smolvla_world")
@dataclass
class SmolVLAWorldConfig(SmolVLAConfig):
    """SmolVLA's fields and those of the world modality; sizes default to those of the published V-JEPA 2 ViT-g.

    Attributes:
        world_image_keys: image keys of the cameras whose latents are predicted, in the order of concatenation.
        world_encoder: folder or hub id of the V-JEPA 2 that encodes the cameras at rollout and made the latents.
        world_encoder_revision: hub commit of the encoder; None for a folder.
        world_encoder_sha256: hash of the encoder's weights; training takes it from the latents.
        world_encoder_image_size: side of the square the frames are resized to [px]; training takes it from the latents.
        world_encoder_precision: of the encoder's matrix products, fp32 or bf16; training takes it from the latents. A
            checkpoint that names its encoder's hash but no precision is from before there was a choice: fp32.
        world_window: m, frames in one encoder window [frames].
        world_history: T_ctx, past latents Prophet sees [frames].
        world_horizon: K, future latents Prophet predicts [frames].
        world_latent_dim: width D of the latents, all world cameras together.
        world_prophet_width: width of Prophet's transformer.
        world_prophet_layers: layers of Prophet's transformer.
        world_heads: attention heads of Prophet and of the cross-attention.
        world_loss_weight: lambda_world, weight of the world loss, which is added to the action loss.
        world_memory: what the policy attends to, a key of `lerobot_policy_world_modality.prophet.MEMORIES`.
        world_image_key_rollout: image key of a camera that replaces the one world camera at rollout (a distribution
            shift); None for the camera trained on.
        world_latents: latent tables to train on, one per world image key, in that order; unused at rollout.

    Raises:
        ValueError: a value is impossible; names the field and what is valid.
    """

    world_image_keys: list[str] = field(default_factory=list)
    world_encoder: str = "facebook/vjepa2-vitg-fpc64-256"
    world_encoder_revision: str | None = None
    world_encoder_sha256: str | None = None
    world_encoder_image_size: int | None = None
    world_encoder_precision: str | None = None
    world_window: int = 4
    world_history: int = 4
    world_horizon: int = 8
    world_latent_dim: int = 1408
    world_prophet_width: int = 512
    world_prophet_layers: int = 2
    world_heads: int = 8
    world_loss_weight: float = 0.2
    world_memory: str = "predicted"
    world_image_key_rollout: str | None = None
    world_latents: list[str] = field(default_factory=list)

    def __post_init__(self):
        super().__post_init__()
        self._check_cameras()
        self._check_sizes()
        if self.world_memory not in MEMORIES:
            raise ValueError(f"world_memory is {self.world_memory!r}; valid: {', '.join(MEMORIES)}")
        if self.world_encoder_sha256 and self.world_encoder_precision is None:
            self.world_encoder_precision = "fp32"
        if self.world_encoder_precision not in (None, *PRECISIONS):
            raise ValueError(
                f"world_encoder_precision is {self.world_encoder_precision!r}; valid: {', '.join(PRECISIONS)}"
            )
        if self.world_loss_weight < 0:
            raise ValueError(f"world_loss_weight is {self.world_loss_weight}, below 0")
        visual = self.normalization_mapping.get("VISUAL", NormalizationMode.IDENTITY)
        if visual is not NormalizationMode.IDENTITY:
            raise ValueError(f"normalization_mapping: VISUAL is {visual.value}; the encoder needs IDENTITY pixels")

    @property
    def rollout_image_keys(self) -> list[str]:
        """Image keys of the world cameras at rollout."""
        return [self.world_image_key_rollout] if self.world_image_key_rollout else self.world_image_keys

    def _check_cameras(self) -> None:
        if not self.world_image_keys:
            raise ValueError("world_image_keys is empty: name the image keys of the world cameras")
        if len(set(self.world_image_keys)) != len(self.world_image_keys):
            raise ValueError(f"world_image_keys names a camera twice: {self.world_image_keys}")
        if self.world_image_key_rollout and len(self.world_image_keys) > 1:
            raise ValueError(f"world_image_key_rollout: one camera cannot stand for {len(self.world_image_keys)}")
        cameras, tables = len(self.world_image_keys), len(self.world_latents)
        if tables not in (0, cameras):
            raise ValueError(f"world_latents names {tables} tables for {cameras} world_image_keys")
        if self.world_latent_dim % cameras:
            raise ValueError(f"world_latent_dim {self.world_latent_dim} is not a multiple of {cameras} cameras")

    def _check_sizes(self) -> None:
        sizes = ("window", "history", "horizon", "latent_dim", "prophet_width", "prophet_layers", "heads")
        for name in (f"world_{size}" for size in sizes):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, below 1")
        if self.world_prophet_width % self.world_heads:
            raise ValueError(
                f"world_prophet_width {self.world_prophet_width} is not a multiple of world_heads {self.world_heads}"
            )

    def validate_features(self) -> None:
        """Make SmolVLA's own checks, and check that every world camera is an image of the dataset or environment.

        Raises:
            ValueError: a world image key is not among those images.
        """
        super().validate_features()
        named = {"world_image_keys": self.world_image_keys, "world_image_key_rollout": self.rollout_image_keys}
        for name, keys in named.items():
            for key in keys:
                if key not in self.image_features:
                    raise ValueError(f"{name}: no image {key}; valid: {', '.join(self.image_features)}")
