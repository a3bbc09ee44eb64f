"""A program that rolls out a block whose workers refuse something.

    python tests/unit/failing_workers.py (opening|episode) SIMULATORS FOLDER

The processes that a block spawns see no monkeypatch, so the stand-ins are installed in each of them by name.
"""

import numpy as np

from world_modality.errors import InputError
from world_modality.evaluation import blocks


def refuse(*_, **__):
    raise InputError("encoder: content 1234 is not that of the checkpoint")


class Part:
    """Stands in for a pilot, its recorder and a simulation."""

    checkpoint_sha256, spec = "0" * 64, None

    def __init__(self, *_):
        self.fresh = 1

    def attention_recorder(self, *_):
        return self

    def close(self):
        pass


def roll_a_block(fault, *arguments):
    """Run `evaluate_block` with workers that refuse to open the pilot or an episode; for a separate program."""
    install(fault)
    blocks.check_checkpoint = lambda *_: None
    blocks._prepare_worker = globals()[f"prepare_{fault}"]
    blocks.evaluate_block(*arguments)


def install(fault):
    blocks.Pilot = refuse if fault == "opening" else Part
    blocks.LiberoSimulation = Part
    blocks.roll_out = refuse


prepare = blocks._prepare_worker


def prepare_opening(*about):
    install("opening")
    prepare(*about)


def prepare_episode(*about):
    install("episode")
    prepare(*about)


def main():
    import sys
    from pathlib import Path

    from world_modality.experiment.config import default_config, load_experiment

    fault, simulators, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    spec = load_experiment(default_config()).rollout_spec("E0")
    states = dict(enumerate(np.zeros((4, 5))))
    output, attention = folder / "block_0.jsonl", folder / "attention.parquet"
    roll_a_block(fault, folder / "ckpt", spec, 0, 0, range(4), states, output, attention, simulators)


if __name__ == "__main__":
    import failing_workers  # by the name under which the spawned processes import it

    from world_modality.program import run

    run(failing_workers.main)
