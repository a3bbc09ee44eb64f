"""Join the attention of an option's rollouts: all blocks of all tasks and training seeds.

Reads the blocks' attention tables; writes `attention_rollout_<option>.parquet`. Refuses a block of another option or
checkpoint, an episode that appears twice, and blocks that lack an episode.
"""

import argparse
from pathlib import Path

from world_modality.artifacts.provenance import making
from world_modality.examination.attention import join_blocks
from world_modality.program import existing, run, whole_number

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--option", required=True)
parser.add_argument("--blocks", type=existing, nargs="+", required=True, help="attention table of each block")
parser.add_argument("--episodes", type=whole_number(1), required=True, help="initial states 0 … n-1 of each task")
parser.add_argument("--adaptive", action="store_true", help="fewer initial states are right, if none is left out")
parser.add_argument("--output", type=Path, required=True, help="Parquet file to write")


def main() -> None:
    arguments = parser.parse_args()
    spec = {"option": arguments.option, "episodes": arguments.episodes, "adaptive": arguments.adaptive}
    with making(arguments.output, __file__, {"blocks": arguments.blocks}, spec) as table:
        join_blocks(arguments.blocks, arguments.option, arguments.episodes, table, arguments.adaptive)


if __name__ == "__main__":
    run(main)
