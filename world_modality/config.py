"""The experiment: typed, validated and light (no torch), because the Snakefile imports it.

`config.yaml` holds every value; the models below hold what each key means and which values are possible, and no
defaults, so that a value stands in one place. Each stage is handed a small frozen *spec* made of just the keys its
artifact depends on (`Experiment.record_spec()` and its siblings). A spec travels to a script as JSON (`--spec`) and is
part of its rule's params, so editing any other key reruns nothing.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from world_modality.errors import InputError
from world_modality.program import existing


def _distinct(values):
    for i, value in enumerate(values):
        if value in values[:i]:
            raise ValueError(f"{value} is listed twice")
    return values


MAX_SEED = 2**32 - 1  # numpy takes no greater one
Camera = Literal["front", "wrist"]
Scale = Literal["embedded", "smoke", "full"]
Memory = Literal["predicted", "zero", "random", "random-scaled", "shuffle", "signflip", "oracle"]
ROLLOUT_MEMORIES = ("random-scaled", "signflip")
Cameras = Annotated[tuple[Camera, ...], AfterValidator(_distinct)]
OptionName = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Za-z0-9-]*$")]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
PositiveInt = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
ImageKey = Annotated[str, StringConstraints(pattern=r"^\S+$")]
Naturals = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), AfterValidator(_distinct)]
Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(_distinct)]
Color = Annotated[str, StringConstraints(pattern=r"^#[0-9a-f]{6}$")]
OptionNames = Annotated[list[OptionName], AfterValidator(_distinct)]
Fraction = Annotated[float, Field(ge=0, le=1)]

LIBERO_SUITE_SIZES = {"libero_spatial": 10, "libero_object": 10, "libero_goal": 10, "libero_10": 10}
INIT_STATES_PER_TASK = 50


class ConfigError(InputError):
    """The experiment's configuration is wrong; the message names each offending key."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_values(cls, value, info):
        """YAML reads `on`, `off`, `yes` and `no` as truth values, which pydantic would take for 1 and 0."""
        values = value if isinstance(value, list) else [value]
        if any(isinstance(v, bool) for v in values) and cls.model_fields[info.field_name].annotation is not bool:
            raise ValueError("a truth value where none is expected")
        return value


class Simulation(_Section):
    """LIBERO, as the recorder and the evaluator both run it."""

    suite: Literal["libero_spatial", "libero_object", "libero_goal", "libero_10"] = Field(
        description="LIBERO task suite; the scripted expert knows libero_spatial"
    )
    camera_size: int = Field(ge=16, le=1024, description="side of the square camera images [px]")
    render: Literal["fast", "stock"] = Field(
        description="fast: no multisampling and no reflections, twice as fast; stock: LIBERO's own settings"
    )
    settle_steps: int = Field(ge=0, le=100, description="no-op control steps after a reset [steps]")


class Demonstrations(_Section):
    """The LeRobotDataset every policy is trained on."""

    source: Literal["simulate", "hub"] = Field(
        description="simulate: record the scripted expert; hub: an existing dataset"
    )
    tasks: Naturals = Field(description="task ids to record")
    episodes_per_task: PositiveInt = Field(description="successful demonstrations per task [episodes]")
    max_attempts_per_task: PositiveInt = Field(description="give up on a task after so many attempts [episodes]")
    seed: Seed = Field(description="first reset seed; attempt i of a task uses seed + i")
    repo_id: str | None = Field(description="hub: dataset id; simulate: null")
    revision: Commit | None = Field(description="hub: commit the dataset is pinned to; simulate: null")

    @model_validator(mode="after")
    def _check(self):
        if self.source == "hub" and (not self.repo_id or not self.revision):
            raise ValueError("source hub needs repo_id and revision (a commit)")
        if self.source == "simulate" and (self.repo_id or self.revision):
            raise ValueError("source simulate takes neither repo_id nor revision")
        if self.max_attempts_per_task < self.episodes_per_task:
            raise ValueError("max_attempts_per_task is below episodes_per_task")
        return self


class Encoder(_Section):
    """V-JEPA 2: small and random (weights from a seed), or a published one."""

    source: Literal["small", "hub"] = Field(description="small: built from the sizes below; hub: a published encoder")
    repo_id: str | None = Field(description="hub: model id; small: null")
    revision: Commit | None = Field(description="hub: commit the model is pinned to; small: null")
    image_size: PositiveInt = Field(description="side of the square the frames are resized to [px]")
    patch_size: PositiveInt = Field(description="small: side of a patch [px]")
    hidden_size: PositiveInt = Field(description="small: width of the latents D")
    layers: PositiveInt = Field(description="small: transformer layers")
    heads: PositiveInt = Field(description="small: attention heads")
    seed: Seed = Field(description="small: seed of the weights")

    @model_validator(mode="after")
    def _check(self):
        if self.source == "hub" and (not self.repo_id or not self.revision):
            raise ValueError("source hub needs repo_id and revision (a commit)")
        if self.source == "small" and (self.repo_id or self.revision):
            raise ValueError("source small takes neither repo_id nor revision")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of heads {self.heads}")
        return self


class Latents(_Section):
    """How the world latents are computed; what they are is said by `encoder` and `world.window`."""

    batch_size: PositiveInt = Field(description="windows encoded at once")


class World(_Section):
    """The world modality: what Prophet sees, predicts, and how the policy is trained with it."""

    window: int = Field(ge=1, le=64, description="m: frames in one encoder window [frames]")
    history: int = Field(ge=1, le=64, description="T_ctx: past latents Prophet sees [frames]")
    horizon: int = Field(ge=1, le=64, description="K: future latents Prophet predicts [frames]")
    prophet_width: PositiveInt = Field(description="width of Prophet's transformer")
    prophet_layers: PositiveInt = Field(description="layers of Prophet's transformer")
    heads: PositiveInt = Field(description="attention heads of Prophet and of the cross-attention")
    loss_weight: float = Field(ge=0, description="lambda_world: weight of the world loss beside the action loss")

    @model_validator(mode="after")
    def _check(self):
        if self.window > 2 and self.window % 2:
            raise ValueError(f"window {self.window}: V-JEPA 2 sees frames in pairs, so 1 or an even number")
        if self.prophet_width % self.heads:
            raise ValueError(f"prophet_width {self.prophet_width} is not a multiple of heads {self.heads}")
        return self


class Vlm(_Section):
    """The small SmolVLM, of the published one's classes, that a small policy is built on."""

    image_size: PositiveInt = Field(description="side of the square images SmolVLA sees [px]")
    patch_size: PositiveInt = Field(description="side of a vision patch [px]")
    pixel_shuffle: PositiveInt = Field(description="patches merged per side into one image token")
    hidden_size: PositiveInt = Field(description="width of the text and vision towers")
    layers: PositiveInt = Field(description="layers of the text and vision towers")
    heads: PositiveInt = Field(description="attention heads (half as many key-value heads)")

    @model_validator(mode="after")
    def _check(self):
        if self.image_size % (self.patch_size * self.pixel_shuffle):
            raise ValueError("image_size is not a multiple of patch_size x pixel_shuffle")
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of heads {self.heads}")
        if self.heads % 2:
            raise ValueError(f"heads {self.heads} is odd: it cannot have half as many key-value heads")
        return self


class Policy(_Section):
    """SmolVLA on top of its VLM."""

    expert_width: float = Field(gt=0, le=1, description="width of the action expert relative to the text tower")
    chunk_size: int = Field(ge=1, le=100, description="actions predicted at once [steps]")
    flow_steps: PositiveInt = Field(description="denoising steps of the flow matching")


class Hyperparameters(_Section):
    """How a checkpoint is trained; one block for every option."""

    steps: PositiveInt = Field(description="optimizer updates [steps]")
    batch_size: PositiveInt = Field(description="samples per update")
    learning_rate: float = Field(gt=0, le=1, description="peak of AdamW's learning rate")
    warmup_steps: int = Field(ge=0, description="linear warm-up [steps]")
    final_learning_rate: float = Field(gt=0, le=1, description="end of the cosine decay")
    weight_decay: float = Field(ge=0, description="AdamW's weight decay")
    grad_clip_norm: float = Field(gt=0, description="largest gradient norm")
    ema_decay: float = Field(
        ge=0, lt=1, description="decay of the averaged weights that are saved; 0: the last weights"
    )

    @model_validator(mode="after")
    def _check(self):
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} is not below steps {self.steps}")
        if self.final_learning_rate > self.learning_rate:
            raise ValueError("final_learning_rate is above learning_rate")
        return self


class Training(Hyperparameters):
    """The hyperparameters, how many checkpoints of each option are trained with them, and how a training runs."""

    seeds: Seeds = Field(description="one checkpoint per option and seed (model, data order and flow noise)")
    save_every: PositiveInt = Field(description="updates between two saved training states [steps]; changes no weights")
    cache_frames: bool = Field(description="keep every decoded image in memory, where they fit; changes no weights")
    loader_workers: int = Field(ge=0, description="processes that load batches; changes no weights")


class Evaluation(_Section):
    """Closed-loop rollouts from LIBERO's benchmark initial states, the same for every option."""

    tasks: Naturals = Field(description="task ids to evaluate")
    episodes: int = Field(ge=1, le=INIT_STATES_PER_TASK, description="initial states 0 … n-1 of each task [episodes]")
    block_size: int = Field(ge=1, le=INIT_STATES_PER_TASK, description="initial states evaluated by one job [episodes]")
    horizon: PositiveInt = Field(description="an episode fails after so many control steps [steps]")
    n_action_steps: PositiveInt = Field(description="actions executed of each predicted chunk [steps]")
    video_size: int = Field(ge=64, le=1024, description="side of the recorded videos [px]")

    @model_validator(mode="after")
    def _check(self):
        if INIT_STATES_PER_TASK % self.block_size:
            raise ValueError(f"block_size {self.block_size} does not divide the {INIT_STATES_PER_TASK} initial states")
        return self


class Tree(_Section):
    """Who plays which part in the decision tree, and what it schedules; the tree itself is code."""

    pickup_tasks: Naturals = Field(description="tasks the tree asks about")
    baseline: OptionName = Field(description="the option without a world modality (E0)")
    world: OptionName = Field(description="the option judged against the baseline (E2)")
    wrist: OptionName = Field(description="the wrist experiment's preferred option (A)")
    fusion: OptionName | None = Field(description="the option that sees both cameras (C), where there is one")
    wrist_experiment: Literal["if_world_hurts", "always"] = Field(
        description="always: run the wrist options whatever the branch; the branch is reported the same"
    )
    on_success: OptionNames = Field(description="options to run where world helps or is neutral: [] or the fusion")


class Decision(Tree):
    """The tree, and the thresholds of what is reported beside it."""

    min_baseline_success: Fraction = Field(description="below this pooled pickup success of the baseline: VOID")
    confidence: float = Field(gt=0.5, lt=1, description="confidence level of the reported intervals")
    margin: float = Field(
        gt=0, lt=1, description="non-inferiority margin: a loss of pickup success that would not matter [fraction]"
    )
    min_world_effect: float = Field(
        ge=0, description="|tanh(gate)| or action change (RMS) below this: the decision says `world path inactive`"
    )


class Figures(_Section):
    """How the figures look."""

    task_colors: Annotated[list[Color], Field(min_length=1)] = Field(
        description="colours of the tasks, in order, again from the first where there are more tasks"
    )
    pickup_color: Color = Field(description="colour of the pickup tasks pooled")


class LearningSchedule(_Section):
    """What an option's training may do otherwise than `training` says; the decision reports it."""

    learning_rate: float | None = Field(default=None, gt=0, le=1, description="peak of AdamW's learning rate")
    warmup_steps: int | None = Field(default=None, ge=0, description="linear warm-up [steps]")
    final_learning_rate: float | None = Field(default=None, gt=0, le=1, description="end of the cosine decay")


class OptionRow(_Section):
    """What an option is to the decision tree: what it sees, and whose checkpoint it rolls out."""

    cameras: Cameras = Field(default=(), description="cameras of the world latents; none: no world modality")
    window: int | None = Field(default=None, ge=1, le=64, description="its own m in place of world.window [frames]")
    memory: Memory | None = Field(
        default=None,
        description="what the policy attends to. predicted: Prophet's prediction, which a trained row does unless it "
        "says otherwise; zero; random: noise; random-scaled: noise as strong as the prediction; shuffle: another "
        "prediction of the batch or episode; signflip: half of its dimensions with the other sign; oracle: the true "
        "future, in training",
    )
    images: Literal["seen", "blank"] = Field(default="seen", description="blank: every image the policy sees is black")
    checkpoint_of: OptionName | None = Field(
        default=None, description="rolls out this option's checkpoint; trains nothing"
    )
    rollout_cameras: Cameras = Field(
        default=(), description="with checkpoint_of: the camera seen at rollout in place of the one trained on"
    )
    rollout_window: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="with checkpoint_of: another window m at rollout, a known mismatch [frames]",
    )

    @model_validator(mode="after")
    def _check(self):
        if self.images == "blank" and self.cameras:
            raise ValueError("blank images leave the world cameras nothing to see")
        if self.checkpoint_of and self.cameras:
            raise ValueError("a row with checkpoint_of takes its cameras from that option")
        if self.memory and not self.cameras and not self.checkpoint_of:
            raise ValueError("memory without cameras: name the cameras of the world latents")
        if self.memory == "oracle" and self.checkpoint_of:
            raise ValueError("memory oracle is for training alone: nobody knows the future at rollout")
        if self.memory in ROLLOUT_MEMORIES and not self.checkpoint_of:
            raise ValueError(f"memory {self.memory} is for rollout alone: name the checkpoint_of another option")
        if self.window and not self.cameras:
            raise ValueError("window without cameras: name the cameras of the world latents")
        for name in ("rollout_cameras", "rollout_window"):
            if getattr(self, name) and not self.checkpoint_of:
                raise ValueError(f"{name}: only a row with checkpoint_of may differ at rollout from its training")
        return self


class Option(OptionRow):
    """One row of the option table. A row with `checkpoint_of` states only what it changes at rollout."""

    label: str = Field(min_length=1, description="what the option is, in words")
    training: LearningSchedule | None = Field(default=None, description="its own learning schedule, where it needs one")

    @model_validator(mode="after")
    def _check_training(self):
        if self.checkpoint_of and self.training:
            raise ValueError("a row with checkpoint_of trains nothing, so it takes no training")
        return self


class Experiment(_Section):
    """The whole of `config.yaml`."""

    scale: Scale = Field(description="how the verdict calls itself")
    device: Literal["cpu", "cuda"] = Field(description="where encoding, training and rollouts compute")
    image_keys: dict[Camera, ImageKey] = Field(description="the cameras' keys in the dataset")
    simulation: Simulation
    demonstrations: Demonstrations
    encoder: Encoder
    latents: Latents
    world: World
    vlm: Vlm
    policy: Policy
    training: Training
    evaluation: Evaluation
    decision: Decision
    figures: Figures
    run: OptionNames = Field(min_length=2, description="options that are always evaluated")
    options: dict[OptionName, Option] = Field(description="the option table")

    @field_validator("image_keys")
    @classmethod
    def _both_cameras(cls, keys):
        missing = {"front", "wrist"} - set(keys)
        if missing:
            raise ValueError(f"no image key for {', '.join(sorted(missing))}")
        if len(set(keys.values())) != len(keys):
            raise ValueError("two cameras have the same image key")
        return keys

    @model_validator(mode="after")
    def _check(self):
        self._check_options()
        self._check_tasks()
        if self.evaluation.n_action_steps > self.policy.chunk_size:
            raise ValueError(
                f"evaluation.n_action_steps {self.evaluation.n_action_steps} is above "
                f"policy.chunk_size {self.policy.chunk_size}"
            )
        if self.demonstrations.source == "simulate" and self.simulation.suite != "libero_spatial":
            raise ValueError(f"simulation.suite: the scripted expert knows libero_spatial, not {self.simulation.suite}")
        expert = int(self.vlm.hidden_size * self.policy.expert_width)
        if expert % self.world.heads:
            raise ValueError(f"world.heads: {self.world.heads} do not divide the action expert's width, {expert}")
        return self

    def _check_options(self) -> None:
        decision = self.decision
        roles = {f"decision.{role}": getattr(decision, role) for role in ("baseline", "world", "wrist", "fusion")}
        named = {key: name for key, name in roles.items() if name}
        named |= {f"run[{i}]": name for i, name in enumerate(self.run)}
        named |= {f"decision.on_success[{i}]": name for i, name in enumerate(decision.on_success)}
        named |= {f"options.{n}.checkpoint_of": o.checkpoint_of for n, o in self.options.items() if o.checkpoint_of}
        for key, name in named.items():
            if name not in self.options:
                raise ValueError(f"{key}: no option {name}; {_nearest(name, self.options)}")
        self._check_roles({key: name for key, name in roles.items() if name})
        for name, option in self.options.items():
            source = option.checkpoint_of and self.options[option.checkpoint_of]
            if source and source.checkpoint_of:
                raise ValueError(f"options.{name}.checkpoint_of: {option.checkpoint_of} has no checkpoint of its own")
            for key in ("memory", "rollout_cameras", "rollout_window"):
                if source and getattr(option, key) and not source.cameras:
                    raise ValueError(f"options.{name}.{key}: {option.checkpoint_of} has no world modality")
            if option.rollout_cameras and (len(option.rollout_cameras), len(source.cameras)) != (1, 1):
                raise ValueError(f"options.{name}.rollout_cameras: one camera in place of the one trained on")
            if source and option.images == "blank" and source.cameras:
                raise ValueError(f"options.{name}.images: blank leaves {option.checkpoint_of}'s cameras nothing to see")
        for name, option in self.options.items():
            for key, build in (("training", self._hyperparameters), ("window", self._world)):
                try:
                    build(option)
                except ValidationError as error:
                    raise ValueError(f"options.{name}.{key}: {_message(error.errors()[0])}") from None
        for role in (decision.baseline, decision.world):
            if role not in self.run:
                raise ValueError(f"run: the tree needs {role}")
        for name in dict.fromkeys([*self.run, *(name for name in roles.values() if name)]):
            if self._rollout_memory(name) == "oracle":
                raise ValueError(f"{name} cannot be evaluated: nobody knows the future (memory oracle) at rollout")

    def _check_roles(self, roles: dict[str, str]) -> None:
        taken: dict[str, str] = {}
        for key, name in roles.items():
            option = self.options[name]
            if option.checkpoint_of:
                raise ValueError(
                    f"{key}: {name} is not trained itself (checkpoint_of), so it takes no part in the tree"
                )
            if bool(option.cameras) == (key == "decision.baseline"):
                raise ValueError(f"{key}: {name} has {'a' if option.cameras else 'no'} world modality")
            if name in taken:
                raise ValueError(f"{key}: {name} is already {taken[name]}")
            taken[name] = key

    def _check_tasks(self) -> None:
        lists = {
            "demonstrations.tasks": self.demonstrations.tasks,
            "evaluation.tasks": self.evaluation.tasks,
            "decision.pickup_tasks": self.decision.pickup_tasks,
        }
        for key, tasks in lists.items():
            for task in tasks:
                try:
                    self.check_task(task)
                except ConfigError as error:
                    raise ValueError(f"{key}: {error}") from None
        for task in self.decision.pickup_tasks:
            if task not in self.evaluation.tasks:
                raise ValueError(f"decision.pickup_tasks: task {task} is not in evaluation.tasks")

    def check_task(self, task: int) -> None:
        """Raise ConfigError where the suite has no such task."""
        size = LIBERO_SUITE_SIZES[self.simulation.suite]
        if task >= size:
            raise ConfigError(f"{self.simulation.suite} has tasks 0 to {size - 1}, not {task}")

    # ---- what the rules ask -------------------------------------------------------------------------------------

    def checkpoint_option(self, name: str) -> str:
        """The option whose training made the checkpoint that `name` rolls out."""
        return self._option(name).checkpoint_of or name

    def latent_cameras(self, name: str) -> tuple[Camera, ...]:
        """Cameras whose latents the training of option `name` reads."""
        return self.options[self.checkpoint_option(name)].cameras

    def _option(self, name: str) -> Option:
        if name not in self.options:
            raise ConfigError(f"no option {name}; {_nearest(name, self.options)}")
        return self.options[name]

    def known_options(self) -> list[str]:
        """Options the decision reads whatever the branch."""
        wrist = [self.decision.wrist] if self.decision.wrist_experiment == "always" else []
        return list(dict.fromkeys([*self.run, *wrist]))

    def blocks(self) -> list[int]:
        """Numbers of the blocks of initial states that `evaluation.episodes` asks for."""
        return list(range(-(-self.evaluation.episodes // self.evaluation.block_size)))

    # ---- the specs handed to the stages -------------------------------------------------------------------------

    def record_spec(self) -> RecordSpec:
        d = self.demonstrations
        return RecordSpec(
            simulation=self.simulation,
            episodes=d.episodes_per_task,
            max_attempts=d.max_attempts_per_task,
            seed=d.seed,
            image_keys=self.image_keys,
        )

    def train_spec(self, name: str) -> TrainSpec:
        """What training option `name` depends on.

        Raises:
            ConfigError: there is no such option, or it rolls out another's checkpoint.
        """
        option = self._option(name)
        if option.checkpoint_of:
            raise ConfigError(f"{name} is not trained: it rolls out the checkpoint of {option.checkpoint_of}")
        return TrainSpec(
            option=name,
            device=self.device,
            image_keys=self.image_keys,
            cameras=option.cameras,
            memory=option.memory or "predicted",
            images=option.images,
            world=self._world(option) if option.cameras else None,
            vlm=self.vlm,
            policy=self.policy,
            training=self._hyperparameters(option),
            own_schedule=tuple(sorted(option.training.model_dump(exclude_none=True))) if option.training else (),
        )

    def _world(self, option: Option) -> World:
        """`world`, with the option's own window."""
        return World.model_validate(self.world.model_dump() | ({"window": option.window} if option.window else {}))

    def latent_tables(self, name: str) -> dict[Camera, str]:
        """The latent table of each world camera that the training of option `name` reads: `wrist`, or `wrist_m8`."""
        option = self.options[self.checkpoint_option(name)]
        own = f"_m{option.window}" if option.window and option.window != self.world.window else ""
        return {camera: f"{camera}{own}" for camera in option.cameras}

    def _hyperparameters(self, option: Option) -> Hyperparameters:
        """Those of `training`, with the option's own learning schedule."""
        values = {name: getattr(self.training, name) for name in Hyperparameters.model_fields}
        own = option.training.model_dump(exclude_none=True) if option.training else {}
        return Hyperparameters(**values | own)

    def rollout_spec(self, name: str) -> RolloutSpec:
        option, source = self._option(name), self.options[self.checkpoint_option(name)]
        return RolloutSpec(
            option=name,
            source_option=self.checkpoint_option(name),
            device=self.device,
            image_keys=self.image_keys,
            memory=self._rollout_memory(name),
            images="blank" if "blank" in (option.images, source.images) else "seen",
            world_cameras=source.cameras,
            rollout_cameras=option.rollout_cameras,
            window=option.rollout_window,
            protocol=EvalProtocol(
                simulation=self.simulation,
                horizon=self.evaluation.horizon,
                n_action_steps=self.evaluation.n_action_steps,
            ),
        )

    def _rollout_memory(self, name: str) -> Memory:
        option = self.options[name]
        return option.memory or self.options[self.checkpoint_option(name)].memory or "predicted"

    def evaluation_spec(self, name: str) -> EvaluationSpec:
        return EvaluationSpec(rollout=self.rollout_spec(name), episodes=self.evaluation.episodes)

    def judge_spec(self) -> JudgeSpec:
        tree = Tree(**{name: getattr(self.decision, name) for name in Tree.model_fields})
        return JudgeSpec(decision=tree, options=self._rows(self.run), run=self.run)

    def decision_spec(self) -> DecisionSpec:
        reported = dict.fromkeys([*self.run, self.decision.wrist, *self.decision.on_success])
        labels = {name: self.options[name].label for name in reported}
        return DecisionSpec(
            decision=self.decision, options=self._rows(reported), run=self.run, labels=labels, scale=self.scale
        )

    def _rows(self, names: Iterable[str]) -> dict[str, OptionRow]:
        """The rows of some options, and of those whose checkpoints they roll out."""
        wanted = dict.fromkeys([*names, *(self.checkpoint_option(name) for name in names)])
        return {
            name: OptionRow(**{f: getattr(self.options[name], f) for f in OptionRow.model_fields}) for name in wanted
        }


class RecordSpec(_Section):
    """What recording one task's demonstrations depends on."""

    simulation: Simulation
    episodes: int
    max_attempts: int
    seed: int
    image_keys: dict[Camera, str]


class TrainSpec(_Section):
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
    own_schedule: tuple[str, ...]  # hyperparameters that the option's row sets for itself


class EvalProtocol(_Section):
    """What must be equal between two options for their rollouts to be comparable."""

    simulation: Simulation
    horizon: int
    n_action_steps: int


class RolloutSpec(_Section):
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
    protocol: EvalProtocol


class EvaluationSpec(_Section):
    """What an evaluation file says beside its episodes."""

    rollout: RolloutSpec
    episodes: int


class JudgeSpec(_Section):
    """What the judgement of the pickup tasks depends on, beside the evaluations."""

    decision: Tree
    options: dict[OptionName, OptionRow] = Field(description="the options that may be evaluated")
    run: list[OptionName]

    @model_validator(mode="after")
    def _check(self):
        for name in self.run:
            if name not in self.options:
                raise ValueError(f"no option {name}; {_nearest(name, self.options)}")
        for name in (self.decision.baseline, self.decision.world):
            if name not in self.run:
                raise ValueError(f"run: the tree needs {name}")
        return self


class DecisionSpec(JudgeSpec):
    """What the decision depends on, beside the evaluations and the judgement."""

    decision: Decision
    labels: dict[OptionName, str]
    scale: Scale


def load_experiment(config: dict[str, Any]) -> Experiment:
    """Validate a merged configuration.

    Raises:
        ConfigError: one line per offending key, with the nearest valid key where one is misspelt.
    """
    try:
        return Experiment.model_validate(config)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(e, Experiment) for e in error.errors())) from None


def spec_argument(model: type[_Section]) -> Callable[[str], _Section]:
    """An argparse type: a spec given as JSON, or as the path of a JSON file."""

    def parse(text: str) -> _Section:
        if not text.lstrip().startswith("{"):
            text = existing(text).read_text(encoding="utf-8")
        try:
            return model.model_validate_json(text)
        except ValidationError as error:
            raise argparse.ArgumentTypeError("; ".join(_explain(e, model) for e in error.errors())) from None

    return parse


def _explain(error: Any, model: type[_Section]) -> str:
    key = ".".join(str(part) for part in error["loc"] if part != "[key]")
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key; {_nearest(str(error['loc'][-1]), _fields_at(error['loc'][:-1], model))}"
    if error["type"] == "missing":
        return f"{key}: missing"
    scalar = isinstance(error["input"], str | int | float | bool) or error["input"] is None
    return (f"{key}: " if key else "") + _message(error) + (f", not {error['input']!r}" if scalar else "")


def _message(error: Any) -> str:
    return error["msg"].removeprefix("Value error, ")


def _fields_at(location: tuple, model: type[BaseModel]) -> list[str]:
    for part in location:
        if part in model.model_fields:  # else the name of an option
            annotation = model.model_fields[part].annotation
            classes = (a for a in (annotation, *get_args(annotation)) if isinstance(a, type))
            model = next(c for c in classes if issubclass(c, BaseModel))
    return list(model.model_fields)


def _nearest(name: str, valid) -> str:
    close = difflib.get_close_matches(name, list(valid), n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}valid: {', '.join(valid)}"
