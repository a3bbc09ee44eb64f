"""A dataset that would train well and fail in the simulator, or silently train in other units, is refused."""

import json
import os
import shutil

import imageio.v3 as imageio
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from tests.unit.conftest import FPS, FRONT, INSTRUCTIONS, SIZE, VECTOR_FEATURES, draw_vectors
from world_modality.data.dataset import CameraFrames, load_dataset
from world_modality.errors import InputError


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder / "dataset", tmp_path / "dataset")


def edit_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_rows(dataset, key, change):
    """Change a column of vectors, in place, and the statistics with it."""
    (path,) = (dataset / "data").rglob("*.parquet")
    table = pq.read_table(path)
    values = np.stack(table[key].to_numpy()).astype(np.float32)
    change(values)
    column = table.schema.get_field_index(key)
    kind = table.schema.field(key).type
    table = table.set_column(column, table.schema.field(key), pa.array(list(values), type=kind))
    pq.write_table(table, path)
    ours = {"mean": values.mean(axis=0).tolist(), "std": values.std(axis=0).tolist()}
    edit_json(dataset / "meta/stats.json", lambda stats: stats[key].update(ours))


def truncate_image(dataset, row):
    (path,) = (dataset / "data").rglob("*.parquet")
    table = pq.read_table(path)
    images = table[FRONT].to_pylist()
    images[row]["bytes"] = images[row]["bytes"][:100]
    column = table.schema.get_field_index(FRONT)
    pq.write_table(
        table.set_column(column, table.schema.field(FRONT), pa.array(images, table.schema.field(FRONT).type)), path
    )


def edit_instructions(dataset, change):
    tasks = pd.read_parquet(dataset / "meta/tasks.parquet")
    tasks.rename(index=change).to_parquet(dataset / "meta/tasks.parquet")


def statistics(change):
    return lambda dataset: edit_json(dataset / "meta/stats.json", change)


def rows(key, change):
    return lambda dataset: edit_rows(dataset, key, change)


def feature(key, **changes):
    return lambda dataset: edit_json(dataset / "meta/info.json", lambda info: info["features"][key].update(changes))


def edit_episodes(change):
    def spoil(dataset):
        (path,) = (dataset / "meta/episodes").rglob("*.parquet")
        change(pd.read_parquet(path)).to_parquet(path)

    return spoil


def info(**changes):
    return lambda dataset: edit_json(dataset / "meta/info.json", lambda content: content.update(changes))


def give_two_tasks_one_index(dataset):
    tasks = pd.read_parquet(dataset / "meta/tasks.parquet")
    tasks.assign(task_index=0).to_parquet(dataset / "meta/tasks.parquet")


def rename(old, new):
    def change(info):
        info["features"] = {new if key == old else key: value for key, value in info["features"].items()}

    return change


def set_value(at, value):
    def change(values):
        values[at] = value

    return change


REFUSED = {
    "no statistics": (
        lambda dataset: (dataset / "meta/stats.json").unlink(),
        "has no statistics of observation.state; without them it is not normalized",
    ),
    "statistics without the action": (
        statistics(lambda stats: stats.pop("action")),
        "has no statistics of action; without them it is not normalized",
    ),
    "statistics without a deviation": (
        statistics(lambda stats: stats["action"].pop("std")),
        "has no std of action; without it, action is not normalized",
    ),
    "statistics of another width": (
        statistics(lambda stats: stats["action"].update(mean=[0.0] * 6)),
        "the mean of action has 6 values, action has 7",
    ),
    "statistics that are not numbers": (
        statistics(lambda stats: stats["observation.state"].update(std=[float("nan")] * 8)),
        r"the std of observation\.state\[0\] is nan, that of the frames 0\.",
    ),
    "statistics of other data": (
        statistics(lambda stats: stats["observation.state"].update(mean=[3.0] * 8)),
        r"the mean of observation\.state\[0\] is 3, that of the frames",
    ),
    "statistics that are words": (
        statistics(lambda stats: stats["action"].update(std=["a"] * 7)),
        "the std of action is not of numbers",
    ),
    "statistics that are a list": (
        lambda dataset: (dataset / "meta/stats.json").write_text("[]"),
        "not a whole LeRobotDataset",
    ),
    "more episodes than there are": (info(total_episodes=4), "says 4 episodes, meta/episodes has 3"),
    "more frames than there are": (info(total_frames=16), "says 16 frames, its data have 15"),
    "a rate in words": (info(fps="20"), "not a whole LeRobotDataset"),
    "episodes out of order": (
        edit_episodes(lambda table: table.iloc[::-1]),
        "has episode 0 from frame 6 to 15; expected one or more frames from 0 on",
    ),
    "an empty episode": (
        edit_episodes(lambda table: table.assign(dataset_from_index=[0, 0, 6], dataset_to_index=[0, 6, 15])),
        "has episode 0 from frame 0 to 0",
    ),
    "episodes without their place": (
        edit_episodes(lambda table: table.drop(columns="dataset_from_index")),
        "not a whole LeRobotDataset .*dataset_from_index",
    ),
    "two tasks of one index": (give_two_tasks_one_index, "meta/tasks.parquet gives one task_index to 'pick up"),
    "a state that never varies": (
        rows("observation.state", set_value((slice(None), 7), 0)),
        r"observation\.state\[7\] is 0 in every frame; in a rollout it varies",
    ),
    "an action that is not a number": (
        rows("action", set_value((3, 2), np.nan)),
        r"action\[2\] is nan in frame 2 of episode 1$",
    ),
    "actions in other units": (
        rows("action", set_value((9, 0), 40)),
        r"action\[0\] is 40 in frame 3 of episode 2, expected -1 to 1",
    ),
    "a gripper of 0 and 1": (
        rows("action", set_value((slice(None), 6), np.arange(15) % 2)),
        r"action\[6\], the gripper, is between 0 and 1; the simulator opens it below 0",
    ),
    "a state of another width": (
        feature("observation.state", shape=[7]),
        r"observation\.state has shape \(7,\), the simulator's is \(8,\): 3 of position",
    ),
    "features of another format": (
        lambda dataset: edit_json(dataset / "meta/info.json", rename("action", "actions")),
        "has no action; its features are .*actions",
    ),
    "an older format": (
        lambda dataset: edit_json(dataset / "meta/info.json", lambda info: info.update(codebase_version="v2.1")),
        r"is a LeRobotDataset v2\.1; convert it to v3\.0",
    ),
    "a third camera": (
        lambda dataset: edit_json(
            dataset / "meta/info.json",
            lambda info: info["features"].update(
                {"observation.images.top": info["features"]["observation.images.image"]}
            ),
        ),
        r"has the cameras .*observation\.images\.top; the simulator renders two",
    ),
    "instructions that no suite has to the letter": (
        lambda dataset: edit_instructions(dataset, lambda said: f"{said}."),
        r"its instructions, '(.*)\.', '.*\.', are none of LIBERO's, to the letter; the one closest to '\1\.' is '\1'$",
    ),
    "instructions in a column": (
        lambda dataset: pd.read_parquet(dataset / "meta/tasks.parquet").reset_index().to_parquet(
            dataset / "meta/tasks.parquet"
        ),
        r"meta/tasks\.parquet has 0 where an instruction is expected; .* not one of its columns \(task, task_index\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_breaks_the_contract_is_refused_in_one_line(copy, what):
    spoil, message = REFUSED[what]
    spoil(copy)
    with pytest.raises(InputError, match=message) as refused:
        load_dataset(copy)
    assert "\n" not in str(refused.value)


def test_an_action_that_never_varies_is_fine(copy):
    """An unnormalized action is multiplied by its deviation: what never varied is reproduced exactly."""
    edit_rows(copy, "action", set_value((slice(None), 4), 0))
    load_dataset(copy)


# ---- videos ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def filmed(tmp_path_factory):
    """Three episodes of 12 frames, their front camera as one video."""
    root = tmp_path_factory.mktemp("filmed") / "dataset"
    features = {
        FRONT: {"dtype": "video", "shape": (SIZE, SIZE, 3), "names": ["height", "width", "channel"]}
    } | VECTOR_FEATURES
    dataset = LeRobotDataset.create("local/filmed", FPS, features, root, use_videos=True)
    draw = np.random.default_rng(0)
    for _ in range(3):
        for _ in range(12):
            image = draw.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
            dataset.add_frame(draw_vectors(draw) | {FRONT: image, "task": INSTRUCTIONS[0]})
        dataset.save_episode()
    dataset.finalize()
    return root


@pytest.fixture
def film(filmed, tmp_path):
    return shutil.copytree(filmed, tmp_path / "dataset")


def edit_spans(dataset, change):
    (path,) = (dataset / "meta/episodes").rglob("*.parquet")
    table = pd.read_parquet(path)
    begin, end = f"videos/{FRONT}/from_timestamp", f"videos/{FRONT}/to_timestamp"
    table[begin], table[end] = change(table[begin], table[end])
    table.to_parquet(path)


def spans(change):
    return lambda dataset: edit_spans(dataset, change)


def rewrite_video(dataset, fps=FPS, frames=36):
    (path,) = dataset.rglob("*.mp4")
    imageio.imwrite(path, np.zeros((frames, SIZE, SIZE, 3), np.uint8), fps=fps, codec="libx264")


def lose_the_end_of_the_frames(dataset):
    """A video whose index is at its beginning, and says of the missing frames where they would be."""
    (path,) = dataset.rglob("*.mp4")
    frames = np.random.default_rng(0).integers(0, 256, (36, SIZE, SIZE, 3), dtype=np.uint8)
    faststart = {"output_params": ["-movflags", "faststart"], "macro_block_size": 1}
    imageio.imwrite(path, frames, plugin="FFMPEG", fps=FPS, codec="libx264", **faststart)
    path.write_bytes(path.read_bytes()[: 9 * path.stat().st_size // 10])


def truncate_video(dataset):
    (path,) = dataset.rglob("*.mp4")
    path.write_bytes(path.read_bytes()[:200])


MISPLACED = {
    "all late": (
        spans(lambda begin, end: (begin + 0.2, end + 0.2)),
        r"episode 0 begins at 0\.2 s of its video, not at 0 s",
    ),
    "all at once": (
        spans(lambda begin, end: (begin * 0, end - begin)),
        r"episode 1 begins at 0 s of its video, not at 0\.6 s",
    ),
    "too short": (
        spans(lambda begin, end: (begin, end - 0.2 * (begin == 0))),
        r"episode 0 has 12 frames at 20 fps, but lasts from 0 to 0\.4 s",
    ),
    "not a number": (spans(lambda begin, end: (begin * np.nan, end)), "episode 0 begins at nan s"),
    "a file that ends early": (
        lambda dataset: rewrite_video(dataset, frames=30),
        r"lasts 1\.5 s, its episodes need 1\.8 s",
    ),
    "another frame rate": (
        lambda dataset: rewrite_video(dataset, fps=10),
        r"has 10 frames per second, meta/info\.json says 20",
    ),
    "a file without the end of its frames": (
        lose_the_end_of_the_frames,
        rf"{FRONT}: frame 11 of episode 2 cannot be decoded \(",
    ),
    "a truncated file": (truncate_video, r"file-000\.mp4: no readable video"),
    "a missing file": (
        lambda dataset: next(dataset.rglob("*.mp4")).unlink(),
        r"file-000\.mp4, with episode 0, is missing",
    ),
}


def test_the_videos_of_a_whole_dataset_are_accepted(film):
    assert len(CameraFrames(load_dataset(film), FRONT).frames(range(12, 24))) == 12


@pytest.mark.parametrize("what", MISPLACED)
def test_episodes_that_are_not_where_the_metadata_say_are_refused(film, what):
    spoil, message = MISPLACED[what]
    spoil(film)
    with pytest.raises(InputError, match=message) as refused:
        load_dataset(film)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("frame", [0, 14])
def test_a_truncated_image_at_either_end_of_the_dataset_is_refused(copy, frame):
    truncate_image(copy, frame)
    with pytest.raises(InputError, match=rf"{FRONT}: frame [08] of episode [02] cannot be decoded \(.*truncated"):
        load_dataset(copy)


def test_opening_a_dataset_decodes_a_few_frames_however_many_episodes_it_has(tmp_path, monkeypatch):
    features = {FRONT: {"dtype": "image", "shape": (SIZE, SIZE, 3), "names": ["height", "width", "channel"]}}
    dataset = LeRobotDataset.create("local/many", FPS, features | VECTOR_FEATURES, tmp_path / "many", use_videos=False)
    draw, decoded, decode = np.random.default_rng(0), [], CameraFrames.frames
    for _ in range(9):
        for _ in range(3):
            image = np.zeros((SIZE, SIZE, 3), np.uint8)
            dataset.add_frame(draw_vectors(draw) | {FRONT: image, "task": INSTRUCTIONS[0]})
        dataset.save_episode()
    dataset.finalize()
    monkeypatch.setattr(CameraFrames, "frames", lambda self, rows: decoded.extend(rows) or decode(self, rows))
    load_dataset(tmp_path / "many")
    assert decoded == [0, 2, 12, 14, 24, 26]


def test_opening_a_dataset_leaves_no_decoder_open(film, monkeypatch):
    """A loader's workers would share the place that it has in its file."""
    monkeypatch.setattr(
        "lerobot.datasets.video_utils.decode_video_frames_torchcodec", lambda *_, **__: pytest.fail("left open")
    )
    load_dataset(film)


def test_a_frame_that_cannot_be_decoded_is_named(film):
    dataset = load_dataset(film)
    (path,) = film.rglob("*.mp4")
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : 2 * len(content) // 3] = bytes(len(content) // 3)
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"{FRONT}: frames 0 to 11 of episode [012] cannot be decoded") as refused:
        list(CameraFrames(dataset, FRONT).episodes())
    assert "\n" not in str(refused.value)


# ---- what is read ---------------------------------------------------------------------------------------------------


def replace_keeping_the_time(path, change):
    """As rsync and reproducible archives do."""
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    change()
    os.utime(path, ns=times)


def test_data_replaced_under_their_old_time_are_read_as_they_are_now(copy):
    """`datasets` keys its copies by path and time."""
    before = load_dataset(copy).columns(["action"])["action"]
    (path,) = (copy / "data").rglob("*.parquet")
    replace_keeping_the_time(path, lambda: edit_rows(copy, "action", lambda values: values.__imul__(0.5)))
    assert np.array_equal(load_dataset(copy).columns(["action"])["action"], before / 2)


def test_episodes_replaced_under_their_old_time_are_read_as_they_are_now(copy):
    load_dataset(copy)
    (path,) = (copy / "meta/episodes").rglob("*.parquet")
    spoilt = pd.read_parquet(path).assign(dataset_from_index=[0, 1, 7])
    replace_keeping_the_time(path, lambda: spoilt.to_parquet(path))
    with pytest.raises(InputError, match="has episode 2 from frame 7 to 15"):
        load_dataset(copy)


def images(dataset):
    return [[list(dataset.images(key, [row])) for key in dataset.meta.camera_keys] for row in (14, 0, 7, 3)]


def test_opening_and_reading_leave_nothing_on_the_disk_but_the_copy_for_random_order(copy, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "arrow")
    dataset = load_dataset(copy)
    stored = images(dataset)
    assert not (tmp_path / "arrow").exists()
    dataset.copy_for_random_order()
    assert images(dataset) == stored
    assert len(list((tmp_path / "arrow").glob("*.arrow"))) == 1
    again = load_dataset(copy)
    monkeypatch.setattr("pyarrow.ipc.new_file", lambda *_: pytest.fail("made again"))
    again.copy_for_random_order()
    assert images(again) == stored


def test_the_copy_for_random_order_is_of_the_data_as_they_are_now(copy, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "arrow")
    load_dataset(copy).copy_for_random_order()
    (path,) = (copy / "data").rglob("*.parquet")
    replace_keeping_the_time(path, lambda: truncate_image(copy, 7))
    dataset = load_dataset(copy)
    dataset.copy_for_random_order()
    ((image,),) = [list(dataset.images(FRONT, [7]))]
    assert len(image) == 100


def test_a_truncated_image_is_named(copy):
    truncate_image(copy, 3)
    frames = CameraFrames(load_dataset(copy), FRONT)
    with pytest.raises(InputError, match=rf"{FRONT}: frames 0 to 4 of episode 1 cannot be decoded \(.*truncated"):
        frames.frames(range(1, 6))
