"""V-JEPA 2 windows: what the published preprocessing gives, never across an episode, each frame decoded once."""

import json
import pickle
import runpy
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from PIL.PngImagePlugin import PngImageFile
from safetensors.torch import save_file
from transformers import AutoVideoProcessor, LlamaConfig, VJEPA2Config, VJEPA2Model

from tests.unit.conftest import INSTRUCTIONS, VECTOR_FEATURES, draw_vectors
from world_modality.artifacts.records import content_sha256
from world_modality.data.dataset import CameraFrames, check_image_key, dataset_fingerprint, load_dataset
from world_modality.data.stored import StoredDataset
from world_modality.errors import InputError
from world_modality.experiment.config import default_config, load_experiment
from world_modality.latents.backbones import build_small_encoder
from world_modality.latents.encoder import VideoEncoder, encode_dataset, encode_episodes
from world_modality.latents.table import LatentTable

REPOSITORY = Path(__file__).resolve().parents[3]
LENGTHS = (1, 5, 12)
KEY = "observation.images.image"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    spec = load_experiment(default_config()).encoder
    folder = tmp_path_factory.mktemp("encoder") / "encoder"
    build_small_encoder(spec, folder)
    return folder


@pytest.fixture(scope="module")
def encoder(folder):
    return VideoEncoder.load(folder)


def moving_images(episode: int) -> np.ndarray:
    """Frames (n, 64, 64, 3) uint8 of random blocks that move to the right."""
    blocks = np.random.default_rng(episode).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = blocks.repeat(8, axis=0).repeat(8, axis=1)
    return np.stack([np.roll(image, 2 * t, axis=1) for t in range(LENGTHS[episode])])


def create_dataset(root: Path, use_videos: bool) -> StoredDataset:
    feature = {"dtype": "video" if use_videos else "image", "shape": (64, 64, 3), "names": ["height", "width", "c"]}
    features = {KEY: feature, "observation.images.image2": feature} | VECTOR_FEATURES
    dataset = LeRobotDataset.create("moving", fps=10, features=features, root=root, use_videos=use_videos)
    draw = np.random.default_rng(0)
    for episode in range(len(LENGTHS)):
        for image in moving_images(episode):
            frame = {KEY: image, "observation.images.image2": 255 - image} | draw_vectors(draw)
            dataset.add_frame(frame | {"task": INSTRUCTIONS[episode % 2]})
        dataset.save_episode()
    dataset.finalize()
    return load_dataset(root)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return create_dataset(tmp_path_factory.mktemp("images") / "moving", use_videos=False)


def as_frames(episode: int) -> torch.Tensor:
    return torch.from_numpy(moving_images(episode)).permute(0, 3, 1, 2)


def random_windows(count: int, window: int, size: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, window, 3, size, size), dtype=torch.uint8, generator=generator)


# ---- one window -----------------------------------------------------------------------------------------------------


def test_a_latent_is_the_mean_token_of_the_published_processor_and_model(folder, encoder):
    windows = random_windows(3, 4)
    processor, model = AutoVideoProcessor.from_pretrained(folder), VJEPA2Model.from_pretrained(folder).eval()
    pixels = processor(list(windows), return_tensors="pt")["pixel_values_videos"]
    with torch.no_grad():
        expected = model.get_vision_features(pixels).mean(1)
    torch.testing.assert_close(encoder.encode(windows), expected, atol=1e-5, rtol=0)


def test_uint8_and_unit_float_frames_give_the_same_latents(encoder):
    windows = random_windows(2, 4)
    latents = encoder.encode(windows)
    assert (latents.shape, latents.dtype) == ((2, encoder.dim), torch.float32)
    assert torch.equal(latents, encoder.encode(windows.float() / 255))


def test_frames_of_another_size_are_resized_whole(encoder):
    windows = random_windows(2, 4)
    large = windows.repeat_interleave(2, -1).repeat_interleave(2, -2)
    changed = large.clone()
    changed[..., :2] = 255 - changed[..., :2]  # only the left border
    assert encoder.encode(large).shape == (2, encoder.dim)
    assert not torch.allclose(encoder.encode(large), encoder.encode(changed), atol=1e-3)


def test_a_window_of_one_frame_is_that_frame_twice(encoder):
    frame = random_windows(2, 1)
    torch.testing.assert_close(encoder.encode(frame), encoder.encode(frame.repeat(1, 2, 1, 1, 1)))


def test_the_order_of_frames_matters(encoder):
    windows = random_windows(1, 4)
    assert not torch.allclose(encoder.encode(windows), encoder.encode(windows.flip(1)), atol=1e-4)


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        (torch.zeros(2, 3, 3, 64, 64), "a window of 3 frames: V-JEPA 2 takes up to 2 or a multiple of 2"),
        (torch.zeros(2, 0, 3, 64, 64), "a window of 0 frames"),
        (torch.zeros(2, 4, 64, 64, 3), r"expected \(N, m, 3, H, W\)"),
        (torch.full((1, 2, 3, 64, 64), 255.0), r"range from 255 to 255, expected \[0, 1\]"),
        (torch.full((1, 2, 3, 64, 64), torch.nan), "range from nan"),
        (torch.zeros(1, 2, 3, 64, 64, dtype=torch.int64), "frames are torch.int64"),
    ],
)
def test_windows_that_would_be_encoded_wrongly_are_refused(encoder, windows, message):
    with pytest.raises(ValueError, match=message):
        encoder.encode(windows)


@pytest.mark.parametrize("window", [1, 4])
def test_in_bfloat16_the_products_are_rounded_and_a_latent_moves_by_less_than_one_percent(folder, encoder, window):
    half, windows = VideoEncoder.load(folder, precision="bf16"), random_windows(8, window)
    found, expected = half.encode(windows), encoder.encode(windows)
    apart = (found - expected).norm(dim=1) / expected.norm(dim=1)
    assert apart.min() > 0
    assert apart.max() < 0.01
    assert found.dtype == torch.float32
    assert {weight.dtype for weight in half.model.parameters()} == {torch.float32}
    assert half.identity() == encoder.identity() | {"precision": "bf16"}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_encoder_keeps_its_precision_whatever_the_caller_computes_in(folder, precision):
    encoder, windows = VideoEncoder.load(folder, precision=precision), random_windows(2, 4)
    with torch.autocast("cpu", torch.bfloat16):
        within = encoder.encode(windows)
    assert torch.equal(within, encoder.encode(windows))


# ---- loading --------------------------------------------------------------------------------------------------------


def test_the_encoder_is_frozen(encoder):
    assert not encoder.model.training
    assert not any(p.requires_grad for p in encoder.model.parameters())


def test_the_identity_names_the_weights_and_no_path(folder, encoder, tmp_path):
    (tmp_path / "encoder").symlink_to(folder)
    moved = VideoEncoder.load(tmp_path / "encoder")
    assert moved.identity() == encoder.identity()
    assert "/" not in encoder.identity()["encoder"]
    assert len(encoder.identity()["encoder_sha256"]) == 64


def test_another_image_size_moves_the_position_codes_along(folder, encoder):
    larger = VideoEncoder.load(folder, image_size=96)
    assert larger.model.encoder.layer[0].attention.grid_size == 6
    assert larger.identity()["image_size"] == 96
    assert larger.identity()["encoder_sha256"] == encoder.identity()["encoder_sha256"]


def test_what_is_no_v_jepa_2_is_refused(folder, tmp_path):
    LlamaConfig().save_pretrained(tmp_path / "llama")
    with pytest.raises(ValueError, match="is a llama, not a V-JEPA 2"):
        VideoEncoder.load(tmp_path / "llama")
    with pytest.raises(ValueError, match="neither a folder nor a hub id"):
        VideoEncoder.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="70 is not a multiple of the patch size 16"):
        VideoEncoder.load(folder, image_size=70)
    with pytest.raises(ValueError, match="precision fp16: an encoder computes in fp32 or bf16"):
        VideoEncoder.load(folder, precision="fp16")


def test_missing_weights_are_not_drawn_at_random(folder, tmp_path):
    model = VJEPA2Model.from_pretrained(folder)
    VJEPA2Config.from_pretrained(folder, num_hidden_layers=5).save_pretrained(tmp_path)
    weights = {name: weight.contiguous() for name, weight in model.state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks weights of V-JEPA 2: encoder\.layer\.4"):
        VideoEncoder.load(tmp_path)


def test_weights_that_the_config_says_nothing_of_are_refused(folder, tmp_path):
    """A config of fewer layers would take a published encoder for a shallower one."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config["num_hidden_layers"] -= 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"its config\.json describes fewer weights than it has: encoder\.layer\."):
        VideoEncoder.load(tmp_path)


class Planted:
    """Unpickled, it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_weights_are_never_unpickled(folder, tmp_path, name):
    downloaded, mark = tmp_path / "encoder", tmp_path / "unpickled"
    shutil.copytree(folder, downloaded, ignore=shutil.ignore_patterns("model.safetensors"))
    with (downloaded / name).open("wb") as file:
        pickle.dump(Planted(mark), file)
    with pytest.raises(InputError, match="its weights cannot be read"):
        VideoEncoder.load(downloaded)
    assert not mark.exists()


# ---- a whole dataset ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 2, 4])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_windows_never_cross_episodes_and_repeat_their_first_frame(encoder, window, batch_size):
    episodes = [as_frames(e) for e in range(len(LENGTHS))]
    encoded = list(encode_episodes(encoder, iter(episodes), window, batch_size))
    assert [len(latents) for latents in encoded] == list(LENGTHS)
    for frames, latents in zip(episodes, encoded, strict=True):
        for t in range(len(frames)):
            window_frames = torch.stack([frames[max(0, t - back)] for back in reversed(range(window))])
            torch.testing.assert_close(latents[t : t + 1], encoder.encode(window_frames[None]), atol=1e-5, rtol=0)


def test_a_dataset_becomes_a_table_of_its_frames(dataset, encoder, tmp_path):
    encode_dataset(dataset, KEY, encoder, 4, 8, tmp_path / "latents.parquet")
    table = LatentTable.open(tmp_path / "latents.parquet", {**encoder.identity(), "window": 4, "image_key": KEY})
    expected = torch.cat(list(encode_episodes(encoder, (as_frames(e) for e in range(len(LENGTHS))), 4, 8)))
    assert torch.equal(table.latents, expected.half())
    assert table.first_row.tolist() == [0] + [1] * 5 + [6] * 12
    assert table.specs[0].dataset_fingerprint == dataset_fingerprint(dataset)


def test_the_same_dataset_gives_the_same_bytes(dataset, encoder, tmp_path):
    for name in ("a.parquet", "b.parquet"):
        encode_dataset(dataset, KEY, encoder, 4, 8, tmp_path / name)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


@pytest.mark.parametrize("use_videos", [False, True])
@pytest.mark.parametrize("image_size", [None, 96])
def test_workers_that_decode_ahead_change_no_bit(folder, tmp_path, use_videos, image_size):
    moving, encoder = create_dataset(tmp_path / "moving", use_videos), VideoEncoder.load(folder, image_size=image_size)
    for workers in (0, 1, 2):
        encode_dataset(moving, KEY, encoder, 4, 8, tmp_path / f"{workers}.parquet", workers=workers)
    alone, *others = ((tmp_path / f"{workers}.parquet").read_bytes() for workers in (0, 1, 2))
    assert others == [alone, alone]


@pytest.mark.parametrize("processors", [1, 3])
def test_a_damaged_image_is_reported_in_the_same_line_by_a_worker(dataset, folder, tmp_path, monkeypatch, processors):
    """Of the images only those at the ends of episodes are decoded when a dataset is opened; frame 3 is not."""
    damaged = shutil.copytree(dataset.root, tmp_path / "damaged")
    (path,) = (damaged / "data").rglob("*.parquet")
    table = pq.read_table(path)
    images = table[KEY].to_pylist()
    images[3]["bytes"] = images[3]["bytes"][:100]
    column = pa.array(images, table.schema.field(KEY).type)
    table = table.set_column(table.schema.get_field_index(KEY), table.schema.field(KEY), column)
    pq.write_table(table, path)
    flags = ["--dataset", damaged, "--encoder", folder, "--output", tmp_path / "latents.parquet", "--image_key", KEY]
    with pytest.raises(SystemExit) as ended:
        precompute(monkeypatch, *flags, "--processors", processors)
    said = str(ended.value)
    assert said.startswith(f"error: damaged: {KEY}: frames 0 to 4 of episode 1 cannot be decoded (")
    assert "\n" not in said
    assert not (tmp_path / "latents.parquet").exists()


def precompute(monkeypatch, *arguments: str | Path) -> None:
    script = REPOSITORY / "scripts" / "precompute_world_latents.py"
    monkeypatch.setattr("sys.argv", [str(script), *map(str, arguments)])
    runpy.run_path(str(script), run_name="__main__")


def test_the_program_writes_the_table_the_library_writes(dataset, folder, encoder, tmp_path, monkeypatch):
    paths = ["--dataset", dataset.root, "--encoder", folder, "--output", tmp_path / "program.parquet"]
    precompute(monkeypatch, *paths, "--image_key", KEY, "--batch_size", 8, "--processors", 2)
    encode_dataset(dataset, KEY, encoder, 4, 8, tmp_path / "library.parquet")
    assert content_sha256(tmp_path / "program.parquet") == content_sha256(tmp_path / "library.parquet")
    assert LatentTable.open(tmp_path / "program.parquet").specs == LatentTable.open(tmp_path / "library.parquet").specs


def test_a_table_says_in_which_precision_it_was_encoded(dataset, folder, tmp_path, monkeypatch):
    paths = ["--dataset", dataset.root, "--encoder", folder, "--output", tmp_path / "latents.parquet"]
    precompute(monkeypatch, *paths, "--image_key", KEY, "--precision", "bf16")
    table = LatentTable.open(tmp_path / "latents.parquet", VideoEncoder.load(folder, precision="bf16").identity())
    with pytest.raises(ValueError, match="precision is 'bf16', expected 'fp32'"):
        table.specs[0].require({"precision": "fp32"}, "latents")


def test_the_program_refuses_an_unknown_camera_before_it_loads_an_encoder(dataset, tmp_path, monkeypatch):
    paths = ["--dataset", dataset.root, "--encoder", tmp_path / "none", "--output", tmp_path / "latents.parquet"]
    with pytest.raises(SystemExit, match=r"error: .*images\.wrist: .*valid: .*image, .*image2"):
        precompute(monkeypatch, *paths, "--image_key", "observation.images.wrist")


def test_each_frame_of_one_camera_is_decoded_once(dataset, monkeypatch):
    decoded, load = [], PngImageFile.load
    monkeypatch.setattr(PngImageFile, "load", lambda self: (decoded.append(self.fp is not None), load(self))[1])
    frames = list(CameraFrames(dataset, "observation.images.image2").episodes())
    assert sum(decoded) == sum(LENGTHS)
    for episode in range(len(LENGTHS)):
        assert torch.equal(frames[episode], 255 - as_frames(episode))


def test_a_video_dataset_gives_the_frames_of_its_episodes(tmp_path):
    dataset = create_dataset(tmp_path / "moving", use_videos=True)
    frames = list(CameraFrames(dataset, KEY).episodes())
    stock = LeRobotDataset("moving", root=dataset.root)
    assert [len(f) for f in frames] == list(LENGTHS)
    for index, frame in enumerate(torch.cat(frames)):  # the same decoder as LeRobot's, on the same frames
        assert torch.equal(frame.float() / 255, stock[index][KEY])


def test_an_unknown_camera_is_refused_with_the_valid_ones(dataset):
    with pytest.raises(ValueError, match=r"images\.wrist: the dataset has no such camera; valid: .*image2"):
        check_image_key(dataset, "observation.images.wrist")


def test_part_of_a_dataset_is_refused(dataset, tmp_path):
    part = shutil.copytree(dataset.root, tmp_path / "part")
    (path,) = (part / "data").rglob("*.parquet")
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(ValueError, match="says 18 frames, its data have 17"):
        load_dataset(part)


def test_a_dataset_without_episodes_is_an_error_and_not_one_episode(dataset, monkeypatch):
    monkeypatch.setattr(dataset.meta, "episodes", None)
    with pytest.raises(ValueError, match="no episode metadata"):
        CameraFrames(dataset, KEY)
