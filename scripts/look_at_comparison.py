"""Look at a comparison: what the episodes so far say, and whether that settles it.

Reads the blocks of two options on the pickup tasks, and their manifests. Writes a `decision.looks.Look`, from which
Snakemake's checkpoint learns whether the comparison gets another round.
"""

import argparse
from pathlib import Path

from world_modality.artifacts.files import read_json, write_json
from world_modality.artifacts.provenance import making
from world_modality.decision.evaluations import evaluation_of
from world_modality.decision.looks import look_at
from world_modality.evaluation.episodes import join_rows, read_rows
from world_modality.experiment.specs import LookSpec, spec_argument
from world_modality.program import existing, run

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
for role in ("option", "reference"):
    parser.add_argument(f"--{role}", type=existing, nargs="+", required=True, help=f"blocks of the {role}")
    parser.add_argument(f"--{role}_manifest", type=existing, required=True, help=f"of the {role}'s checkpoints")
parser.add_argument("--spec", type=spec_argument(LookSpec), required=True, help="options, tasks and criteria (JSON)")
parser.add_argument("--output", type=Path, required=True, help="look to write")


def main() -> None:
    arguments = parser.parse_args()
    inputs = {name: path for name, path in vars(arguments).items() if name not in ("spec", "output")}
    with making(arguments.output, __file__, inputs, arguments.spec) as output:
        evaluations = []
        for role in ("option", "reference"):
            rows, manifest = read_rows(inputs[role]), read_json(inputs[f"{role}_manifest"])
            for task in arguments.spec.tasks:
                own = [row for row in rows if row["task"] == task]
                joined = join_rows(getattr(arguments.spec, role), task, manifest, own)
                evaluations.append(evaluation_of(joined, str(inputs[role][0].parents[2])))
        look = look_at(evaluations, arguments.spec)
        write_json(output, look.as_json())
    print(look.summary())


if __name__ == "__main__":
    run(main)
