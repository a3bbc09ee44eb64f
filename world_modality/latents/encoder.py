"""V-JEPA 2: load it, encode windows of frames into one latent each, and encode a whole dataset into a latent table.

Recording a table and acting in the simulator both call `VideoEncoder.encode`, so a frame gives the same latent in
both. A window is the `m` frames that end at the frame it describes.

Non-obvious behaviours of transformers' V-JEPA 2:
* `VJEPA2Model.forward` runs the predictor unless called with `skip_predictor=True`.
* Its video processor resizes to 256/224 of the crop and cuts the border away. Here frames are resized to the whole
  square instead, so that a gripper at the border stays visible.
* Position codes are computed from `config.crop_size`, not from the frames. Another image size must be set when the
  model is loaded, or tokens get the positions of other rows. There are no learned positions, so any size works.
* A window shorter than the tubelet (2 frames) is repeated to fill it. A longer one that is not a multiple of it
  silently loses its *last* frames, which are the current ones. `check_window` refuses such windows.
* Missing weights are drawn at random with a warning, and in a checkpoint of another architecture all of them are
  missing. `VideoEncoder.load` refuses both.
* In bf16 the weights stay float32, and autocast rounds them for each batch. Rounding them once would give the same
  latents, half of the memory and, on a GPU that moves 3 TB/s, 2 ms of the 100 or more that a batch of ViT-g takes; but
  then the hash of the weights that were loaded, which distinguishes encoders, could not be computed any more.
  The sums of the layers and the mean over the tokens stay float32, as when V-JEPA 2 was trained.
* The attention is bidirectional, so overlapping windows can share the decoding of frames but no computation after it.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import get_args

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig, VJEPA2Config, VJEPA2Model
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from world_modality.artifacts.provenance import package_versions
from world_modality.data.dataset import CameraFrames, dataset_fingerprint
from world_modality.data.decoding import decoded_episodes
from world_modality.data.stored import StoredDataset
from world_modality.errors import InputError
from world_modality.experiment.sections import Precision
from world_modality.latents.table import LatentSpec, past_rows, write_latents
from world_modality.latents.transfer import Fetching, stack_to_device
from world_modality.progress import Progress

PRECISIONS = get_args(Precision)
POOLING = "mean over all tokens"
ORIENTATION = "as stored in the dataset"


class VideoEncoder:
    """A frozen V-JEPA 2 that turns windows of frames into latents. Make one with `VideoEncoder.load`."""

    def __init__(self, model: VJEPA2Model, name: str, revision: str | None, precision: Precision = "fp32"):
        self.model, self.name, self.revision, self.precision = model, name, revision, precision
        pixels = {"device": model.device, "dtype": torch.float32}
        self._mean = torch.tensor(IMAGENET_DEFAULT_MEAN, **pixels).reshape(3, 1, 1)
        self._std = torch.tensor(IMAGENET_DEFAULT_STD, **pixels).reshape(3, 1, 1)

    @classmethod
    def load(
        cls,
        encoder: str | Path,
        revision: str | None = None,
        device: str | torch.device = "cpu",
        image_size: int | None = None,
        precision: Precision = "fp32",
    ) -> VideoEncoder:
        """Load a V-JEPA 2 from a folder or by its hub id, with weights in float32.

        Args:
            precision: of the matrix products.
            image_size: side of the square the frames are resized to [px]; by default the one it was trained with.

        Raises:
            InputError: `encoder` is neither a folder nor a hub id, cannot be loaded, has another architecture or lacks
                weights; the image size is not a multiple of the patch size; there is no such precision; or the device
                is not available.
        """
        if precision not in PRECISIONS:
            raise InputError(f"precision {precision}: an encoder computes in {' or '.join(PRECISIONS)}")
        check_device(device)
        local = _is_folder(encoder)
        try:
            config = AutoConfig.from_pretrained(encoder, revision=revision)
        except (OSError, ValueError) as error:
            problem = "no V-JEPA 2" if local else "no such folder, and no V-JEPA 2 on the hub"
            raise InputError(f"{encoder}: {problem} ({str(error).partition('\n')[0]})") from error
        if config.model_type != "vjepa2":
            raise InputError(f"{encoder} is a {config.model_type}, not a V-JEPA 2 (vjepa2)")
        config.crop_size = image_size or config.crop_size
        if config.crop_size % config.patch_size:
            raise InputError(f"image size {config.crop_size} is not a multiple of the patch size {config.patch_size}")
        model = _load_weights(encoder, revision, config).to(device)
        return cls(model, Path(encoder).resolve().name if local else str(encoder), revision, precision)

    @property
    def dim(self) -> int:
        """Width D of a latent."""
        return self.model.config.hidden_size

    @property
    def image_size(self) -> int:
        """Side of the square the frames are resized to [px]."""
        return self.model.config.crop_size

    def identity(self) -> dict:
        """The fields of `LatentSpec` that describe this encoder; equal identities mean equal latents."""
        return {
            "encoder": self.name,
            "encoder_revision": self.revision,
            "encoder_sha256": _weights_sha256(self.model),
            "image_size": self.image_size,
            "pooling": POOLING,
            "preprocessing": "whole frame to the square (bilinear, antialiased), ImageNet mean and std",
            "dim": self.dim,
            "precision": self.precision,
        }

    @torch.no_grad()
    def encode(self, windows: Tensor) -> Tensor:
        """Latents of windows, (N, m, 3, H, W) uint8 or float in [0, 1] → (N, D) float32, on the encoder's device.

        Raises:
            InputError: wrong shape, pixels out of range, or m is above the tubelet and not a multiple of it.
        """
        if windows.ndim != 5 or windows.shape[2] != 3:
            raise InputError(f"windows have shape {tuple(windows.shape)}, expected (N, m, 3, H, W)")
        self.check_window(windows.shape[1])
        frames = windows.to(self.model.device).flatten(0, 1)
        pixels = self.preprocess(frames).unflatten(0, windows.shape[:2])
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            tokens = self.model(pixels, skip_predictor=True).last_hidden_state  # (N, tokens, D)
        return tokens.float().mean(1)

    def check_window(self, window: int) -> None:
        """Raise InputError if the encoder would drop frames of a window of `window` frames."""
        tubelet = self.model.config.tubelet_size
        if window < 1 or (window > tubelet and window % tubelet):
            raise InputError(f"a window of {window} frames: V-JEPA 2 takes up to {tubelet} or a multiple of {tubelet}")

    def preprocess(self, frames: Tensor) -> Tensor:
        """(n, 3, H, W) uint8 or float in [0, 1] → (n, 3, S, S) float32, normalized."""
        size = (self.image_size, self.image_size)
        pixels = _unit_range(frames)
        if pixels.shape[-2:] != size:
            pixels = functional.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
        return (pixels - self._mean) / self._std


def check_device(device: str | torch.device) -> None:
    """Raise InputError if `device` is a GPU and none can be used."""
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {device}: no GPU can be used here; valid: cpu")


def _is_folder(encoder: str | Path) -> bool:
    if Path(encoder).is_dir():
        return True
    if re.fullmatch(r"[\w.-]+/[\w.-]+", str(encoder)):
        return False
    raise InputError(f"{encoder}: neither a folder nor a hub id (owner/name)")


def _load_weights(encoder: str | Path, revision: str | None, config: VJEPA2Config) -> VJEPA2Model:
    try:
        model, report = VJEPA2Model.from_pretrained(
            encoder,
            revision=revision,
            config=config,
            dtype=torch.float32,
            attn_implementation="sdpa",
            use_safetensors=True,  # so that no downloaded file is unpickled
            output_loading_info=True,
        )
    except (OSError, SafetensorError) as error:
        raise InputError(f"{encoder}: its weights cannot be read ({str(error).partition('\n')[0]})") from error
    if report["missing_keys"]:
        raise InputError(f"{encoder} lacks weights of V-JEPA 2: {', '.join(sorted(report['missing_keys'])[:3])}, …")
    deeper = sorted(key for key in report["unexpected_keys"] if key.startswith(("encoder.", "vjepa2.encoder.")))
    if deeper:
        raise InputError(f"{encoder}: its config.json describes fewer weights than it has: {', '.join(deeper[:3])}, …")
    return model.eval().requires_grad_(False)


def _weights_sha256(model: VJEPA2Model) -> str:
    """Hash of the weights as loaded: the same from a folder and from the hub, however the files are split."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(weight.shape)}\0".encode())
        digest.update(weight.detach().cpu().contiguous().numpy())
    return digest.hexdigest()


def _unit_range(frames: Tensor) -> Tensor:
    """uint8 or float in [0, 1] → float32 in [0, 1]."""
    if frames.dtype == torch.uint8:
        return frames.float() / 255
    if not frames.dtype.is_floating_point:
        raise InputError(f"frames are {frames.dtype}, expected uint8 or float in [0, 1]")
    low, high = (float(extreme) for extreme in frames.aminmax())
    if not (low >= 0 and high <= 1):
        raise InputError(f"float frames range from {low:g} to {high:g}, expected [0, 1]")
    return frames.float()


# ---- a whole dataset ------------------------------------------------------------------------------------------------


def encode_episodes(
    encoder: VideoEncoder, episodes: Iterable[Tensor], window: int, batch_size: int
) -> Iterator[Tensor]:
    """Latents (n, D) float32 of each episode of frames (n, 3, H, W), one per frame, in order.

    The window of a frame ends at that frame. Where it would begin before the episode, it repeats the episode's first
    frame. Batches run across episodes, so that short ones cost no more than long ones.
    """
    lengths: list[int] = []
    encoded: list[Tensor] = []
    for latents in _encode_batches(encoder, itertools.batched(_windows(episodes, window, lengths), batch_size)):
        encoded.extend(latents)
        while lengths and len(encoded) >= lengths[0]:
            length = lengths.pop(0)
            yield torch.stack(encoded[:length])
            del encoded[:length]


def _encode_batches(encoder: VideoEncoder, batches: Iterable[Sequence[Tensor]]) -> Iterator[Tensor]:
    """Latents (B, D) of each batch of windows (m, 3, H, W), in the host's memory.

    A batch is fetched when the next one has been launched, so that a GPU always has one to work on.
    """
    launched: Fetching | None = None
    for windows in batches:
        before, launched = launched, Fetching(encoder.encode(stack_to_device(windows, encoder.model.device)))
        if before:
            yield before.result()
    if launched:
        yield launched.result()


def _windows(episodes: Iterable[Tensor], window: int, lengths: list[int]) -> Iterator[Tensor]:
    """Each window (m, 3, H, W) of each episode; appends an episode's length to `lengths` before its first window."""
    for frames in episodes:
        lengths.append(len(frames))
        for rows in past_rows(torch.arange(len(frames)), 0, window):
            yield frames[rows]


def encode_dataset(
    dataset: StoredDataset,
    image_key: str,
    encoder: VideoEncoder,
    window: int,
    batch_size: int,
    output: str | Path,
    dataset_revision: str | None = None,
    workers: int = 0,
) -> None:
    """Write the latent table of one camera of a dataset.

    Args:
        workers: processes that decode frames ahead of the encoder; they change no latent.
        dataset_revision: commit of a dataset from the hub; it is recorded in the table.

    Raises:
        InputError: the dataset has no such camera or is not whole, a frame cannot be decoded, or `check_window` refuses
            the window.
    """
    frames = CameraFrames(dataset, image_key)
    encoder.check_window(window)
    spec = LatentSpec(
        dataset=dataset.repo_id,
        dataset_revision=dataset_revision,
        dataset_fingerprint=dataset_fingerprint(dataset),
        **encoder.identity(),
        image_key=image_key,
        window=window,
        orientation=ORIENTATION,
        versions=package_versions("lerobot", "torch", "transformers"),
    )
    progress, done = Progress(f"encode {image_key.rsplit('.')[-1]}", len(dataset)), 0
    with write_latents(output, spec) as table:
        for latents in encode_episodes(encoder, decoded_episodes(frames, workers), window, batch_size):
            table.write_episode(latents)
            done += len(latents)
            progress.update(done)
