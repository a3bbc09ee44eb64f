"""The decision tree before it branches: which options the checkpoint judges, and which each branch asks for.

Light (no torch): the Snakefile plans with it, and the decision uses it to check what was planned.
"""

from __future__ import annotations

from world_modality.experiment.sections import Branch
from world_modality.experiment.specs import JudgeSpec


def judged_options(spec: JudgeSpec) -> list[str]:
    """Options of `run` that the checkpoint reads: the two it compares, and the ablations of the world option."""
    tree = spec.decision
    roles = (tree.baseline, tree.world)
    return [name for name in spec.run if name in roles or spec.options[name].checkpoint_of == tree.world]


def wanted_options(spec: JudgeSpec, branch: Branch) -> list[str]:
    """Options that a branch asks for and that are not in `run`, in order of preference; a budget may leave some out.

    If `decision.wrist_experiment` is `always`, both branches ask for the options of `on_hurt`.
    """
    tree = spec.decision
    hurt = tree.on_hurt if branch == "wrist" or tree.wrist_experiment == "always" else []
    success = tree.on_success if branch == "success" else []
    return [name for name in dict.fromkeys([*hurt, *success]) if name not in spec.run]
