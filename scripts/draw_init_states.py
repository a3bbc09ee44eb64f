"""Draw a block of initial states from wider regions than LIBERO's own, each solved by the scripted expert.

Writes a Parquet file of initial states. They are drawn once, and every option is evaluated from the same ones.
"""

import argparse
from pathlib import Path

from world_modality.artifacts.provenance import making
from world_modality.evaluation.drawing import draw_init_states
from world_modality.experiment.specs import InitStatesSpec, spec_argument
from world_modality.program import run, whole_number

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--task", type=whole_number(0), required=True, help="task id within the suite")
parser.add_argument("--first", type=whole_number(0), required=True, help="first initial state of the block")
parser.add_argument("--count", type=whole_number(1), required=True, help="initial states in the block")
parser.add_argument("--spec", type=spec_argument(InitStatesSpec), required=True, help="suite and spread (JSON)")
parser.add_argument("--output", type=Path, required=True)


def main() -> None:
    arguments = parser.parse_args()
    block = range(arguments.first, arguments.first + arguments.count)
    spec = {"drawn": arguments.spec.model_dump(mode="json"), "task": arguments.task, "init_states": list(block)}
    with making(arguments.output, __file__, {}, spec) as output:
        draw_init_states(arguments.spec, arguments.task, block, output)


if __name__ == "__main__":
    run(main)
