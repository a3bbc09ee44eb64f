"""LeRobot plugin: the policy type `smolvla_world` and the processor step `blank_images`.

LeRobot finds the plugin by the name of its distribution (`lerobot_policy_*`) and imports this module, which registers
both. The policy class itself is imported only when LeRobot builds such a policy.
"""

from .configuration_smolvla_world import SmolVLAWorldConfig, seen_image_keys
from .processor_smolvla_world import BlankImagesProcessorStep, make_smolvla_world_pre_post_processors

__all__ = [
    "BlankImagesProcessorStep",
    "SmolVLAWorldConfig",
    "make_smolvla_world_pre_post_processors",
    "seen_image_keys",
]
