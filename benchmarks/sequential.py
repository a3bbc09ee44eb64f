"""Looking more than once: false alarms, power and pairs needed of four ways to find that E2 is worse than E0.

    pip install sequentialized-barnard-tests==0.0.9
    python benchmarks/sequential.py --streams 1000

McNemar's exact test of all pairs; the same, looked at after every ten pairs and stopped at the first p below the level;
the e-process of `decision.stopping: anytime`; and STEP (sequentialized Barnard tests: Snyder et al., Robotics: Science
and Systems 2025), which takes the two policies' episodes as independent and has to know the largest number of pairs.
All are one-sided at the same level, and are given the same simulated pairs. STEP is not in the lock: its licence
(CC BY-NC 4.0) forbids commercial use. Where it is not installed, its column is left out and that is said.
"""

import argparse
import math
from collections.abc import Callable

import numpy as np
from scipy import stats

from world_modality.decision.pairs import Differences
from world_modality.decision.sequential import e_values

PAIRS = 200  # STEP ships a policy for this many
LEVEL = 0.05
LOOKS = np.arange(10, PAIRS + 1, 10)

Test = Callable[[np.ndarray, np.ndarray, int], int | None]  # outcomes of E0 and E2, stream -> pairs until it said worse


def simulate(
    baseline: float, world: float, correlation: float, rng: np.random.Generator, pairs: int = PAIRS
) -> np.ndarray:
    """Outcomes of pairs with the given success rates and correlation: (2, pairs) of 0 and 1, E0 first."""
    covariance = correlation * math.sqrt(baseline * (1 - baseline) * world * (1 - world))
    both = baseline * world + covariance
    cells = np.array([both, baseline - both, world - both, 1 - baseline - world + both])
    if (cells < 0).any():
        raise ValueError(f"no pairs have rates {baseline}, {world} and correlation {correlation}")
    kinds = rng.choice(4, pairs, p=cells)
    return np.array([kinds <= 1, (kinds == 0) | (kinds == 2)]).astype(int)


def fixed(baseline: np.ndarray, world: np.ndarray, stream: int) -> int | None:
    return PAIRS if _p_worse(baseline, world, PAIRS) <= LEVEL else None


def peeking(baseline: np.ndarray, world: np.ndarray, stream: int) -> int | None:
    return next((int(look) for look in LOOKS if _p_worse(baseline, world, look) <= LEVEL), None)


def _p_worse(baseline: np.ndarray, world: np.ndarray, pairs: int) -> float:
    difference = world[:pairs] - baseline[:pairs]
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    return float(stats.binom.cdf(wins, wins + losses, 0.5))


def e_process(baseline: np.ndarray, world: np.ndarray, stream: int) -> int | None:
    values = e_values(Differences((world - baseline)[:, None], np.arange(PAIRS)), 0.0, "below")
    reached = np.flatnonzero(values >= 1 / LEVEL)
    return int(reached[0]) + 1 if len(reached) else None


def step() -> Test | None:
    try:
        from sequentialized_barnard_tests import Decision, Hypothesis, StepTest
    except ImportError:
        return None
    # The shape as a float: with an integer it finds no policy and never decides.
    test = StepTest(Hypothesis.P0MoreThanP1, n_max=PAIRS, alpha=LEVEL, shape_parameter=0.0)

    def run(baseline: np.ndarray, world: np.ndarray, stream: int) -> int | None:
        test.random_seed = stream  # a reset seeds it again, otherwise every stream would toss the same coins
        result = test.run_on_sequence(baseline, world)
        return int(result.info["Time"]) if result.decision == Decision.AcceptAlternative else None

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=1000, help="experiments for each truth")
    args = parser.parse_args()
    tests: dict[str, Test] = {"McNemar": fixed, "peeking": peeking, "e-process": e_process}
    sequential = step()
    if sequential:
        tests["STEP"] = sequential
    else:
        print("STEP is not installed (pip install sequentialized-barnard-tests==0.0.9): its column is left out.")
    print(f"{args.streams} streams of up to {PAIRS} pairs: how often E2 is called worse at level {LEVEL:g}, and after")
    print("how many pairs on average (all of them where it is not).")
    print("  E0    E2  correlation" + "".join(f"{name:>18}" for name in tests))
    for baseline, world in ((0.8, 0.8), (0.8, 0.75), (0.8, 0.7), (0.8, 0.6)):
        for correlation in (-0.2, 0.0, 0.4):
            rng = np.random.default_rng(0)
            streams = [simulate(baseline, world, correlation, rng) for _ in range(args.streams)]
            cells = []
            for test in tests.values():
                found = [test(*outcomes, number) for number, outcomes in enumerate(streams)]
                pairs = np.mean([PAIRS if pairs is None else pairs for pairs in found])
                cells.append(f"{np.mean([pairs is not None for pairs in found]):.3f} after {pairs:5.1f}")
            print(
                f"{baseline:.2f}  {world:.2f}  {correlation:>11}" + "".join(f"{cell:>18}" for cell in cells), flush=True
            )


if __name__ == "__main__":
    main()
