"""What Snakemake would rebuild and why: its own plan, explained with the keys of the config.

Non-obvious behaviours of Snakemake 9:
* Its API builds a plan only in order to draw or run it. Here the same two steps are taken without doing either.
* It remembers a job's params as an unordered set of values without names. So a change arrives as two sets of texts.
  What a text holds shows which param it is: a source (files and their hashes), a spec (JSON), or flags.
* Before the checkpoint has run, the plan lacks what the branch may add. A second plan asks for that as well.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, Quietness, ResourceSettings

from world_modality.artifacts.sources import REPOSITORY
from world_modality.experiment import inputs
from world_modality.experiment.config import Experiment

CHECKPOINT, LOOK = "judge_pickup", "look_at_comparison"

_PLAN_KEYS = {"plan.gpu_hours": "budget.gpu_hours", "plan.gpus": "budget.gpus", "plan.stages": "costs"}
_PLAN_KEYS |= {"plan.candidates": "decision", "plan.scale": "scale"}

# The config key behind a part of a spec, or behind a flag; {option} is the job's option. A part that is not listed has
# the same name in the config. If several entries match the beginning of a name, the longest counts.
CONFIG_KEYS = {
    "record_demonstrations": {
        "episodes": "demonstrations.episodes_per_task",
        "max_attempts": "demonstrations.max_attempts_per_task",
        "seed": "demonstrations.seed",
    },
    "place_repository": {"": "commits"},
    "draw_init_states": {"": "simulation", "--first": "evaluation.block_size", "--count": "evaluation.block_size"},
    "build_encoder": {"": "encoder"},
    "pretrain_encoder": {
        "--image_keys": "image_keys",
        "--temporal_window": "world.window",
        "--held_out": "demonstrations.held_out_per_task",
        "--steps": "encoder.pretrain_steps",
        "--seed": "encoder.seed",
    },
    "build_vlm": {"": "vlm"},
    "encode_latents": {
        "--image_key": "image_keys",
        "--temporal_window": "world.window",
        "--image_size": "encoder.image_size",
        "--batch_size": "latents.batch_size",
        "--device": "device",
        "--precision": "encoder.precision",
    },
    "train_policy": {
        "held_out_per_task": "demonstrations.held_out_per_task",
        "cameras": "options.{option}.cameras",
        "memory": "options.{option}.memory",
        "images": "options.{option}.images",
        "--wrist_image_key": "image_keys.wrist",
        "--image_key": "image_keys",
        "--latents": "options.{option}.cameras",
        "--policy": "policy.source",
    },
    "evaluate_policy": {
        "memory": "options.{option}.memory",
        "images": "options.{option}.images",
        "world_cameras": "options.{option}.cameras",
        "rollout_cameras": "options.{option}.rollout_cameras",
        "window": "options.{option}.rollout_window",
        "noise_stream": "options.{option}.rollout_noise",
        "source_option": "options.{option}.checkpoint_of",
        "protocol": "evaluation",
        "protocol.simulation": "simulation",
        "--first": "evaluation.block_size",
        "--count": "evaluation.block_size",
    },
    "collect_evaluation": {"episodes": "evaluation", "adaptive": "decision.stopping"},
    "collect_attention": {"--episodes": "evaluation", "--adaptive": "decision.stopping"},
    "look_at_comparison": {
        "": "options",
        "tasks": "decision.pickup_tasks",
        "criteria": "decision",
        "family": "decision",
        "members": "decision",
        "option.episodes": "evaluation",
        "reference.episodes": "evaluation",
        "option.rollout.protocol": "evaluation",
        "reference.rollout.protocol": "evaluation",
        "option.rollout.protocol.simulation": "simulation",
        "reference.rollout.protocol.simulation": "simulation",
    },
    "measure_prophet": {"--held_out": "demonstrations.held_out_per_task"},
    "measure_attention": {"--actions": "evaluation.n_action_steps", "--device": "device"},
    "compare_attention": {"--world": "decision.world", "--wrist": "decision.wrist"},
    "judge_pickup": _PLAN_KEYS,
    "audit_fairness": {"--baseline": "decision.baseline", "--world": "decision.world"},
    "decide": _PLAN_KEYS | {"rounds": "evaluation", "costs": "costs"},
    "plot_figure": {"": "figures"},
}
CONFIG_KEYS["record_videos"] = CONFIG_KEYS["evaluate_policy"] | {"--size": "evaluation.video_size"}
CONFIG_KEYS["collect_evaluation"] |= {
    f"rollout.{name}": key for name, key in CONFIG_KEYS["evaluate_policy"].items() if not name.startswith("--")
}


@dataclass(frozen=True)
class Job:
    """One job of the plan.

    Attributes:
        needed: whether it would run.
        causes: why it would run even if no other job ran, in words.
    """

    rule: str
    message: str
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    params: dict[str, str]
    command: str
    needed: bool
    causes: tuple[str, ...]


@dataclass(frozen=True)
class JobPlan:
    """The experiment of the config files, and the jobs behind the targets, whether or not they would run."""

    experiment: Experiment
    jobs: list[Job]


def plan(
    targets: Iterable[str],
    directory: Path,
    configfiles: Sequence[Path] = (),
    snakefile: Path = REPOSITORY / "Snakefile",
) -> JobPlan:
    """Snakemake's plan for some targets in an experiment's folder."""
    settings = ConfigSettings(configfiles=[path.resolve() for path in configfiles])
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        built = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=settings,
            snakefile=snakefile,
            workdir=directory,
        )
        built.dag(DAGSettings(targets=set(targets)))
        workflow = built._workflow
        workflow._prepare_dag(forceall=False, ignore_incomplete=True, lock_warn_only=True)
        workflow._build_dag()
        jobs = sorted((_job(job, workflow.dag) for job in workflow.dag.jobs), key=lambda job: job.outputs)
        return JobPlan(workflow.globals["experiment"], jobs)


def _job(job, dag) -> Job:
    reason = dag.reason(job)
    params = {name: str(value) for name, value in job.params.items()}
    return Job(
        rule=job.rule.name,
        message=job.format_wildcards(job.rule.message) if job.rule.message else job.rule.name,
        outputs=tuple(map(str, job.output)),
        inputs=tuple(sorted(map(str, job.input))),
        params=params,
        command=job.rule.shellcmd or "",
        needed=bool(dag.needrun(job)),
        causes=tuple(dict.fromkeys(_causes(job, reason, params))) if dag.needrun(job) else (),
    )


# ---- causes ---------------------------------------------------------------------------------------------------------


def _causes(job, reason, params: dict[str, str]) -> Iterator[str]:
    """In words, why the job would run even if no other job ran."""
    if reason.forced:
        yield "it is asked for"
    if reason.nooutput or reason.noio:
        yield "it always runs"
    if reason.missing_output:
        yield "it has never been made" if not any(Path(str(f)).exists() for f in job.output) else "a part is missing"
    if reason.incomplete_output:
        yield "it was left half-finished"
    for path in sorted(reason.updated_input - reason.updated_input_run):
        yield f"{path} was changed by hand, or is newer"
    if reason.input_changed and not reason.missing_output:
        yield "it is made from other files than before"
    if reason.code_changed:
        yield f"the command of rule {job.rule.name} was edited"
    if reason.params_changed:
        yield from _param_changes(job, reason.params_changed)


def _param_changes(job, change) -> Iterator[str]:
    old, new = (_by_kind(ast.literal_eval(text) for text in texts) for texts in (change.only_old, change.only_new))
    for kind in sorted({*old, *new}):
        before, now = old.get(kind, {}), new.get(kind, {})
        for name in sorted({*before, *now}):
            if before.get(name) != now.get(name):
                yield _change(job, kind, name, before.get(name), now.get(name))


def _change(job, kind: str, name: str, before: Any, now: Any) -> str:
    if kind == "source":
        verb = "is new" if before is None else "is no longer used" if now is None else "was edited"
        return f"{name} {verb}"
    key = config_key(job.rule.name, name, getattr(job.wildcards, "option", ""))
    return f"{key} was {_shown(before)}, is now {_shown(now)}"


def _shown(value: Any) -> str:
    return "not there" if value is None else value if isinstance(value, str) else json.dumps(value)


def config_key(rule: str, name: str, option: str) -> str:
    """The config key behind a part of a rule's spec or one of its flags."""
    keys = CONFIG_KEYS.get(rule, {})
    if name.startswith("labels."):
        return f"options.{name.removeprefix('labels.')}.label"
    beginnings = [b for b in keys if name == b or name.startswith(f"{b}.") or b == ""]
    if not beginnings:
        return name.removeprefix("rollout.")
    begin = max(beginnings, key=len)
    rest = name if begin == "" else name[len(begin) :].lstrip(".")
    return ".".join(part for part in (keys[begin].format(option=option), rest) if part)


def _by_kind(params: Iterable[Any]) -> dict[str, dict[str, Any]]:
    """Named values of a job's params: `source`, by file; `spec`, by dotted key; `flags`, by flag."""
    found: dict[str, dict[str, Any]] = {}
    for param in params:
        content = _json(param)
        if isinstance(content, dict) and all(name.endswith(".py") for name in content):
            found.setdefault("source", {}).update(content)
        elif isinstance(content, dict):
            found.setdefault("spec", {}).update(_leaves(content))
        elif isinstance(param, str) and param.startswith("--"):
            found.setdefault("flags", {}).update(_flags(param))
        else:
            found.setdefault("spec", {})[""] = param
    return found


def _json(param: Any) -> Any:
    try:
        return json.loads(param)
    except (TypeError, ValueError):
        return None


def _leaves(content: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, list) and value and all(isinstance(item, dict) and "name" in item for item in value):
            value = {item["name"]: {k: v for k, v in item.items() if k != "name"} for item in value}
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _flags(text: str) -> dict[str, str]:
    parts = [part.split(maxsplit=1) for part in text.split("--") if part.strip()]
    return {f"--{part[0]}": part[1].strip() if len(part) > 1 else "" for part in parts}


# ---- the plan in words ----------------------------------------------------------------------------------------------


def explain(planned: JobPlan, hidden: Sequence[Job]) -> str:
    """The plan in plain words.

    Args:
        hidden: jobs that the branch of the tree may still add.
    """
    needed = [job for job in planned.jobs if job.needed]
    lines = [
        f"{len(needed)} of {len(planned.jobs)} jobs would run."
        if needed
        else "Nothing would run: everything is up to date."
    ]
    causes = dict.fromkeys(cause for job in needed for cause in job.causes)
    for cause in causes:
        lines += ["", f"Because {cause}:", *_listed([job for job in needed if cause in job.causes])]
    consequences = [job for job in needed if not job.causes]
    if consequences:
        lines += ["", "Then, because their inputs are rebuilt:", *_listed(consequences)]
    if planned.experiment.is_adaptive and any(job.rule == LOOK for job in needed):
        lines += ["", "Each look may ask for another round of episodes, up to evaluation.max_episodes a task."]
    if hidden:
        lines += [
            "",
            f"Unknown until {CHECKPOINT} has chosen the branch; these run only if it asks for them:",
            *_listed(hidden),
        ]
    return "\n".join(lines) + "\n"


def _listed(jobs: Sequence[Job]) -> list[str]:
    """One line per job; if a rule has many jobs, they share a line."""
    lines = []
    for rule in dict.fromkeys(job.rule for job in jobs):
        same = [job for job in jobs if job.rule == rule]
        if len(same) > 4:
            outputs = [output for job in same for output in job.outputs]
            lines.append(f"  {rule}: {len(same)} jobs, {outputs[0]} to {outputs[-1]}")
        else:
            lines += [f"  {job.message}: {', '.join(job.outputs)}".removesuffix(": ") for job in same]
    return lines


def hidden_jobs(planned: JobPlan, directory: Path, configfiles: Sequence[Path]) -> list[Job]:
    """Jobs that the branch may still add to a plan; none if the checkpoint has run and would not run again."""
    checkpoint = next((job for job in planned.jobs if job.rule == CHECKPOINT), None)
    if checkpoint is None or not checkpoint.needed:
        return []
    experiment, known = planned.experiment, {job.outputs for job in planned.jobs}
    scheduled = {*experiment.scheduled("wrist"), *experiment.scheduled("success")}
    open_options = scheduled - set(experiment.known_options())
    targets = inputs.evaluations(experiment, sorted(open_options))
    if not targets:
        return []
    return [job for job in plan(targets, directory, configfiles).jobs if job.needed and job.outputs not in known]
