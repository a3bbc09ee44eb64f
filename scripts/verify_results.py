"""Verify a results folder: every artifact is whole, is what its record says, and was made from what lies beside it.

Reads every artifact; writes one line for each to the standard output. Ends with status 1 where anything is wrong.
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
