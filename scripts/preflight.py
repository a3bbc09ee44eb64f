"""Check that this machine can do a job of the experiment: GPU, rendering, memory, disk, processors.

Reads the machine; prints one line per check. If no check failed it writes these lines to a file, otherwise it fails.
"""

import argparse
import socket
import sys
from pathlib import Path

from world_modality.artifacts.files import atomic_path
from world_modality.experiment.sections import Simulation
from world_modality.experiment.specs import spec_argument
from world_modality.preflight import check_disk, check_gpu, check_memory, check_processors, check_rendering, inspect
from world_modality.program import run, whole_number

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--device", choices=("cpu", "cuda"), required=True, help="where the job computes")
parser.add_argument("--simulation", type=spec_argument(Simulation), help="what the job simulates (JSON) (nothing)")
parser.add_argument("--memory", type=whole_number(1), required=True, help="memory that the job asks for [MiB]")
parser.add_argument("--processors", type=whole_number(1), required=True, help="processors that the job asks for")
parser.add_argument("--folder", type=Path, default=Path("results"), help="where the artifacts go (results)")
parser.add_argument("--disk", type=whole_number(0), required=True, help="disk space that they need [GB]")
parser.add_argument("--output", type=Path, required=True, help="text file to write")


def main() -> None:
    asked = parser.parse_args()
    checks = {"GPU": check_gpu} if asked.device == "cuda" else {}
    if asked.simulation:
        checks["rendering"] = lambda: check_rendering(asked.simulation)
    checks |= {
        "memory": lambda: check_memory(asked.memory),
        "disk": lambda: check_disk(asked.folder, asked.disk),
        "processors": lambda: check_processors(asked.processors),
    }
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
