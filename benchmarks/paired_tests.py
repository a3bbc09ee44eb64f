"""Which test the verdicts rest on: level and power of four tests of paired outcomes; prints two tables.

    python -m benchmarks.paired_tests

Each test answers both questions of a verdict: is the option worse, and does it lose less than the margin? Candidates:

    McNemar    the exact conditional test, one-sided; it knows only the difference 0, so the score test has the margin
    mid-p      the same, with half the probability of the observed outcome
    score      Tango's score test with its normal approximation
    exact      the score test calibrated exactly (`decision.stopping: fixed`)

Single pairs: nothing is simulated. A rate is the sum over all outcomes; the level is the largest such rate over all
shares of discordant pairs. Clusters of three training seeds: simulated as in `calibration.py`, counted as the
independent pairs they are worth; only the score tests can do that.
"""

import argparse
from collections.abc import Callable

import numpy as np
from scipy import stats

from benchmarks.calibration import World
from world_modality.decision.exact import TIE
from world_modality.decision.paired import paired_test, score_statistic
from world_modality.decision.pairs import Differences, differences, pair_outcomes
from world_modality.decision.power import critical_limits

LEVEL, MARGIN, DISCORDANCE = 0.05, 0.1, 0.3
Z = stats.norm.isf(LEVEL)

# Who is found to be below a bound: (wins, losses, pairs, bound) -> bool, for arrays of wins and losses.
Test = Callable[[np.ndarray, np.ndarray, int, float], np.ndarray]


def score(wins, losses, pairs, bound):
    return score_statistic(wins, losses, pairs, bound) <= -Z


def exact(wins, losses, pairs, bound):
    limits = critical_limits(pairs, bound, LEVEL)[wins + losses]
    return score_statistic(wins, losses, pairs, limits) <= TIE - Z


def mcnemar(wins, losses, pairs, bound):
    return score(wins, losses, pairs, bound) if bound else stats.binom.cdf(wins, wins + losses, 0.5) <= LEVEL


def mid_p(wins, losses, pairs, bound):
    if bound:
        return score(wins, losses, pairs, bound)
    seen = stats.binom.pmf(wins, wins + losses, 0.5)
    return stats.binom.cdf(wins, wins + losses, 0.5) - seen / 2 <= LEVEL


TESTS: dict[str, Test] = {"McNemar": mcnemar, "mid-p": mid_p, "score": score, "exact": exact}


def rate(rejected: np.ndarray, wins: np.ndarray, losses: np.ndarray, pairs: int, truth: float, share: float) -> float:
    """How often an outcome is among the rejected ones, with a true difference and share of discordant pairs."""
    won = (share + truth) / (2 * share) if share else 0.5
    chances = stats.binom.pmf(wins + losses, pairs, share) * stats.binom.pmf(wins, wins + losses, won)
    return float(chances[rejected].sum())


def single_pairs(pairs: int, test: Test) -> list[float]:
    """Levels of both questions, and power: of seeing a loss of twice the margin, and that equals are non-inferior."""
    discordant, wins = np.tril_indices(pairs + 1)
    losses = discordant - wins
    worse, mirrored = test(wins, losses, pairs, 0.0), test(wins, losses, pairs, MARGIN)  # mirrored: who is the option
    outcomes = (wins, losses, pairs)
    return [
        max(rate(worse, *outcomes, 0.0, share) for share in np.linspace(0, 1, 101)),
        max(rate(mirrored, *outcomes, MARGIN, share) for share in np.linspace(MARGIN, 1, 101)),
        rate(worse, *outcomes, -2 * MARGIN, DISCORDANCE),
        rate(mirrored, *outcomes, 0.0, DISCORDANCE),
    ]


def clusters(states: int, experiments: int) -> dict[str, list[float]]:
    """The same four rates for clusters; the levels are the larger ones at success rates of 50 % and 80 %."""
    world, rng = World(states=states, seeds=3), np.random.default_rng(0)
    found: dict[tuple[str, float, str], float] = {}
    for baseline in (0.5, 0.8):
        for loss in (0.0, MARGIN, 2 * MARGIN):
            rates = {"E0": baseline, "E2": baseline - loss}
            seen = [_differences(world.episodes(rates, rng)) for _ in range(experiments)]
            for name, test in (("score", _score_p_values), ("exact", _exact_p_values)):
                below = np.array([test(difference) for difference in seen]) <= LEVEL
                found[name, baseline, loss] = below.mean(axis=0)
    return {
        name: [
            max(found[name, baseline, 0.0][0] for baseline in (0.5, 0.8)),
            max(found[name, baseline, MARGIN][1] for baseline in (0.5, 0.8)),
            float(np.mean([found[name, baseline, 2 * MARGIN][0] for baseline in (0.5, 0.8)])),
            float(np.mean([found[name, baseline, 0.0][1] for baseline in (0.5, 0.8)])),
        ]
        for name in ("score", "exact")
    }


def _differences(episodes) -> Differences:
    return differences(pair_outcomes(episodes, "E2", "E0", [0, 1]), "success")


def _score_p_values(difference: Differences) -> tuple[float, float]:
    effective = difference.effective
    worse, loses_less = score_statistic(*effective, 0.0), score_statistic(*effective, -MARGIN)
    return float(stats.norm.cdf(worse)), float(stats.norm.sf(loses_less))


def _exact_p_values(difference: Differences) -> tuple[float, float]:
    test = paired_test(difference, LEVEL)
    return test.p_value(0.0, "below"), test.p_value(-MARGIN, "above")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=1000, help="for each truth, of clusters")
    args = parser.parse_args()
    print(f"Level {LEVEL:g}, margin {MARGIN:g}. False: the largest rate of a false INFERIOR, of a false NON_INFERIOR.")
    print(f"Found: a loss of {2 * MARGIN:g}, and that equals lose less than the margin.")
    print(f"Single pairs (exact sums; found: {DISCORDANCE:.0%} of the pairs discordant)")
    header = f"{'pairs':>5}  {'test':<8}{'false INF':>10}{'false NON':>10}{'found loss':>11}{'found equal':>12}"
    print(header)
    for pairs in (20, 50, 100, 200, 500):
        for name, test in TESTS.items():
            print(_row(pairs, name, single_pairs(pairs, test)), flush=True)
    print(f"Clusters of 3 ({args.experiments} simulated experiments for each truth, success rates of 50 % and 80 %)")
    print(header)
    for states in (4, 8, 17, 33, 83):
        for name, rates in clusters(states, args.experiments).items():
            print(_row(6 * states, name, rates), flush=True)


def _row(pairs: int, name: str, rates: list[float]) -> str:
    cells = "".join(f"{f'{100 * value:.1f} %':>{width}}" for value, width in zip(rates, (10, 10, 11, 12), strict=True))
    return f"{pairs:>5}  {name:<8}{cells}"


if __name__ == "__main__":
    main()
