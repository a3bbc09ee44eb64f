"""Pre- and postprocessing of `smolvla_world`, the same as SmolVLA's, and the step that blinds a policy.

Non-obvious behaviours of LeRobot:

* A pipeline is saved as the registered names of its steps, and any program that has imported the steps can load it.
  `lerobot-eval` imports this package, so a checkpoint whose preprocessor blanks its images stays blind there.
* The state files of a saved pipeline are numbered by the position of their steps. All steps are saved together, so an
  additional one at the start does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from lerobot.configs import PipelineFeatureType, PolicyFeature
from lerobot.policies.smolvla.processor_smolvla import make_smolvla_pre_post_processors
from lerobot.processor import ObservationProcessorStep, PolicyProcessorPipeline, ProcessorStepRegistry
from lerobot.utils.constants import OBS_IMAGES

from .configuration_smolvla_world import SmolVLAWorldConfig


def make_smolvla_world_pre_post_processors(
    config: SmolVLAWorldConfig, dataset_stats: dict[str, dict[str, torch.Tensor]] | None = None
):
    """SmolVLA's pre- and postprocessor. LeRobot finds this function by its name."""
    return make_smolvla_pre_post_processors(config, dataset_stats=dataset_stats)


@dataclass
@ProcessorStepRegistry.register(name="blank_images")
class BlankImagesProcessorStep(ObservationProcessorStep):
    """Blackens every image (`observation.images.*`, any dtype) of an observation."""

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        images = {key: value for key, value in observation.items() if key.startswith(f"{OBS_IMAGES}.")}
        return observation | {key: torch.zeros_like(image) for key, image in images.items()}

    def transform_features(
        self, features: dict[PipelineFeatureType, dict[str, PolicyFeature]]
    ) -> dict[PipelineFeatureType, dict[str, PolicyFeature]]:
        return features


def insert_blank_images(preprocessor: PolicyProcessorPipeline) -> None:
    """Make a preprocessor blank every image before anything else; one that already does so is left as it is."""
    if not any(isinstance(step, BlankImagesProcessorStep) for step in preprocessor.steps):
        preprocessor.steps = [BlankImagesProcessorStep(), *preprocessor.steps]
