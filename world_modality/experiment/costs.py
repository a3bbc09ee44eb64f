"""What each stage of the plan cost in a run, read from Snakemake's benchmark files, and `experiments/costs.yaml`.

Non-obvious behaviours of Snakemake's benchmarks: a file covers only the last attempt of a job, and it stays when the
config no longer asks for the job. So the list of jobs comes from the config, not from the files. And a training that
went on from a saved state says in its log how long it had taken before. An artifact could not say it: what was measured
differs from run to run, and an artifact must not.
"""

from __future__ import annotations

import csv
import re
import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from world_modality.artifacts.files import read_text
from world_modality.errors import InputError
from world_modality.experiment import paths
from world_modality.experiment.config import POLICY_KINDS, Experiment
from world_modality.experiment.sections import Costs, Scale
from world_modality.progress import seconds_before

SAME = 0.1  # a cost that changed by less than this fraction is kept, so that a rerun's noise rewrites nothing
RULES = {
    "latents": "encode_latents, once for all options and seeds",
    "train": "train_policy, an option and a seed, by the cameras of its world modality",
    "evaluate": "evaluate_policy on all tasks and record_videos, likewise",
}
Measured = dict[str, dict[str, list[float]]]  # hours of each job or sum of jobs, by stage and kind


def measure(experiment: Experiment, folder: Path) -> Measured:
    """The hours that each stage took in a run, by stage and kind as `Costs` names them.

    Args:
        folder: the experiment's folder.

    Raises:
        InputError: a stage has no benchmark file at all, only some of an option's jobs have one, or a training has no
            log.
    """
    measured: Measured = {
        "latents": {
            camera: _hours([[folder / paths.benchmark("encode_latents", camera)]]) for camera in ("front", "wrist")
        },
        "train": {kind: [] for kind in POLICY_KINDS},
        "evaluate": {kind: [] for kind in POLICY_KINDS},
    }
    for name, option in experiment.options.items():
        kind = POLICY_KINDS[len(experiment.latent_cameras(name))]
        if not option.checkpoint_of:
            trainings = _hours(_trainings(experiment, name, folder))
            before = _hours_before(experiment, name, folder) if trainings else []
            measured["train"][kind] += [sum(parts) for parts in zip(trainings, before, strict=True)]
        seeds = len(experiment.training.seeds)
        films = _hours([[folder / _film(name, task) for task in experiment.evaluation.tasks]])
        films_a_seed, most = sum(films) / seeds, measured_episodes(experiment, folder)
        scale = most / _episodes(experiment, name, folder)
        measured["evaluate"][kind] += [scale * h + films_a_seed for h in _hours(_evaluations(experiment, name, folder))]
    for stage, rules in RULES.items():
        if not any(measured[stage].values()):
            rule = rules.split()[0].rstrip(",")
            files = (folder / paths.benchmark(rule)).with_suffix("")
            raise InputError(f"{files}: no benchmark file of this experiment; run it first (make decision)")
    return measured


def measured_episodes(experiment: Experiment, folder: Path) -> int:
    """The episodes, of a seed, that the evaluations of `measure` are for: the most of any option.

    An adaptive run rolls out some options for fewer. Their hours are scaled up, because the cost is that of an
    evaluation that goes on as long as any.
    """
    return max(_episodes(experiment, name, folder) for name in experiment.options)


def _episodes(experiment: Experiment, option: str, folder: Path) -> int:
    """Episodes of an option and a seed, on all tasks; as in one block where it was not evaluated."""
    states = sum(len(experiment.block(block)) for block in _rolled_out(experiment, option, folder))
    return len(experiment.evaluation.tasks) * states


def _film(option: str, task: int) -> str:
    return paths.benchmark("record_videos", paths.task_job(option, task))


def _trainings(experiment: Experiment, option: str, folder: Path) -> Iterator[list[Path]]:
    for seed in experiment.training.seeds:
        yield [folder / paths.benchmark("train_policy", paths.training_job(option, seed))]


def _hours_before(experiment: Experiment, option: str, folder: Path) -> list[float]:
    """Hours that each training of an option had taken up to the state that its last attempt went on from."""
    logs = [folder / paths.log("train_policy", paths.training_job(option, seed)) for seed in experiment.training.seeds]
    for path in logs:
        if not path.exists():
            raise InputError(f"{path}: missing, and only it says whether the training was interrupted")
    return [seconds_before(read_text(path)) / 3600 for path in logs]


def _evaluations(experiment: Experiment, option: str, folder: Path) -> Iterator[list[Path]]:
    for seed in experiment.training.seeds:
        yield [
            folder / paths.benchmark("evaluate_policy", paths.block_job(option, seed, task, block))
            for task in experiment.evaluation.tasks
            for block in _rolled_out(experiment, option, folder)
        ]


def _rolled_out(experiment: Experiment, option: str, folder: Path) -> list[int]:
    """The blocks of an option: all, or those of the rounds it was evaluated for."""
    blocks = experiment.blocks()
    if not experiment.is_adaptive:
        return blocks
    jobs = [paths.block_job(option, experiment.training.seeds[0], experiment.evaluation.tasks[0], b) for b in blocks]
    ran = [(folder / paths.benchmark("evaluate_policy", job)).exists() for job in jobs]
    return blocks[: max(1, ran.index(False) if False in ran else len(ran))]


def _hours(groups: Iterable[Sequence[Path]]) -> list[float]:
    """Hours of each group of jobs, summed; an empty list if no job of any group ran."""
    groups = [list(group) for group in groups]
    files = [path for group in groups for path in group]
    if not any(path.exists() for path in files):
        return []
    for path in files:
        if not path.exists():
            raise InputError(f"{path}: missing, though others of its option are there; run the experiment to its end")
    return [sum(map(_job_hours, group)) for group in groups]


def _job_hours(path: Path) -> float:
    """Hours of one job; their mean if it was repeated."""
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines(), delimiter="\t"))
    try:
        return statistics.mean(float(row["s"]) for row in rows) / 3600
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: not a benchmark file of Snakemake: no seconds in column s") from None


def scale_text(measured: Measured, episodes: int, scale: Scale, before: Costs | None, device: str = "") -> str:
    """The costs of one scale, as `costs.yaml` lists them: means, to two digits.

    A kind that was not measured is given the highest cost measured in its stage.

    Args:
        episodes: that the evaluations are for (`measured_episodes`).
        before: the costs that the file has for this scale now; None if it has none.
    """
    where = f" on {device}" if device else ""
    same = before is not None and before.episodes == episodes  # else evaluations cannot be compared
    lines = [f"  {scale}:  # measured in a run{where} [job-hours], by the benchmark files of its jobs"]
    for stage, rules in RULES.items():
        lines.append(f"    {stage}:  # {rules}")
        means = {kind: statistics.mean(hours) for kind, hours in measured[stage].items() if hours}
        for kind, hours in measured[stage].items():
            old = getattr(getattr(before, stage), kind) if before and (stage != "evaluate" or same) else None
            note = f"mean of {len(hours)}" if hours else "not measured: as the dearest of the others"
            lines.append(f"      {kind}: {_settled(means.get(kind, max(means.values())), old):g}  # {note}")
    lines.append(f"    episodes: {episodes}  # that `evaluate` is for, on all tasks")
    return "\n".join(lines) + "\n"


def _settled(hours: float, old: float | None) -> float:
    return old if old is not None and abs(hours - old) <= SAME * old else float(f"{hours:.2g}")


def with_costs(text: str, scale: Scale, costs: str) -> str:
    """`costs.yaml` with the costs of one scale replaced; everything else stays, comments included.

    Raises:
        InputError: the text is not laid out like `costs.yaml`: each scale is a key on a line of its own, below `costs`.
    """
    head, *scales = re.split(r"^(?=  \w+:)", text, flags=re.MULTILINE)
    if not re.search(r"^costs:[ ]*(#.*)?\n\Z", head, flags=re.MULTILINE):
        raise InputError("costs.yaml: expected `costs:` and below it each scale on a line of its own, indented by two")
    places = {part.split(":")[0].strip(): part for part in scales}
    return head + "".join((places | {scale: costs}).values())
