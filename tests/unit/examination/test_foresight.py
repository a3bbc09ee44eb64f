"""How well a Prophet predicts: on held-out episodes only, within them, compared with copy-last and the mean change."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from torch.nn.functional import cosine_similarity

from lerobot_policy_world_modality import SmolVLAWorldConfig
from lerobot_policy_world_modality.modeling_smolvla_world import SmolVLAWorldPolicy
from tests.unit.conftest import INSTRUCTIONS, VECTOR_FEATURES, draw_vectors
from world_modality.artifacts.files import write_json
from world_modality.data.dataset import dataset_fingerprint, load_dataset
from world_modality.examination.foresight import PREDICTORS, read_foresight
from world_modality.examination.prophet_quality import measure_foresight, read_checkpoints
from world_modality.experiment.sections import Figures
from world_modality.latents.backbones import build_small_vlm
from world_modality.latents.table import LatentSpec, LatentTable, join_tables, write_latents
from world_modality.report.figures import plot_prophet, save
from world_modality.training.checkpoint import FILES

KEYS = {"front": "observation.images.image", "wrist": "observation.images.image2"}
DIMS = {"front": 4, "wrist": 8}
TASKS, LENGTHS = (0, 1, 0, 1, 0), (7, 6, 5, 1, 4)
HELD_OUT = [3, 4]  # the last episode of each task; one has a single frame, so no future
SIZE, WINDOW, HORIZON = 32, 4, 3


@pytest.fixture(scope="module")
def vlm(experiment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("backbones") / "vlm"
    build_small_vlm(experiment.vlm, folder)
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Five episodes of two tasks, of which only the frames' places in them matter here."""
    folder = tmp_path_factory.mktemp("foresight") / "dataset"
    made = LeRobotDataset.create("local/places", 20, VECTOR_FEATURES, folder, use_videos=False)
    draw = np.random.default_rng(0)
    for task, length in zip(TASKS, LENGTHS, strict=True):
        for _ in range(length):
            made.add_frame(draw_vectors(draw) | {"task": INSTRUCTIONS[task]})
        made.save_episode()
    made.finalize()
    return load_dataset(folder)


@pytest.fixture
def make(vlm, dataset, tmp_path):
    return Maker(vlm, dataset, tmp_path)


class Maker:
    """Writes latent tables and checkpoints by hand."""

    def __init__(self, vlm: Path, dataset: LeRobotDataset, folder: Path):
        self.vlm, self.dataset, self.folder = vlm, dataset, folder

    def table(self, *cameras: str, episodes=None, **changes) -> LatentTable:
        """A table of random latents, or of `episodes` [(n, D)], joined over cameras; `changes` are of its spec."""
        tables = []
        for camera in cameras:
            spec = {"dataset_fingerprint": dataset_fingerprint(self.dataset), "image_key": KEYS[camera]}
            spec |= {"window": WINDOW, "encoder_sha256": "e", "dim": DIMS[camera]} | changes
            rest = {"dataset": "places", "encoder": "small", "image_size": SIZE, "pooling": "mean", "versions": {}}
            rest |= {"preprocessing": "none", "orientation": "upright"}
            rest |= {"dataset_revision": None, "encoder_revision": None}
            with write_latents(self.folder / f"{camera}.parquet", LatentSpec(**rest | spec)) as writer:
                for latents in episodes or random_episodes(spec["dim"]):
                    writer.write_episode(latents)
            tables.append(LatentTable.open(self.folder / f"{camera}.parquet"))
        return join_tables(tables)

    def checkpoint(self, table: LatentTable, seed: int = 0, option: str = "E2", change=None, **fields) -> Path:
        """A policy that predicts no change, and the latent's `change` [standard units] where there is one."""
        folder = self.folder / f"ckpt_{option}" / f"seed_{seed}"
        keys = [spec.image_key for spec in table.specs]
        torch.manual_seed(seed)
        policy = SmolVLAWorldPolicy(self._world_config(keys, table.dim, **fields))
        policy.attach_latents(table)
        if change is not None:
            policy.prophet.head.bias.data.copy_(change)
        policy.save_pretrained(folder)
        cameras = [camera for camera, key in KEYS.items() if key in keys]
        return self.training_record(folder, option, seed, cameras)

    def training_record(
        self, folder: Path, option: str = "E2", seed: int = 0, cameras=("front",), held_out: int = 1, dataset=None
    ) -> Path:
        spec = {"option": option, "cameras": list(cameras), "image_keys": KEYS, "held_out_per_task": held_out}
        inputs = {"dataset": dataset or dataset_fingerprint(self.dataset)}
        for name in FILES:
            (folder / name).touch()
        write_json(folder / "training.json", {"spec": spec, "seed": seed, "inputs": inputs})
        return folder

    def _world_config(self, keys: list[str], dim: int, **fields) -> SmolVLAWorldConfig:
        sizes = {"world_prophet_width": 16, "world_prophet_layers": 1, "world_horizon": HORIZON, "world_window": WINDOW}
        world = {"world_image_keys": keys, "world_latent_dim": dim}
        return SmolVLAWorldConfig(**self.policy_fields(), **world | sizes | fields)

    def policy_fields(self) -> dict:
        images = {key: PolicyFeature(FeatureType.VISUAL, (3, SIZE, SIZE)) for key in KEYS.values()}
        return {
            "vlm_model_name": str(self.vlm),
            "num_vlm_layers": 2,
            "device": "cpu",
            "push_to_hub": False,
            "input_features": {"observation.state": PolicyFeature(FeatureType.STATE, (8,))} | images,
            "output_features": {"action": PolicyFeature(FeatureType.ACTION, (7,))},
        }

    def measure(self, *folders: Path, table: LatentTable, held_out: int = 1, **options):
        return measure_foresight(folders, table, self.dataset, held_out, **options)


def random_episodes(dim: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(dim)
    return [torch.randn(length, dim, generator=generator) for length in LENGTHS]


def steady_episodes(dim: int) -> list[torch.Tensor]:
    """Latents that start anywhere and change by the same amount at every frame: exact in float16."""
    generator = torch.Generator().manual_seed(dim)
    speed = torch.arange(1.0, dim + 1)
    starts = torch.randint(-8, 8, (len(LENGTHS), dim), generator=generator)
    return [start + torch.arange(n)[:, None] * speed for start, n in zip(starts, LENGTHS, strict=True)]


# ---- what is measured -----------------------------------------------------------------------------------------------


def test_an_untrained_prophet_is_exactly_copy_last(make):
    table = make.table("front")
    foresight = make.measure(make.checkpoint(table), table=table)
    view = foresight.overall["front"]
    assert [step.prophet for step in view.steps] == [step.copy_last for step in view.steps]
    assert view.mean.prophet == view.mean.copy_last
    assert not foresight.beats_copy_last
    assert view.episodes_better == 0


def test_cosines_are_of_standardized_latents_within_the_held_out_episodes(make):
    table = make.table("front", episodes=[latents + 20 for latents in random_episodes(4)])
    foresight = make.measure(make.checkpoint(table), table=table)
    mean, std = table.standardization()
    latents = ((table.latents.float() - mean) / std)[-LENGTHS[-1] :]  # of the only held-out episode with a future
    expected = [
        [float(cosine_similarity(latents[t], latents[t + k], dim=0)) for t in range(len(latents) - k)]
        for k in range(1, HORIZON + 1)
    ]
    view = foresight.seeds[0]["front"]
    assert [step.copy_last for step in view.steps] == pytest.approx([sum(row) / len(row) for row in expected])
    pairs = [value for row in expected for value in row]
    assert view.mean.copy_last == pytest.approx(sum(pairs) / len(pairs))


def test_frames_whose_future_would_leave_the_episode_are_not_counted(make):
    table = make.table("front")
    foresight = make.measure(make.checkpoint(table), table=table)
    view = foresight.whole
    assert [(step.k, step.frames) for step in view.steps] == [(1, 3), (2, 2), (3, 1)]
    assert [(e.episode, e.frames) for e in foresight.held_out] == [(3, 1), (4, 4)]
    assert (view.episodes, foresight.training_episodes) == (1, 3)


def test_the_mean_change_foresees_steady_motion_perfectly(make):
    table = make.table("front", episodes=steady_episodes(4))
    view = make.measure(make.checkpoint(table), table=table).whole
    assert [step.mean_delta for step in view.steps] == pytest.approx([1, 1, 1], abs=1e-6)
    assert all(step.copy_last < 0.999 for step in view.steps)


def test_a_prophet_that_foresees_something_beats_copy_last(make):
    table = make.table("front", episodes=steady_episodes(4))
    change = torch.arange(1.0, 5) / table.standardization()[1]  # right for k = 1, better than nothing beyond
    foresight = make.measure(make.checkpoint(table, change=change), table=table)
    assert foresight.whole.steps[0].prophet == pytest.approx(1, abs=1e-6)
    assert foresight.beats_copy_last
    assert not foresight.beats_mean_delta
    assert (foresight.whole.episodes_better, foresight.whole.episodes) == (1, 1)


def test_training_episodes_reach_nothing_but_the_mean_change(make):
    episodes = random_episodes(4)
    table = make.table("front", episodes=episodes)
    checkpoint = make.checkpoint(table, change=torch.ones(4))
    before = make.measure(checkpoint, table=table).whole
    moved = make.table("front", episodes=[-2 * e if n not in HELD_OUT else e for n, e in enumerate(episodes)])
    after = make.measure(checkpoint, table=moved).whole
    for name in ("prophet", "copy_last"):
        assert [getattr(step, name) for step in after.steps] == [getattr(step, name) for step in before.steps]
    assert after.mean.mean_delta != before.mean.mean_delta


def test_held_out_episodes_do_not_reach_the_mean_change(make):
    episodes = steady_episodes(4)
    backward = [e if n not in HELD_OUT else e.flip(0) for n, e in enumerate(episodes)]
    table = make.table("front", episodes=backward)
    view = make.measure(make.checkpoint(table), table=table).whole
    mean, std = table.standardization()
    first, last = backward[-1][0], backward[-1][-1]  # K frames apart
    foreseen = first + HORIZON * torch.arange(1.0, 5)  # the speed of the training episodes
    expected = cosine_similarity((foreseen - mean) / std, (last - mean) / std, dim=0)
    assert view.steps[-1].mean_delta == pytest.approx(float(expected), abs=1e-6)


def test_two_cameras_are_told_apart_and_together(make):
    table = make.table("front", "wrist")
    both = make.measure(make.checkpoint(table, option="C"), table=table)
    assert list(both.overall) == ["front", "wrist", "all"]
    assert both.whole == both.overall["all"]
    for camera in KEYS:
        alone = make.table(camera)
        view = make.measure(make.checkpoint(alone), table=alone).overall[camera]
        assert [step.copy_last for step in both.overall[camera].steps] == [step.copy_last for step in view.steps]
        assert [step.mean_delta for step in both.overall[camera].steps] == [step.mean_delta for step in view.steps]
    assert both.whole.mean.copy_last not in [both.overall[camera].mean.copy_last for camera in KEYS]


def test_several_seeds_are_told_apart_and_averaged(make):
    table = make.table("front")
    folders = [make.checkpoint(table, seed, change=torch.full((4,), float(seed))) for seed in (0, 3)]
    foresight = make.measure(*folders, table=table)
    each = [foresight.seeds[seed]["front"].mean for seed in (0, 3)]
    assert each[0].prophet != each[1].prophet
    assert foresight.whole.mean.prophet == pytest.approx((each[0].prophet + each[1].prophet) / 2)
    assert foresight.seeds[3] == make.measure(folders[1], table=table).overall


def test_batches_change_nothing(make):
    table = make.table("front")
    checkpoint = make.checkpoint(table, change=torch.ones(4))
    whole, batched = (make.measure(checkpoint, table=table, batch_size=n).as_json() for n in (256, 2))
    for step, other in zip(whole["overall"]["front"]["steps"], batched["overall"]["front"]["steps"], strict=True):
        assert step == pytest.approx(other)


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_a_checkpoint_without_a_world_modality_is_refused(make):
    folder = make.folder / "ckpt_E0"
    SmolVLAConfig(**make.policy_fields()).save_pretrained(folder)
    (folder / "model.safetensors").touch()
    make.training_record(folder, "E0", cameras=())
    with pytest.raises(ValueError, match="ckpt_E0: option E0 is a smolvla without a world modality"):
        read_checkpoints([folder])


def test_a_folder_that_is_no_checkpoint_is_refused(make):
    with pytest.raises(ValueError, match=r"config\.json is missing; a checkpoint has"):
        read_checkpoints([make.folder])


def test_no_checkpoint_at_all_is_refused():
    with pytest.raises(ValueError, match="no checkpoints: give the folder of each training seed"):
        read_checkpoints([])


def test_checkpoints_of_two_options_are_refused(make):
    table = make.table("front")
    folders = [make.checkpoint(table, option=option) for option in ("E2", "E1")]
    with pytest.raises(ValueError, match=r"ckpt_E1/seed_0: trained with option 'E1', but .*ckpt_E2/seed_0 with 'E2'"):
        read_checkpoints(folders)


def test_one_training_seed_twice_is_refused(make):
    folder = make.checkpoint(make.table("front"))
    with pytest.raises(ValueError, match="seed_0: a second checkpoint of training seed 0"):
        read_checkpoints([folder, folder])


def test_nothing_held_out_is_refused(make):
    table = make.table("front")
    with pytest.raises(ValueError, match="held_out_per_task 0: hold out at least 1 episode"):
        make.measure(make.checkpoint(table), table=table, held_out=0)


def test_episodes_that_were_trained_on_are_refused(make):
    table = make.table("front")
    checkpoint = make.training_record(make.checkpoint(table), held_out=0)
    with pytest.raises(ValueError, match="ckpt_E2/seed_0: trained with held_out_per_task 0, not 1"):
        make.measure(checkpoint, table=table)


def test_holding_out_every_episode_of_a_task_is_refused(make):
    table = make.table("front")
    checkpoint = make.training_record(make.checkpoint(table), held_out=2)
    with pytest.raises(ValueError, match="task 1 has 2 episodes, of which 2 are held out"):
        make.measure(checkpoint, table=table, held_out=2)


def test_a_horizon_beyond_every_held_out_episode_is_refused(make):
    table = make.table("front")
    checkpoint = make.checkpoint(table, world_horizon=4)
    with pytest.raises(ValueError, match="the longest held-out episode has 4 frames, so at most 3 lie ahead"):
        make.measure(checkpoint, table=table)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_key": KEYS["wrist"]}, "ckpt_E2/seed_0: the latents are of .*image2"),
        ({"window": 2}, "ckpt_E2/seed_0: latents of .*: window is 2, expected 4"),
        ({"encoder_sha256": "f"}, "ckpt_E2/seed_0: latents of .*: encoder_sha256 is 'f', expected 'e'"),
        ({"dim": 6}, "ckpt_E2/seed_0: the latents are 6 wide"),
        ({"dataset_fingerprint": "0"}, "latents of .*: dataset_fingerprint is '0', expected"),
    ],
)
def test_latents_of_something_else_are_refused(make, changes, message):
    checkpoint = make.checkpoint(make.table("front"))
    with pytest.raises(ValueError, match=message):
        make.measure(checkpoint, table=make.table("front", **changes))


def test_a_checkpoint_trained_on_another_dataset_is_refused(make):
    table = make.table("front")
    checkpoint = make.training_record(make.checkpoint(table), dataset="f" * 64)
    with pytest.raises(ValueError, match="seed_0: trained on a dataset with fingerprint ffffffffffff, but"):
        make.measure(checkpoint, table=table)


def test_a_prophet_that_is_not_finite_is_refused(make):
    table = make.table("front")
    checkpoint = make.checkpoint(table, change=torch.full((4,), torch.nan))
    with pytest.raises(ValueError, match=r"seed_0: prophet\.head\.bias is not finite"):
        make.measure(checkpoint, table=table)


# ---- the file and the figure ----------------------------------------------------------------------------------------


@pytest.fixture
def written(make):
    table = make.table("front", "wrist")
    folders = [make.checkpoint(table, seed, "C", torch.full((12,), float(seed))) for seed in (0, 1)]
    foresight = make.measure(*folders, table=table)
    write_json(make.folder / "prophet_C.json", foresight.as_json())
    return make.folder / "prophet_C.json", foresight


def test_a_foresight_is_read_as_it_was_written(written):
    path, foresight = written
    assert read_foresight(path) == foresight
    content = json.loads(path.read_text())
    assert content["beats_copy_last"] == foresight.beats_copy_last
    step = content["seeds"]["1"]["wrist"]["steps"][0]
    assert set(step) == {"k", "frames", *PREDICTORS}


def test_a_foresight_under_another_name_is_refused(written):
    path = written[0].rename(written[0].with_name("prophet_E2.json"))
    with pytest.raises(ValueError, match=r"prophet_E2\.json: holds what prophet_C\.json should hold"):
        read_foresight(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c.pop("horizon"), "horizon: Field required"),
        (lambda c: c["overall"]["front"]["mean"].update(prophet=float("nan")), "mean.prophet: Input should be"),
        (lambda c: c["overall"]["front"]["mean"].update(prophet=1.5), "mean.prophet: Input should be less than"),
        (lambda c: c["overall"]["front"]["steps"].pop(), "front: the steps are not k = 1 to 3"),
        (lambda c: c.update(horizon=10**30), "the steps are not k = 1 to 1000000"),
        (lambda c: c["seeds"]["0"].pop("wrist"), r"views \['all', 'front'\], expected"),
        (lambda c: c["image_keys"].pop("wrist"), "image_keys of"),
        (lambda c: c["overall"]["all"].update(episodes_better=9), "Prophet is better in 9 of 1 episodes"),
    ],
)
def test_a_malformed_foresight_is_refused_in_one_line(written, damage, message):
    path, content = written[0], json.loads(written[0].read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"prophet_C\.json: not a foresight: .*{message}") as caught:
        read_foresight(path)
    assert "\n" not in str(caught.value)


def test_a_missing_foresight_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"prophet_E2\.json: cannot be read"):
        read_foresight(tmp_path / "prophet_E2.json")


def test_the_figure_has_a_panel_per_view_and_the_same_bytes_every_time(written, tmp_path):
    look = Figures(task_colors=["#1f77b4", "#ff7f0e"], pickup_color="#000000")
    figures = [plot_prophet([written[1]], look) for _ in range(2)]
    titles = [axes.get_title().splitlines()[0] for axes in figures[0].axes]
    assert titles == ["C front", "C wrist", "C all"]
    assert [len(axes.lines) for axes in figures[0].axes] == [9, 9, 9]  # three predictions: overall and of two seeds
    paths = [tmp_path / f"{number}.svg" for number in range(2)]
    for figure, path in zip(figures, paths, strict=True):
        save(figure, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
