"""Verify a results folder: is every artifact intact, as its record says, and made from what is there now?

Reads every artifact; writes one line for each to the standard output. Exits with status 1 if anything is wrong.
"""

import argparse
from pathlib import Path

from world_modality.errors import InputError
from world_modality.program import run
from world_modality.report.lineage import verify

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("results", type=Path, nargs="?", default=Path("results"), help="the folder (results)")


def main() -> None:
    checked, wrong = 0, 0
    for path, problems in verify(parser.parse_args().results):
        checked, wrong = checked + 1, wrong + bool(problems)
        print("\n".join(f"WRONG {problem}" for problem in problems) or f"ok    {path}", flush=True)
    if wrong:
        raise InputError(f"{wrong} of {checked} artifacts are not what they should be")
    print(f"{checked} artifacts, all as they were made")


if __name__ == "__main__":
    run(main)
