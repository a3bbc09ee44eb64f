"""The specs handed to the stages: for each artifact, just the part of the config that it depends on.

A spec travels to a program as JSON (`--spec`) and is part of its rule's params, so editing any other key reruns
nothing. `experiment.config.Experiment` makes the specs. This module holds only fields and validators; anything that
decides something lives in a module that is hashed into artifacts. Light (no torch).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from world_modality.experiment.sections import (
    Camera,
    Criteria,
    Decision,
    Family,
    Hours,
    Hyperparameters,
    OptionName,
    OptionRow,
    Policy,
    Scale,
    Section,
    Simulation,
    Tree,
    Vlm,
    World,
    explain,
    nearest,
)
from world_modality.program import existing


class RecordSpec(Section):
    """What recording one task's demonstrations depends on."""

    simulation: Simulation
    episodes: int
    max_attempts: int
    seed: int
    image_keys: dict[Camera, str]


class InitStatesSpec(Section):
    """What drawing initial states depends on, in addition to task and number."""

    suite: str
    spread: float
    settle_steps: int


class TrainSpec(Section):
    """What training one option depends on, in addition to its inputs and its seed."""

    option: str
    device: str
    image_keys: dict[Camera, str]
    cameras: tuple[Camera, ...]
    memory: str
    images: str
    world: World | None
    vlm: Vlm
    policy: Policy
    training: Hyperparameters
    held_out_per_task: int
    own_schedule: tuple[str, ...]  # hyperparameters that the option's row sets for itself


class EvalProtocol(Section):
    """What must be equal between two options for their rollouts to be comparable."""

    simulation: Simulation
    horizon: int
    n_action_steps: int
    batch_size: int


class RolloutSpec(Section):
    """What rolling out one option depends on, in addition to its checkpoint, task and initial states."""

    option: str
    source_option: str
    device: str
    image_keys: dict[Camera, str]
    memory: str
    images: str
    world_cameras: tuple[Camera, ...]
    rollout_cameras: tuple[Camera, ...]
    window: int | None
    noise_stream: int
    protocol: EvalProtocol


class EvaluationSpec(Section):
    """What an evaluation file holds in addition to its episodes."""

    rollout: RolloutSpec
    episodes: int = Field(description="initial states 0 … n-1 of each task")
    adaptive: bool = Field(description="fewer episodes are right where they settled what the option is evaluated for")


class LookSpec(Section):
    """What a look at a comparison depends on, in addition to its episodes."""

    option: EvaluationSpec
    reference: EvaluationSpec
    tasks: tuple[int, ...]
    criteria: Criteria
    family: Family
    members: int = Field(ge=1, description="comparisons that may be judged in its family: each gets its share")


class Stage(Section):
    """A stage of an option that the plan may run."""

    name: str
    kind: Literal["latents", "train", "evaluate"]
    hours: Hours | None = Field(description="what it costs; null: not known [GPU-hours]")
    after: tuple[str, ...] = Field(description="stages of the plan that must end before it starts")


class Candidate(Section):
    """An option that the tree may ask for, in addition to those in `run`."""

    name: OptionName
    ends: tuple[str, ...] = Field(description="the stages it ends with; it needs them and all stages before them")


class PlanSpec(Section):
    """What the plan depends on, in addition to the branch: the budget, and each stage once, even if it is shared."""

    scale: Scale = Field(description="the scale whose costs the stages have")
    gpu_hours: float | None = Field(ge=0)
    gpus: int = Field(ge=1)
    stages: tuple[Stage, ...] = Field(description="each listed after the stages it waits for")
    candidates: tuple[Candidate, ...]

    @model_validator(mode="after")
    def _check(self):
        seen: list[str] = []
        for stage in self.stages:
            if stage.name in seen:
                raise ValueError(f"stages: {stage.name} is listed twice")
            for name in stage.after:
                if name not in seen:
                    raise ValueError(f"stages: {stage.name} comes after {name}, which is not listed before it")
            seen.append(stage.name)
        unknown = [stage.name for stage in self.stages if stage.hours is None]
        if unknown and len(unknown) < len(self.stages):
            raise ValueError(f"stages: what {unknown[0]} costs is not known, but what others cost is")
        if unknown and self.gpu_hours is not None:
            raise ValueError(f"gpu_hours: a budget needs the costs of all stages; that of {unknown[0]} is not known")
        for candidate in self.candidates:
            for name in candidate.ends:
                if name not in seen:
                    raise ValueError(f"candidates: {candidate.name} ends with {name}; {nearest(name, seen)}")
        return self


class JudgeSpec(Section):
    """What the judgement of the pickup tasks depends on, in addition to the look that stopped the comparison."""

    decision: Tree
    run: list[OptionName]
    plan: PlanSpec

    @model_validator(mode="after")
    def _check(self):
        for name in (self.decision.baseline, self.decision.world):
            if name not in self.run:
                raise ValueError(f"run: the tree needs {name}")
        planned = [candidate.name for candidate in self.plan.candidates]
        for name in [*self.decision.on_hurt, *self.decision.on_success]:
            if name not in self.run and name not in planned:
                raise ValueError(f"plan.candidates: the tree may ask for {name}")
        return self


class PairCosts(Section):
    """What more evidence on the option and the reference of the primary comparison costs, both together."""

    state: float = Field(ge=0, description="one more initial state of every evaluated task, one seed [GPU-hours]")
    seed: float = Field(ge=0, description="training both with one more seed [GPU-hours]")


class DecisionSpec(JudgeSpec):
    """What the decision depends on, in addition to the evaluations, the looks and the judgement."""

    decision: Decision
    options: dict[OptionName, OptionRow] = Field(description="the options that may be evaluated")
    labels: dict[OptionName, str]
    scale: Scale
    rounds: tuple[int, ...] = Field(min_length=1, description="initial states of each task after each round")
    costs: PairCosts | None = Field(description="null: the costs of the scale are not known")

    @model_validator(mode="after")
    def _check_run(self):
        for name in self.run:
            if name not in self.options:
                raise ValueError(f"no option {name}; {nearest(name, self.options)}")
        return self


def spec_argument(model: type[Section]) -> Callable[[str], Section]:
    """An argparse type: a spec given as JSON, or as the path of a JSON file."""

    def parse(text: str) -> Section:
        if not text.lstrip().startswith("{"):
            text = existing(text).read_text(encoding="utf-8")
        try:
            return model.model_validate_json(text)
        except ValidationError as error:
            raise argparse.ArgumentTypeError("; ".join(explain(e, model) for e in error.errors())) from None

    return parse
