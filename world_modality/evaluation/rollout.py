"""Closed-loop evaluation: an episode depends on the policy, the task, the init state and the seeds, and nothing else.

The seeds of an episode follow from its task and initial state (and from the option's noise stream, which differs only
in a calibration). So every option gets the same worlds and the same flow noise, and it does not matter in which order
or in how many jobs the episodes are run. Another device or driver can end an episode differently.

Non-obvious behaviours:
* Cameras are rendered only on steps where their images are used: all of the policy's cameras at the start of a chunk,
  the world cameras on the last `T_ctx + m - 1` steps up to that start, and none on any other step.
* A policy predicts `chunk_size` actions and executes the first `n_action_steps`. The flow noise of each chunk comes
  from its own generator, which is on the CPU whatever the device.
* An episode that crashes says nothing about the policy, so it is tried once more in a fresh simulation. If it crashes
  again, the job fails and writes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from safetensors import SafetensorError, safe_open

import lerobot_policy_world_modality.modeling_smolvla_world  # noqa: F401 - for source hashes; LeRobot loads it by name
from lerobot_policy_world_modality import SmolVLAWorldConfig, seen_image_keys
from lerobot_policy_world_modality.processor_smolvla_world import insert_blank_images
from lerobot_policy_world_modality.prophet import MEMORIES
from world_modality.artifacts.files import atomic_path, file_sha256, write_json
from world_modality.artifacts.records import content_sha256
from world_modality.errors import InputError
from world_modality.evaluation.episodes import (
    Episode,
    episode_of,
    filmed_episodes,
    read_rows,
)
from world_modality.examination.attention import AttentionRecorder, AttentionSpec
from world_modality.experiment.seeds import env_seed, memory_seed, noise_seed
from world_modality.experiment.specs import RolloutSpec
from world_modality.experiment.suites import check_demonstrated
from world_modality.latents.encoder import check_device
from world_modality.simulation.libero import (
    CONTROL_FREQUENCY,
    LiberoSimulation,
    Observation,
    init_state_sha256,
)
from world_modality.simulation.stages import PickupTracker
from world_modality.training.checkpoint import folders_of, read_training

FILMED_EVERY = 2  # control steps; rendering the frames of a video takes longer than everything else in its episode
FILMS = "films.json"


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


class Pilot:
    """A trained policy with its processors, as one option rolls it out.

    Args:
        encoder_is_verified: whether `check_checkpoint` has found the encoder to be the one the policy was trained with.
            If not, the policy hashes the encoder's weights when it loads them.

    Attributes:
        spec: what the option changes, and the protocol it follows.
        checkpoint_sha256: hash of the weights.
    """

    def __init__(self, checkpoint: Path, spec: RolloutSpec, encoder_is_verified: bool = False):
        check_device(spec.device)  # LeRobot would use the CPU instead
        self.spec = spec
        self.checkpoint_sha256 = file_sha256(checkpoint / "model.safetensors")
        config = PreTrainedConfig.from_pretrained(checkpoint)
        config.device = spec.device
        if isinstance(config, SmolVLAWorldConfig):
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
        self.camera_of = {key: camera for camera, key in spec.image_keys.items()}

    def reset(self) -> None:
        self.policy.reset()

    def cameras_at(self, step: int) -> list[str]:
        """The cameras to render at control step `step` of an episode, because their images are used."""
        steps_to_chunk = -step % self.spec.protocol.n_action_steps
        if steps_to_chunk == 0:
            keys = set() if self.spec.images == "blank" else set(seen_image_keys(self.policy.config))
            return sorted(self.camera_of[key] for key in keys | set(self._world_keys()))
        return sorted(self.camera_of[key] for key in self._world_keys() if steps_to_chunk < self._world_frames())

    def observe(self, observation: Observation, task: str) -> None:
        """Take in a step between two chunks; only the world modality uses its images."""
        self.policy.observe_world(self._batch(observation, task))

    @torch.no_grad()
    def act(self, observation: Observation, task: str, seed: int, memory_seed: int) -> np.ndarray:
        """The actions to execute until the next chunk, (n_action_steps, 7) float32.

        Args:
            seed: seed of the chunk's flow noise.
            memory_seed: seed of anything random in the memory that the policy attends to.
        """
        config = self.policy.config
        if isinstance(config, SmolVLAWorldConfig):
            self.policy.draw.manual_seed(memory_seed)
        shape = (1, config.chunk_size, config.max_action_dim)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(config.device)
        actions = self.policy.predict_action_chunk(self._batch(observation, task), noise=noise)  # (1, chunk, 7)
        actions = self.postprocessor(actions[0, : self.spec.protocol.n_action_steps])
        return actions.numpy()

    def attention_recorder(self, task_id: int, train_seed: int) -> AttentionRecorder:
        """A recorder that listens to the world modality while the policy predicts its chunks."""
        spec, config = self.spec, self.policy.config
        world = isinstance(config, SmolVLAWorldConfig)
        attention = AttentionSpec(
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
        return AttentionRecorder(attention, task_id, self.policy.listening if world else None)

    def _batch(self, observation: Observation, task: str) -> dict:
        size = self.spec.protocol.simulation.camera_size
        batch = {"observation.state": torch.from_numpy(observation.state)[None], "task": [task]}
        for key, camera in ((key, self.camera_of[key]) for key in seen_image_keys(self.policy.config)):
            if camera in observation.images:
                batch[key] = torch.from_numpy(observation.images[camera]).permute(2, 0, 1)[None].float() / 255
            elif self.spec.images == "blank":
                batch[key] = torch.zeros(1, 3, size, size)
        return self.preprocessor(batch)

    def _world_keys(self) -> list[str]:
        config = self.policy.config
        if not isinstance(config, SmolVLAWorldConfig) or not self.policy.watches_world:
            return []
        return config.rollout_image_keys

    def _world_frames(self) -> int:
        return self.policy.config.world_history + self.policy.config.world_window - 1


def roll_out(
    pilot: Pilot,
    simulation: LiberoSimulation,
    init_state_id: int,
    init_state: np.ndarray,
    train_seed: int,
    watch: Callable[[], None] | None = None,
    attention: AttentionRecorder | None = None,
) -> Episode:
    """Run one episode until success or the horizon. `watch` is called on every `FILMED_EVERY`th step, for videos."""
    protocol, task = pilot.spec.protocol, simulation.task_description
    seed = env_seed(simulation.task_id, init_state_id)
    noise = partial(noise_seed, simulation.task_id, init_state_id, stream=pilot.spec.noise_stream)
    pilot.reset()
    observation = simulation.reset(seed, init_state, pilot.cameras_at(0))
    tracker = PickupTracker() if simulation.placement else None
    success, step, actions = False, 0, np.empty((0, 7), np.float32)
    while not success and step < protocol.horizon:
        chunk, within = divmod(step, protocol.n_action_steps)
        if within == 0:
            with attention.chunk(step) if attention else nullcontext():
                actions = pilot.act(
                    observation, task, noise(chunk), memory_seed(simulation.task_id, init_state_id, chunk)
                )
        elif pilot.cameras_at(step):
            pilot.observe(observation, task)
        observation, success = simulation.step(actions[within], pilot.cameras_at(step + 1))
        step += 1
        if tracker is not None:
            tracker.update(simulation.pickup_state())
        if watch is not None and step % FILMED_EVERY == 1:
            watch()
    if attention is not None:
        attention.end_episode(init_state_id, step)
    return Episode(
        init_state_id=init_state_id,
        init_state_sha256=init_state_sha256(init_state),
        env_seed=seed,
        noise_seed=noise(),
        train_seed=train_seed,
        success=bool(success),
        steps=step,
        pickup=None if tracker is None else asdict(tracker.progress()),
    )


def record_videos(
    checkpoint: Path,
    spec: RolloutSpec,
    task_id: int,
    blocks: list[Path],
    states: dict[int, np.ndarray],
    size: int,
    folder: Path,
) -> None:
    """Roll out the first success and the first failure once more, and film them.

    `films.json` next to the films says how each episode ended, as evaluated and as filmed. On another device or driver
    an episode can end differently. Such a film is kept, with a warning.

    Raises:
        InputError: there is no such checkpoint, or the blocks are of another option or task.
    """
    rows = read_rows(blocks)
    verified = check_checkpoint(checkpoint, spec, task_id, rows[0]["train_seed"])
    for row in rows:
        if (row["option"], row["task"]) != (spec.option, task_id):
            raise InputError(f"{blocks[0].parent}: holds rollouts of {row['option']} on task {row['task']}")
    pilot = Pilot(checkpoint, spec, verified)
    chosen = filmed_episodes([episode_of(row) for row in rows])
    with (
        atomic_path(folder) as temporary,
        LiberoSimulation(spec.protocol.simulation, task_id) as simulation,
    ):
        temporary.mkdir()
        films = []
        for name, episode in chosen.items():
            frames: list[np.ndarray] = []
            again = roll_out(
                pilot,
                simulation,
                episode.init_state_id,
                states[episode.init_state_id],
                episode.train_seed,
                watch=lambda frames=frames: frames.append(simulation.render("front", size)),
            )
            imageio.mimwrite(temporary / name, frames, fps=CONTROL_FREQUENCY / FILMED_EVERY, macro_block_size=1)
            films.append(_film(name, evaluated=episode, filmed=again))
            if again != episode:
                where = f"{spec.option}, task {task_id}, init state {episode.init_state_id}"
                print(
                    f"warning: {where}: {name} does not show the evaluated episode: evaluated {_ending(episode)}, "
                    f"filmed {_ending(again)}",
                    file=sys.stderr,
                )
        write_json(temporary / FILMS, films)


def _film(name: str, evaluated: Episode, filmed: Episode) -> dict[str, Any]:
    """The entry of one film in `films.json`."""
    return {
        "file": name,
        "init_state_id": evaluated.init_state_id,
        "as_evaluated": filmed == evaluated,
        "evaluated": _ending(evaluated),
        "filmed": _ending(filmed),
    }


def _ending(episode: Episode) -> dict[str, Any]:
    return {"success": episode.success, "steps": episode.steps, "pickup": episode.pickup}
