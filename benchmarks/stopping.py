"""When to stop: verdicts, false ones among them, and pairs used, of an adaptive run and of other ways to stop.

    pip install sequentialized-barnard-tests==0.0.9
    python -m benchmarks.stopping --runs 2000

Every run is given the same simulated pairs of episodes, of options with known success rates. Ways to stop:

    adaptive   the e-process of `decision.stopping: adaptive`, looked at after every `--every` pairs, up to `--most`
    uniform    the same, but the gamblers' stakes are spread evenly, not as Beta(2, 4)
    fixed      the exact test of a number of pairs chosen beforehand (`decision.stopping: fixed`)

Each cell: share of runs that end NON_INFERIOR, share that end INFERIOR, and pairs used on average.

STEP (sequentialized Barnard tests, see `benchmarks/sequential.py`) knows no margin: it asks only whether the option is
worse, so it can end INFERIOR and never NON_INFERIOR. It is compared in a table of its own, where all ways have its cap
(200 pairs, for which it ships a policy) and the same level. Each cell there: share that end INFERIOR, pairs used:

    adaptive   as above: asks both questions, looks after every `--every` pairs, and stops at either answer
    e-process  the half of it that asks STEP's question, looked at, as STEP is, after every pair
    fixed      the exact test of all 200 pairs
"""

import argparse
from collections.abc import Callable

import numpy as np

from benchmarks.sequential import PAIRS, Test, e_process, simulate, step
from world_modality.decision import sequential
from world_modality.decision.pairs import Differences
from world_modality.decision.statistics import level, weigh
from world_modality.experiment.config import default_config, load_experiment
from world_modality.experiment.sections import Criteria

DIFFERENCES = (0.1, 0.0, -0.1, -0.2, -0.3)
UNIFORM = (np.arange(sequential.BETS) + 0.5) / sequential.BETS

Ending = tuple[bool, bool, int]  # judged NON_INFERIOR, judged INFERIOR, pairs used
Way = Callable[[np.ndarray, int], Ending]  # (2, pairs) outcomes of reference and option, number of the run


def adaptive(criteria: Criteria, looks: np.ndarray, stakes: np.ndarray) -> Way:
    wrong = level(criteria.confidence)

    def end(outcomes: np.ndarray, run: int) -> Ending:
        sequential.STAKES = stakes
        pairs = single_pairs(outcomes)
        within = sequential.e_values(pairs, -criteria.margin, "above")[looks - 1] >= 1 / wrong
        worse = sequential.e_values(pairs, 0.0, "below")[looks - 1] >= 1 / wrong
        settled = within | worse
        last = int(settled.argmax()) if settled.any() else len(looks) - 1
        return bool(within[last]), bool(worse[last] and not within[last]), int(looks[last])

    return end


def fixed(criteria: Criteria, count: int) -> Way:
    wrong = level(criteria.confidence)

    def end(outcomes: np.ndarray, run: int) -> Ending:
        found = weigh(single_pairs(outcomes[:, :count]), criteria.margin, criteria.confidence, "fixed")
        within = found.p_non_inferior <= wrong
        return within, found.p_worse <= wrong and not within, count

    return end


def worse_alone(test: Test, stakes: np.ndarray) -> Way:
    """A test of STEP's question, at every pair up to `PAIRS`."""

    def end(outcomes: np.ndarray, run: int) -> Ending:
        sequential.STAKES = stakes
        pairs = test(outcomes[0, :PAIRS], outcomes[1, :PAIRS], run)
        return False, pairs is not None, pairs or PAIRS

    return end


def exact(criteria: Criteria) -> Test:
    """The test that `fixed` makes of STEP's question."""

    def test(reference: np.ndarray, option: np.ndarray, run: int) -> int | None:
        found = weigh(single_pairs(np.stack([reference, option])), criteria.margin, criteria.confidence, "fixed")
        return len(option) if found.p_worse <= level(criteria.confidence) else None

    return test


def single_pairs(outcomes: np.ndarray) -> Differences:
    values = outcomes[1] - outcomes[0]
    return Differences(values[:, None], np.arange(len(values)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000, help="for each truth")
    parser.add_argument("--every", type=int, default=20, help="pairs between two looks")
    parser.add_argument("--most", type=int, default=300, help="pairs at the cap")
    parser.add_argument("--margins", type=float, nargs="+", default=[0.2, 0.15, 0.1])
    parser.add_argument("--reference", type=float, default=0.5, help="success rate of the reference")
    parser.add_argument("--correlations", type=float, nargs="+", default=[0.1, -0.2, 0.4])
    args = parser.parse_args()
    settings = load_experiment(default_config()).decision
    beta, looks = sequential.STAKES, np.arange(args.every, args.most + 1, args.every)
    error = np.sqrt(0.05 * 0.95 / args.runs)
    print(f"{args.runs} runs each; a true 5 % is estimated with a standard error of {100 * error:.1f} %.")
    for margin in args.margins:
        criteria = settings.model_copy(update={"margin": margin})
        ways = {"adaptive": adaptive(criteria, looks, beta), "uniform": adaptive(criteria, looks, UNIFORM)}
        ways |= {f"fixed {count}": fixed(criteria, count) for count in (40, args.most)}
        compare(f"margin {margin:g}", ways, args, _cell)
    criteria = settings.model_copy(update={"margin": args.margins[0]})
    ways = {"adaptive": adaptive(criteria, looks[looks <= PAIRS], beta), "e-process": worse_alone(e_process, beta)}
    ways |= {f"fixed {PAIRS}": worse_alone(exact(criteria), beta)}
    if (barnard := step()) is not None:
        ways |= {"STEP": worse_alone(barnard, beta)}
    else:
        print("STEP is not installed (pip install sequentialized-barnard-tests==0.0.9): its column is left out.")
    compare(f"is it worse? at most {PAIRS} pairs (adaptive: margin {criteria.margin:g})", ways, args, _worse_cell)


def compare(title: str, ways: dict[str, Way], args: argparse.Namespace, cell: Callable[[list[Ending]], str]) -> None:
    """Print a table: every way to stop is given the same pairs."""
    print(f"\n{title}\ndifference  correlation  discordant" + "".join(f"{way:>24}" for way in ways))
    for correlation in args.correlations:
        for difference in DIFFERENCES:
            rng = np.random.default_rng(0)
            rates = (args.reference, args.reference + difference)
            simulated = [simulate(*rates, correlation, rng, max(args.most, PAIRS)) for _ in range(args.runs)]
            discordance = np.mean([outcomes[0] != outcomes[1] for outcomes in simulated])
            cells = [cell([end(outcomes, run) for run, outcomes in enumerate(simulated)]) for end in ways.values()]
            print(f"{difference:>+10.2f}  {correlation:>11}  {discordance:>10.2f}" + "".join(cells), flush=True)


def _cell(endings: list[Ending]) -> str:
    within, worse, pairs = np.mean(endings, axis=0)
    return f"{100 * within:.1f} % {100 * worse:.1f} % ({pairs:.0f})".rjust(24)


def _worse_cell(endings: list[Ending]) -> str:
    _, worse, pairs = np.mean(endings, axis=0)
    return f"{100 * worse:.1f} % ({pairs:.0f})".rjust(24)


if __name__ == "__main__":
    main()
