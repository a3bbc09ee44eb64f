"""What a policy is shown after a control step. Light (no MuJoCo, no torch): both ends of a rollout hold it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from world_modality.experiment.sections import Camera


@dataclass(frozen=True)
class Observation:
    """What a policy sees after one control step.

    Attributes:
        position: of the gripper (3,) [m], as robosuite observes it, as are the next two.
        rotation: of the gripper (4,), a quaternion (x, y, z, w).
        fingers: their positions (2,) [m].
        images: of the cameras asked for: (H, W, 3) uint8.
    """

    position: np.ndarray
    rotation: np.ndarray
    fingers: np.ndarray
    images: dict[Camera, np.ndarray]

    @cached_property
    def state(self) -> np.ndarray:
        """(8,) float32: gripper position [m] 3, axis-angle [rad] 3, finger positions [m] 2, as LeRobot computes it.

        It computes with torch, which a simulator's process does not load.
        """
        import torch
        from lerobot.processor.env_processor import LiberoProcessorStep

        def batched(**arrays: np.ndarray) -> dict[str, torch.Tensor]:
            return {name: torch.from_numpy(array)[None] for name, array in arrays.items()}

        robot = {"eef": batched(pos=self.position, quat=self.rotation), "gripper": batched(qpos=self.fingers)}
        observation = LiberoProcessorStep().observation({"observation.robot_state": robot})
        return observation["observation.state"][0].numpy()
