"""The specs handed to the stages: for each artifact just the part of the config it depends on.

A spec travels to a program as JSON (`--spec`) and is part of its rule's params: editing any other key reruns nothing.
`config.Experiment` makes them. Light (no torch).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from pydantic import Field, ValidationError, model_validator

from world_modality.program import existing
from world_modality.sections import (
    Camera,
    Decision,
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


class RecordSpec(Section):
    """What recording one task's demonstrations depends on."""

    simulation: Simulation
    episodes: int
    max_attempts: int
    seed: int
    image_keys: dict[Camera, str]


class InitStatesSpec(Section):
    """What drawing initial states depends on, beside task and number."""

    suite: str
    spread: float
    settle_steps: int


class TrainSpec(Section):
    """What training one option depends on, beside its inputs and its seed."""

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


class RolloutSpec(Section):
    """What rolling out one option depends on, beside its checkpoint, task and initial states."""

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
    """What an evaluation file says beside its episodes."""

    rollout: RolloutSpec
    episodes: int


class JudgeSpec(Section):
    """What the judgement of the pickup tasks depends on, beside the evaluations."""

    decision: Tree
    options: dict[OptionName, OptionRow] = Field(description="the options that may be evaluated")
    run: list[OptionName]

    @model_validator(mode="after")
    def _check(self):
        for name in self.run:
            if name not in self.options:
                raise ValueError(f"no option {name}; {nearest(name, self.options)}")
        for name in (self.decision.baseline, self.decision.world):
            if name not in self.run:
                raise ValueError(f"run: the tree needs {name}")
        return self


class DecisionSpec(JudgeSpec):
    """What the decision depends on, beside the evaluations and the judgement."""

    decision: Decision
    labels: dict[OptionName, str]
    scale: Scale


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
