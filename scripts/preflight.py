"""Check that this machine can do a job of the experiment: GPU, rendering, memory, disk, processors, demonstrations.

Reads the machine, and the demonstrations if they have been placed or fetched; prints one line per check. If no check
failed it writes these lines to a file, otherwise it fails.
"""

import argparse
import socket
import sys
from pathlib import Path

import datasets

from world_modality.artifacts.files import atomic_path
from world_modality.data.hub import cached
from world_modality.experiment.sections import Repository, Simulation
from world_modality.experiment.specs import spec_argument
from world_modality.experiment.suites import SUITE_SIZES
from world_modality.preflight import (
    check_demonstrations,
    check_disk,
    check_gpu,
    check_memory,
    check_processors,
    check_rendering,
    copy_gb,
    inspect,
)
from world_modality.program import run, whole_number

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--device", choices=("cpu", "cuda"), required=True, help="where the job computes")
parser.add_argument("--simulation", type=spec_argument(Simulation), help="what the job simulates (JSON) (nothing)")
parser.add_argument("--memory", type=whole_number(1), required=True, help="memory that the job asks for [MiB]")
parser.add_argument("--processors", type=whole_number(1), required=True, help="processors that the job asks for")
parser.add_argument("--folder", type=Path, default=Path("results"), help="where the artifacts go (results)")
parser.add_argument("--disk", type=whole_number(0), required=True, help="disk space that they need [GB]")
parser.add_argument("--cache_frames", type=int, choices=(0, 1), default=1, help="trainings keep frames in memory (1)")
parser.add_argument("--dataset", type=Path, default=Path("results/dataset"), help="where they go (results/dataset)")
parser.add_argument("--repository", type=spec_argument(Repository), help="what they are on the hub (JSON) (not there)")
parser.add_argument("--suite", choices=tuple(SUITE_SIZES), help="what they must show tasks of (does not open them)")
parser.add_argument("--evaluated", type=whole_number(0), nargs="*", default=[], help="the tasks they must show (none)")
parser.add_argument("--output", type=Path, required=True, help="text file to write")


def find_demonstrations(asked: argparse.Namespace) -> Path | None:
    """The demonstrations as an artifact, or else as they were fetched."""
    if asked.dataset.is_dir():
        return asked.dataset
    return cached(asked.repository) if asked.repository else None


def check_found(asked: argparse.Namespace, found: Path | None) -> str:
    if found is None:
        return "not there yet; the first job that opens them checks them"
    return check_demonstrations(found, asked.suite, asked.evaluated)


def main() -> None:
    asked = parser.parse_args()
    found = find_demonstrations(asked)
    room = {asked.folder: asked.disk}
    if found and not asked.cache_frames:
        room[Path(datasets.config.HF_DATASETS_CACHE)] = copy_gb(found)
    checks = {"GPU": check_gpu} if asked.device == "cuda" else {}
    if asked.simulation:
        checks["rendering"] = lambda: check_rendering(asked.simulation)
    checks |= {
        "memory": lambda: check_memory(asked.memory),
        "disk": lambda: check_disk(room),
        "processors": lambda: check_processors(asked.processors),
    }
    if asked.suite:
        checks["demonstrations"] = lambda: check_found(asked, found)
    wrong, lines = 0, []
    for name, well, text in inspect(checks):
        lines.append(f"{socket.gethostname()}  {'ok   ' if well else 'WRONG'}  {name}: {text}")
        print(lines[-1], flush=True)
        wrong += not well
    if wrong:
        sys.exit(f"error: {wrong} of {len(checks)} checks failed")
    with atomic_path(asked.output) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(main)
