"""Checks whether a machine can do what a job of the experiment will ask of it, before hours are spent.

Every check reports in one line what it found. A failed check says what to do about it, and does not stop the others.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from world_modality.data.dataset import demonstrated, load_dataset
from world_modality.errors import InputError
from world_modality.experiment.sections import Simulation
from world_modality.experiment.suites import check_demonstrated

MEBIBYTE = 2**20
CGROUPS = ("/sys/fs/cgroup{path}/memory.max", "/sys/fs/cgroup/memory{path}/memory.limit_in_bytes")  # version 2, 1


def inspect(checks: dict[str, Callable[[], str]]) -> Iterator[tuple[str, bool, str]]:
    """Run the checks one by one; yields the name of each, whether it passed, and what it found or what is wrong."""
    for name, check in checks.items():
        try:
            yield name, True, check()
        except Exception as error:  # whatever went wrong, the other checks still run
            yield name, False, str(error).strip() or repr(error)


def check_gpu() -> str:
    """Check that exactly one GPU is visible, and that it computes.

    Raises:
        InputError: there is none, or there are several.
    """
    if not torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        raise InputError(
            f"torch {torch.__version__} sees no GPU (CUDA_VISIBLE_DEVICES is {visible!r}); "
            "ask for one in slurm/config.yaml, and look at `nvidia-smi` on this node for the driver"
        )
    if torch.cuda.device_count() > 1:
        raise InputError(f"{torch.cuda.device_count()} GPUs are visible: a job uses one; ask for `gpu: 1`")
    square = torch.ones(64, 64, device="cuda", dtype=torch.bfloat16)
    if not (square @ square == 64).all().item():
        raise InputError("the GPU multiplies bfloat16 wrongly")
    free, total = torch.cuda.mem_get_info()
    return f"{torch.cuda.get_device_name()}, {free // MEBIBYTE} of {total // MEBIBYTE} MiB free"


def check_rendering(settings: Simulation) -> str:
    """Check that the simulator builds a task and draws what both cameras see.

    Raises:
        InputError: LIBERO is not set up, or an image is empty. OpenGL's own errors pass through.
    """
    started = time.perf_counter()
    try:
        from world_modality.simulation.libero import LiberoSimulation  # chooses its OpenGL when imported
    except ImportError as error:
        raise InputError(f"{error}") from None
    with LiberoSimulation(settings, 0) as simulation:
        images = simulation.reset(seed=0, cameras=("front", "wrist")).images
    for camera, image in images.items():
        if image.min() == image.max():
            raise InputError(f"the picture of the {camera} camera is empty; MUJOCO_GL is {os.environ['MUJOCO_GL']}")
    return f"{os.environ['MUJOCO_GL']}: two images of {settings.camera_size} px, {time.perf_counter() - started:.0f} s"


def check_memory(wanted_mb: int) -> str:
    """Check that the machine has the memory a job asks for, and that the scheduler lets the job use that much.

    Raises:
        InputError: there is less.
    """
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    found = {"the machine": int(fields["MemTotal"].split()[0]) // 1024}
    if (limit := _cgroup_limit_mb()) is not None:
        found["its control group"] = limit
    if "SLURM_MEM_PER_NODE" in os.environ:
        found["the scheduler"] = int(os.environ["SLURM_MEM_PER_NODE"])
    holder, least = min(found.items(), key=lambda item: item[1])
    if least < wanted_mb:
        raise InputError(f"{least} MiB by {holder}, {wanted_mb} MiB are needed; raise mem_mb in slurm/config.yaml")
    return f"{least} MiB by {holder}, {wanted_mb} MiB are needed"


def _cgroup_limit_mb() -> int | None:
    """The memory limit of this process's control group; None if there is no limit, or no control group."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        path = line.split(":", 2)[2]
        for pattern in CGROUPS:
            file = Path(pattern.format(path=path.rstrip("/")))
            if file.is_file() and file.read_text().strip().isdigit():
                return int(file.read_text()) // MEBIBYTE
    return None


def check_disk(wanted_gb: dict[Path, int]) -> str:
    """Check that there is room for what each folder will hold, and that a file can be written and renamed there.

    Args:
        wanted_gb: by folder; folders on the same file system share its room.

    Raises:
        InputError: there is less room.
    """
    systems: dict[int, list[Path]] = {}
    for folder in wanted_gb:
        _try_to_write(folder)
        systems.setdefault(folder.stat().st_dev, []).append(folder)
    texts = []
    for folders in systems.values():
        free, wanted = shutil.disk_usage(folders[0]).free // 10**9, sum(wanted_gb[folder] for folder in folders)
        names = " and ".join(str(folder.resolve()) for folder in folders)
        texts.append(f"{free} GB free in {names}, {wanted} GB are needed")
        if free < wanted:
            raise InputError(
                f"{texts[-1]}; Snakemake's --directory puts the results elsewhere, HF_DATASETS_CACHE the Arrow copy"
            )
    return "; ".join(texts)


def _try_to_write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".preflight.{os.getpid()}"
    probe.write_bytes(b"x")
    os.replace(probe, probe.with_suffix(".renamed"))
    probe.with_suffix(".renamed").unlink()


def copy_gb(dataset: Path) -> int:
    """The room for the Arrow copy of a training that does not keep its frames in memory: about that of the data."""
    return -(-sum(path.stat().st_size for path in (dataset / "data").rglob("*.parquet")) // 10**9)


def check_demonstrations(dataset: Path, suite: str, tasks: Sequence[int]) -> str:
    """Check that the demonstrations are what the simulator and the policy expect, and show the tasks to be evaluated.

    Raises:
        InputError: as `load_dataset`; or a task was not demonstrated.
    """
    loaded = load_dataset(dataset)
    instructions = demonstrated(loaded)
    check_demonstrated(loaded.repo_id, instructions, suite, tasks)
    return f"{loaded.num_episodes} episodes, {loaded.num_frames} frames, {len(instructions)} tasks in {dataset}"


def check_processors(wanted: int) -> str:
    """Check that the job may use as many processors as it asked for.

    Raises:
        InputError: it may use fewer.
    """
    allowed = len(os.sched_getaffinity(0))
    if allowed < wanted:
        raise InputError(f"{allowed} processors, {wanted} are needed; raise `threads` in slurm/config.yaml")
    return f"{allowed} processors, {wanted} are needed"
