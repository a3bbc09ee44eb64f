"""Write `envs/pipeline.yaml`, the environment that the rules name, with exactly the pins of the lock.

Reads `envs/requirements.lock`. Conda's pip section takes no hashes, which is why `make setup` uses the lock itself.
"""

import re
from pathlib import Path

FOLDER = Path(__file__).parent
HEADER = """\
# The environment that the rules name: the versions of requirements.lock, without its hashes. The rules really run with
# the Python that runs Snakemake, because a conda environment has neither this project nor LIBERO's assets, which
# `make setup` installs. Written by `make lock`.
name: world-modality
channels: [conda-forge, nodefaults]
dependencies:
  - python=3.12
  - pip
  - pip:
"""


def pins(lock: str) -> list[str]:
    """Requirements of a lock file, in its order, e.g. `numpy==2.2.6` or `h5py==3.16.0 ; sys_platform == 'linux'`."""
    return re.findall(r"^([a-z0-9][^\s\\]*==[^\\\n]*?)\s*\\?$", lock, flags=re.MULTILINE)


def main() -> None:
    lock = (FOLDER / "requirements.lock").read_text(encoding="utf-8")
    lines = "".join(f"      - {pin}\n" for pin in pins(lock))
    (FOLDER / "pipeline.yaml").write_text(HEADER + lines, encoding="utf-8")


if __name__ == "__main__":
    main()
