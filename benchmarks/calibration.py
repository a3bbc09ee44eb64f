"""How often the decision errs: the whole of it simulated over a grid of truths; prints a table.

Each simulated experiment has its own initial states, some hard and some easy for all policies alike, which makes the
outcomes of a pair correlated; a training seed adds its own luck to each of its policies, which makes episodes from one
initial state a cluster. Its outcomes go through the same functions as an evaluation's (`statistics`, `judgement`,
`tree.choose_token`), and what they say is compared with the truth that made them.

    python benchmarks/calibration.py --experiments 2000

With `anytime` and `adaptive` each experiment looks after every ten initial states of a task, and stops once E2 : E0 is
settled.

Columns: the true success rates of E0, E2 and A; how often E2 < E0; the verdict on E2; whether E2 truly loses nothing
(then INFERIOR is false) or the margin or more (then NON_INFERIOR is); pairs used on average; the most frequent token.
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import optimize, stats

from world_modality.decision.judgement import compare
from world_modality.decision.statistics import level
from world_modality.decision.tree import choose_token
from world_modality.experiment.config import default_config, load_experiment
from world_modality.experiment.sections import Decision

HORIZON = 220  # control steps; a success takes half of them
LOOK = 10  # initial states of each task between two looks
FAMILIES = {("E2", "E0"): "primary", ("A", "E0"): "adoption"}


@dataclass(frozen=True)
class World:
    """What the simulated experiments are made of.

    Args:
        states: initial states of each task.
        tasks: number of pickup tasks.
        seeds: training seeds of each option.
        spread: standard deviation of the initial states' difficulty, in logits; 0: pairs are not correlated.
        luck: standard deviation of what a training seed adds to all episodes of its checkpoint, in logits.
    """

    states: int = 50
    tasks: int = 2
    seeds: int = 1
    spread: float = 2.2
    luck: float = 0.0

    def episodes(self, rates: dict[str, float], rng: np.random.Generator) -> pl.DataFrame:
        """One experiment: a row per episode, as `evaluations.episode_table` has it."""
        difficulty = rng.normal(0, self.spread, (self.tasks, self.states, 1))
        parts = []
        for option, rate in rates.items():
            luck = rng.normal(0, self.luck, (1, 1, self.seeds))
            chance = 1 / (1 + np.exp(-(self._logit(rate) - difficulty + luck)))
            success = rng.random(chance.shape) < chance
            task, state, seed = (index.ravel() for index in np.indices(chance.shape))
            columns = {"task": task, "init_state_id": state, "train_seed": seed, "success": success.ravel()}
            parts.append(pl.DataFrame(columns).with_columns(option=pl.lit(option)))
        return pl.concat(parts).with_columns(
            init_state_sha256=pl.format("{} {}", "task", "init_state_id"),
            env_seed=pl.col("task") * 1000 + pl.col("init_state_id"),
            noise_seed=pl.col("task") * 1000 + pl.col("init_state_id"),
            stages=pl.lit(None, pl.Int64),
            duration=pl.when("success").then(HORIZON // 2).otherwise(HORIZON),
            horizon=pl.lit(HORIZON),
        )

    def _logit(self, rate: float) -> float:
        """The logit at which the mean success over all initial states and seeds is `rate`."""
        points, weights = np.polynomial.hermite_e.hermegauss(61)
        scale = np.hypot(self.spread, self.luck)

        def excess(logit: float) -> float:
            return float((weights / (1 + np.exp(-(logit + scale * points)))).sum() / weights.sum()) - rate

        return optimize.brentq(excess, -30, 30)


@dataclass(frozen=True)
class Outcome:
    """What one experiment said."""

    worse: bool
    conclusion: str
    token: str
    correlation: float | None
    pairs: int


def simulate(
    world: World, rates: dict[str, float], decision: Decision, experiments: int, seed: int
) -> Iterator[Outcome]:
    """Run experiments with the given true success rates; the same seed gives the same outcomes."""
    rng = np.random.default_rng(seed)
    families = {pair: family for pair, family in FAMILIES.items() if set(pair) <= set(rates)}
    for _ in range(experiments):
        everything = world.episodes(rates, rng)
        tasks = range(world.tasks)
        for states in () if decision.stopping == "fixed" else range(LOOK, world.states, LOOK):
            episodes = everything.filter(pl.col("init_state_id") < states)
            primary = compare(episodes, {("E2", "E0"): "primary"}, tasks, decision)[0]
            if primary.success.conclusion != "INCONCLUSIVE":
                break
        else:
            episodes = everything
        compared = compare(episodes, families, tasks, decision)
        leads = {(c.option, c.reference): c.success.difference for c in compared}
        worse = leads["E2", "E0"] < 0
        run = leads if worse else {("E2", "E0"): leads["E2", "E0"]}  # the tree runs A where E2 < E0
        baseline = episodes.filter(option="E0")["success"]
        token = choose_token(baseline.mean(), run, decision)
        yield Outcome(worse, compared[0].success.conclusion, token, compared[0].correlation, len(baseline))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=500, help="for each truth")
    parser.add_argument("--states", type=int, default=50, help="initial states of each of the two tasks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 3], help="numbers of training seeds")
    parser.add_argument("--luck", type=float, default=0.0, help="how much training seeds differ [logits]")
    parser.add_argument("--margin", type=float, default=0.1, help="non-inferiority margin [fraction]")
    parser.add_argument("--claim", default="checkpoints", choices=["checkpoints", "methods"])
    stoppings = ["fixed", "anytime"]
    parser.add_argument("--stopping", nargs="+", default=stoppings, choices=[*stoppings, "adaptive"])
    args = parser.parse_args()
    settings = load_experiment(default_config()).decision
    settings = settings.model_copy(update={"margin": args.margin, "claim": args.claim})
    wrong = level(settings.confidence)
    print(f"{args.experiments} experiments each, margin {settings.margin:g}, level {wrong:g}: a false verdict")
    print(f"is within simulation error up to {_upper(args.experiments, wrong):.3f}.")
    print("stopping  seeds    E0    E2     A  corr  E2<E0  NON_INF  INFERIOR  INCONCL  false  pairs  token")
    for stopping in args.stopping:
        decision = settings.model_copy(update={"stopping": stopping})
        for seeds in args.seeds:
            world = World(states=args.states, seeds=seeds, luck=args.luck)
            for baseline in (0.5, 0.8):
                for loss in (0.0, 0.05, 0.1, 0.2):
                    rates = {"E0": baseline, "E2": baseline - loss, "A": baseline}
                    outcomes = list(simulate(world, rates, decision, args.experiments, seed=0))
                    print(f"{stopping:<8}  {seeds:>5}  {_row(outcomes, rates, decision)}", flush=True)


def _upper(experiments: int, wrong: float) -> float:
    return float(stats.binom.ppf(0.999, experiments, wrong)) / experiments


def _row(outcomes: list[Outcome], rates: dict[str, float], decision: Decision) -> str:
    said = Counter(outcome.conclusion for outcome in outcomes)
    share = {name: said[name] / len(outcomes) for name in ("NON_INFERIOR", "INFERIOR", "INCONCLUSIVE")}
    loss = rates["E0"] - rates["E2"]
    false = share["INFERIOR"] if loss <= 0 else share["NON_INFERIOR"] if loss >= decision.margin - 1e-9 else None
    correlations = [outcome.correlation for outcome in outcomes if outcome.correlation is not None]
    token, count = Counter(outcome.token for outcome in outcomes).most_common(1)[0]
    cells = [*(f"{rate:.2f}" for rate in rates.values()), f"{np.mean(correlations):.2f}"]
    cells += [f"{np.mean([outcome.worse for outcome in outcomes]):.3f}"]
    cells += [*(f"{value:.3f}" for value in share.values()), "-" if false is None else f"{false:.3f}"]
    cells += [f"{np.mean([outcome.pairs for outcome in outcomes]):.0f}"]
    widths = (4, 4, 4, 4, 5, 7, 8, 7, 5, 5)
    line = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
    return f"{line}  {token} {count / len(outcomes):.2f}"


if __name__ == "__main__":
    main()
