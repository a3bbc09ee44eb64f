"""The decision tree before it branches: which options are compared, and which options each branch asks for.

Light (no torch): the Snakefile plans with it, and the decision uses it to check what was planned.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from world_modality.experiment.sections import Branch, Family, OptionRow, Tree
from world_modality.experiment.specs import JudgeSpec

Pair = tuple[str, str]  # an option and the reference that it is compared with


def comparisons(names: Collection[str], options: Mapping[str, OptionRow], tree: Tree) -> dict[Pair, Family]:
    """What is compared, where these options are run: the world option with the baseline first.

    Trained options are compared with the baseline, borrowed checkpoints with their owner, the fusion also with the
    world option and the wrist option.
    """
    trained = [name for name in names if not options[name].checkpoint_of]
    pairs = [(tree.world, tree.baseline)]
    pairs += [(name, tree.baseline) for name in trained]
    pairs += [(tree.fusion, other) for other in (tree.world, tree.wrist) if tree.fusion]
    pairs += [(name, options[name].checkpoint_of) for name in names if name not in trained]
    return {(a, b): family(a, tree) for a, b in pairs if a != b and {a, b} <= set(names)}


def family(option: str, tree: Tree) -> Family:
    if option == tree.world:
        return "primary"
    return "adoption" if option in (tree.wrist, tree.fusion) else "controls"


def leader(pair: Pair, tree: Tree) -> Pair | None:
    """The comparison that a control never outlasts, because it would cost its reference more episodes.

    It is what the reference itself is evaluated for. None: an option that may be adopted waits for no other.
    """
    option, reference = pair
    if family(option, tree) != "controls":
        return None
    return (tree.world, tree.baseline) if reference == tree.baseline else (reference, tree.baseline)


def wanted_options(spec: JudgeSpec, branch: Branch) -> list[str]:
    """Options that a branch asks for and that are not in `run`, in order of preference; a budget may leave some out.

    If `decision.wrist_experiment` is `always`, both branches ask for the options of `on_hurt`.
    """
    tree = spec.decision
    hurt = tree.on_hurt if branch == "wrist" or tree.wrist_experiment == "always" else []
    success = tree.on_success if branch == "success" else []
    return [name for name in dict.fromkeys([*hurt, *success]) if name not in spec.run]
