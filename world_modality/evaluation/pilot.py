"""A trained policy at the controls: the next chunk of several episodes at once.

Non-obvious behaviours:
* The policy always computes with batches of one shape, `EvalProtocol.batch_size`, and an episode always has the same
  row in them, whatever else is in the batch; rows that nobody asked for are filled up. In another shape or row the same
  numbers may round otherwise. On a CPU an episode therefore does not depend on its neighbours, nor on how many
  simulators there are; tests hold it to that, bit for bit. No GPU promises as much. The shape is recorded with the
  protocol.
* The flow noise of each chunk comes from its own generator, which is on the CPU whatever the device.
* Between two chunks of an episode nothing is kept in the policy, so episodes can be served in any order. What a memory
  exchanges, the predictions of the episode so far, is kept here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from safetensors import SafetensorError, safe_open
from torch import Tensor

import lerobot_policy_world_modality.modeling_smolvla_world  # noqa: F401 - for source hashes; LeRobot loads it by name
from lerobot_policy_world_modality import SmolVLAWorldConfig, seen_image_keys
from lerobot_policy_world_modality.processor_smolvla_world import insert_blank_images
from lerobot_policy_world_modality.prophet import MEMORIES
from world_modality.artifacts.files import file_sha256
from world_modality.artifacts.records import content_sha256
from world_modality.errors import InputError
from world_modality.evaluation.rollout import Ask, View
from world_modality.examination.attention import AttentionSpec, ChunkAttention
from world_modality.experiment.seeds import memory_seed, noise_seed
from world_modality.experiment.specs import RolloutSpec
from world_modality.experiment.suites import check_demonstrated, suite_instructions
from world_modality.latents.encoder import check_device
from world_modality.training.checkpoint import folders_of, read_training


def check_checkpoint(checkpoint: Path, spec: RolloutSpec, task_id: int, train_seed: int) -> bool:
    """Refuse a folder that is not a checkpoint, or one trained as another option, with another seed or encoder, or
    without demonstrations of the task.

    Returns:
        True if the encoder's files are those that the checkpoint was trained with; False if the policy uses no encoder,
        or still has to check it.

    Raises:
        InputError: something is missing, damaged or different; the message names it.
    """
    trained = read_training(checkpoint)
    try:
        with safe_open(checkpoint / "model.safetensors", "pt"):
            pass
    except SafetensorError as error:
        raise InputError(f"{checkpoint}/model.safetensors: truncated or damaged ({error})") from None
    made, asked = (trained["spec"]["option"], trained["seed"]), (spec.source_option, train_seed)
    if made != asked:
        raise InputError(
            f"{checkpoint}: trained as option {made[0]} with seed {made[1]}, expected {asked[0]} with seed {asked[1]}"
        )
    check_demonstrated(str(checkpoint), trained["instructions"], spec.protocol.simulation.suite, [task_id])
    encoder = folders_of(checkpoint).get("encoder")
    if encoder is None or not MEMORIES[spec.memory].sees:
        return False
    found, expected = content_sha256(encoder), trained["inputs"]["encoder"]
    if found != expected:
        raise InputError(
            f"{encoder}: has content {found[:12]}, but {checkpoint} was trained with an encoder of content "
            f"{str(expected)[:12]}"
        )
    return True


class Chunk(NamedTuple):
    """What a policy answers: the actions to execute (n_action_steps, 7) float32, and what they were made attending to.

    A policy without a world modality attends to nothing.
    """

    actions: np.ndarray
    attention: ChunkAttention | None


class Pilot:
    """A trained policy with its processors, as one option rolls it out on one task.

    Args:
        encoder_is_verified: whether `check_checkpoint` has found the encoder to be the one the policy was trained with.
            If not, the policy hashes the encoder's weights when it loads them.

    Attributes:
        spec: what the option changes, and the protocol it follows.
        checkpoint_sha256: hash of the weights.
    """

    def __init__(self, checkpoint: Path, spec: RolloutSpec, task_id: int, encoder_is_verified: bool = False):
        check_device(spec.device)  # LeRobot would use the CPU instead
        self.spec, self.task_id = spec, task_id
        self.checkpoint_sha256 = file_sha256(checkpoint / "model.safetensors")
        config = PreTrainedConfig.from_pretrained(checkpoint)
        config.device = spec.device
        self._has_world = isinstance(config, SmolVLAWorldConfig)
        if self._has_world:
            config.world_memory = spec.memory
            config.world_window = spec.window or config.world_window
            if spec.rollout_cameras:
                config.world_image_key_rollout = spec.image_keys[spec.rollout_cameras[0]]
        if spec.protocol.n_action_steps > config.chunk_size:
            raise InputError(
                f"n_action_steps {spec.protocol.n_action_steps}: {checkpoint} predicts {config.chunk_size} actions"
            )
        self.policy = get_policy_class(config.type).from_pretrained(checkpoint, config=config)
        self.policy.encoder_is_verified = encoder_is_verified
        self.policy.eval()
        overrides = {"device_processor": {"device": spec.device}}
        self.preprocessor, self.postprocessor = make_pre_post_processors(
            config, pretrained_path=str(checkpoint), preprocessor_overrides=overrides
        )
        if spec.images == "blank":
            insert_blank_images(self.preprocessor)
        self._camera_of = {key: camera for camera, key in spec.image_keys.items()}
        self._instruction = suite_instructions(spec.protocol.simulation.suite)[task_id]
        self._batch_size = spec.protocol.batch_size
        self._foreseen: dict[int, list[Tensor]] = {}  # by initial state: predictions (1, K, D) of the episode so far

    @property
    def view(self) -> View:
        """Which pictures it uses, and when."""
        keys = [] if self.spec.images == "blank" else seen_image_keys(self.policy.config)
        return View(
            cameras=tuple(self._camera_of[key] for key in keys),
            world_cameras=tuple(self._camera_of[key] for key in self._world_keys()),
            world_frames=self._world_frames(),
            n_action_steps=self.spec.protocol.n_action_steps,
        )

    def row_of(self, init_state_id: int) -> int:
        """The row that an episode has in every batch."""
        return init_state_id % self._batch_size

    @torch.no_grad()
    def act(self, asks: Sequence[Ask]) -> list[Chunk]:
        """The next chunk of some episodes, in the order of the asks.

        Episodes whose row in the batch is the same are served one after the other.
        """
        waiting, chunks = list(enumerate(asks)), {}
        while waiting:
            rows = {}
            for place, ask in waiting:
                rows.setdefault(self.row_of(ask.init_state_id), (place, ask))
            waiting = [one for one in waiting if one not in rows.values()]
            predicted = self._predict({row: ask for row, (_, ask) in rows.items()})
            chunks |= {place: predicted[row] for row, (place, _) in rows.items()}
        return [chunks[place] for place in range(len(asks))]

    def _predict(self, asks: dict[int, Ask]) -> dict[int, Chunk]:
        """The chunks of one batch, by row."""
        filled = [asks.get(row) or next(iter(asks.values())) for row in range(self._batch_size)]
        batch, noise, n = self._batch(filled), self._noise(filled), self.spec.protocol.n_action_steps
        if not self._has_world:
            predicted, heard = self.policy.predict_action_chunk(batch, noise=noise), None
        else:
            memory = self._memory(asks, filled)
            with self.policy.listening() as heard:
                predicted = self.policy.chunk_attending_to(memory, batch, noise)
        attention = None if heard is None else ChunkAttention.of(heard, n)
        actions = {row: self.postprocessor(predicted[row, :n]).numpy() for row in asks}
        return {row: Chunk(actions[row], None if attention is None else attention.row(row)) for row in asks}

    def _noise(self, asks: Sequence[Ask]) -> Tensor:
        """Each chunk's flow noise, (B, chunk, action)."""
        config, stream = self.policy.config, self.spec.noise_stream
        shape = (1, config.chunk_size, config.max_action_dim)
        seeds = [noise_seed(self.task_id, ask.init_state_id, ask.chunk, stream=stream) for ask in asks]
        noises = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.cat(noises).to(config.device)

    def _memory(self, asks: dict[int, Ask], filled: Sequence[Ask]) -> Tensor:
        """What each row attends to, (B, K, D): made row by row, with each chunk's own draws."""
        foreseen, memories = self.policy.foresee(self._frames(filled), len(filled)), []
        for row, ask in enumerate(filled):
            own = foreseen[row : row + 1]
            earlier = self._foreseen.get(ask.init_state_id, []) if ask.chunk else []
            draw = torch.Generator().manual_seed(memory_seed(self.task_id, ask.init_state_id, ask.chunk))
            memories.append(self.policy.rollout_memory(own, earlier, draw))
            if self.policy.exchanges and row in asks:
                self._foreseen[ask.init_state_id] = [*earlier, own]
        return torch.cat(memories)

    def _frames(self, asks: Sequence[Ask]) -> dict[str, Tensor]:
        """The last frames of each world camera by image key, (T, B, 3, H, W) uint8."""
        return {
            key: torch.from_numpy(np.stack([ask.frames[self._camera_of[key]] for ask in asks])).permute(1, 0, 4, 2, 3)
            for key in self._world_keys()
        }

    def attention_spec(self, train_seed: int) -> AttentionSpec:
        """What the attention in its chunks is measured on."""
        spec, config, world = self.spec, self.policy.config, self._has_world
        return AttentionSpec(
            option=spec.option,
            where="rollout",
            cameras={camera: spec.image_keys[camera] for camera in spec.rollout_cameras or spec.world_cameras},
            memory=spec.memory,
            denoise_steps=config.num_steps if world else 0,
            heads=config.world_heads if world else 0,
            horizon=config.world_horizon if world else 0,
            actions=spec.protocol.n_action_steps,
            checkpoints={str(train_seed): self.checkpoint_sha256},
        )

    def _batch(self, asks: Sequence[Ask]) -> dict:
        size = self.spec.protocol.simulation.camera_size
        states = np.stack([ask.observation.state for ask in asks])
        batch = {"observation.state": torch.from_numpy(states), "task": [self._instruction] * len(asks)}
        for key in seen_image_keys(self.policy.config):
            if self.spec.images == "blank":
                batch[key] = torch.zeros(len(asks), 3, size, size)
            else:
                images = np.stack([ask.observation.images[self._camera_of[key]] for ask in asks])
                batch[key] = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        return self.preprocessor(batch)

    def _world_keys(self) -> list[str]:
        return self.policy.config.rollout_image_keys if self._has_world and self.policy.watches_world else []

    def _world_frames(self) -> int:
        config = self.policy.config
        return config.world_history + config.world_window - 1 if self._has_world else 0
