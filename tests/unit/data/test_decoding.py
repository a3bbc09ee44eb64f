"""Workers decode the frames that the process itself would, in order, once, and not far ahead."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from world_modality.data.decoding import AHEAD, decoded_episodes
from world_modality.errors import InputError

REPOSITORY = Path(__file__).parents[3]
EPISODES = 9


class Noted:
    """Frames of noise of which each decoding is noted in a folder, as `<episode>_<process>`."""

    def __init__(self, folder: Path, damaged: int | None = None):
        self.folder, self.damaged, self.num_episodes = folder, damaged, EPISODES
        self.parent = os.getpid()

    def episode(self, number: int) -> torch.Tensor:
        (self.folder / f"{number}_{os.getpid()}").touch(exist_ok=False)
        if number == self.damaged:
            raise InputError(f"frame 2 of episode {number} cannot be decoded") from OSError("truncated")
        generator = torch.Generator().manual_seed(number)
        return torch.randint(0, 256, (number + 1, 3, 4, 4), dtype=torch.uint8, generator=generator)

    def episodes(self):
        return map(self.episode, range(EPISODES))

    def decoded(self) -> list[str]:
        return [note.name for note in self.folder.iterdir()]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_each_episode_is_decoded_once_and_comes_in_order_however_many_decode(tmp_path, workers):
    frames = Noted(tmp_path)
    state = torch.get_rng_state()
    found = list(decoded_episodes(frames, workers))
    assert [len(episode) for episode in found] == list(range(1, EPISODES + 1))
    assert sorted(int(name.partition("_")[0]) for name in frames.decoded()) == list(range(EPISODES))
    processes = {int(name.partition("_")[2]) for name in frames.decoded()}
    assert len(processes) == max(workers, 1)
    assert (os.getpid() in processes) == (workers == 0)
    assert torch.equal(torch.get_rng_state(), state)
    (tmp_path / "again").mkdir()
    assert all(torch.equal(*pair) for pair in zip(found, Noted(tmp_path / "again").episodes(), strict=True))


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_are_not_far_ahead_however_long_nobody_asks(tmp_path, workers):
    frames = Noted(tmp_path)
    for asked, _ in enumerate(decoded_episodes(frames, workers), start=1):
        assert len(frames.decoded()) <= asked + workers * AHEAD


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_frame_that_cannot_be_decoded_is_reported_in_one_line_after_the_episodes_before_it(tmp_path, workers):
    episodes = decoded_episodes(Noted(tmp_path, damaged=4), workers)
    assert [len(next(episodes)) for _ in range(4)] == [1, 2, 3, 4]
    with pytest.raises(InputError) as raised:
        next(episodes)
    assert str(raised.value) == "frame 2 of episode 4 cannot be decoded"


def test_whoever_stops_asking_leaves_no_worker_behind(tmp_path):
    episodes = decoded_episodes(Noted(tmp_path), 2)
    next(episodes)
    workers = psutil.Process().children()
    assert len(workers) == 2
    episodes.close()
    assert not any(worker.is_running() for worker in workers)


PARENT = """
import time
import psutil
import torch
from world_modality.data.decoding import decoded_episodes
class Endless:
    num_episodes = 1000
    def episode(self, number):
        if number > 2:  # the workers are busy when their parent dies
            time.sleep(600)
        return torch.zeros(1)
episodes = decoded_episodes(Endless(), 2)
next(episodes)
print(*(child.pid for child in psutil.Process().children()), flush=True)
time.sleep(600)
"""


def test_a_worker_dies_with_its_parent():
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        workers = [psutil.Process(int(number)) for number in parent.stdout.readline().split()]
        assert len(workers) == 2
        parent.kill()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
