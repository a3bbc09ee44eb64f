"""The sections of `config.yaml`: what each key means and which values are valid. They hold no defaults.

A value is set in one place, the file. An error names the offending key, and the nearest valid one if it is misspelt.
This module holds only fields and validators; anything that decides something lives in a module that is hashed into
artifacts. Light (no torch).
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from world_modality.errors import InputError
from world_modality.experiment.seeds import EVALUATION_SEEDS


def _distinct(values):
    for i, value in enumerate(values):
        if value in values[:i]:
            raise ValueError(f"{value} is listed twice")
    return values


def _coarse(hours):
    """The plan counts hours in their common unit; a solver would not tell larger numbers of finer ones apart."""
    if round(hours, 6) != hours:
        raise ValueError(f"{hours:g} is finer than a millionth of an hour")
    return hours


MAX_SEED = 2**32 - 1  # the largest that numpy accepts
Camera = Literal["front", "wrist"]
Precision = Literal["fp32", "bf16"]
Scale = Literal["embedded", "smoke", "full"]
Memory = Literal["predicted", "zero", "random", "random-scaled", "shuffle", "signflip", "oracle"]
ROLLOUT_MEMORIES = ("random-scaled", "signflip")
Cameras = Annotated[tuple[Camera, ...], AfterValidator(_distinct)]
OptionName = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Za-z0-9-]*$")]
COMMIT = r"^[0-9a-f]{40}$"
Commit = Annotated[str, StringConstraints(pattern=COMMIT)]
Revision = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")]
RepoId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")]
PositiveInt = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Hours = Annotated[float, Field(ge=0, le=1e6), AfterValidator(_coarse)]
ImageKey = Annotated[str, StringConstraints(pattern=r"^\S+$")]
Naturals = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), AfterValidator(_distinct)]
Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(_distinct)]
Color = Annotated[str, StringConstraints(pattern=r"^#[0-9a-f]{6}$")]
OptionNames = Annotated[list[OptionName], AfterValidator(_distinct)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Branch = Literal["success", "wrist"]
Family = Literal["primary", "adoption", "controls"]  # of comparisons whose verdicts are corrected together


class ConfigError(InputError):
    """The experiment's configuration is wrong; the message names each offending key."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_values(cls, value, info):
        """YAML reads `on`, `off`, `yes` and `no` as truth values, which pydantic would accept as 1 and 0."""
        values = value if isinstance(value, list) else [value]
        if any(isinstance(v, bool) for v in values) and cls.model_fields[info.field_name].annotation is not bool:
            raise ValueError("a truth value where none is expected")
        return value


def is_commit(revision: str) -> bool:
    """Whether a revision on the hub is a commit, which never moves, unlike a branch or a tag."""
    return re.fullmatch(COMMIT, revision) is not None


def _check_hub(section) -> None:
    """A section whose source is the hub must say where on the hub; any other must not."""
    if section.source == "hub" and (not section.repo_id or not section.revision):
        raise ValueError("source hub needs repo_id and revision")
    if section.source != "hub" and (section.repo_id or section.revision):
        raise ValueError(f"source {section.source} takes neither repo_id nor revision")


class Simulation(Section):
    """LIBERO, as both the recorder and the evaluator run it."""

    suite: Literal["libero_spatial", "libero_object", "libero_goal", "libero_10"] = Field(
        description="LIBERO task suite; the scripted expert knows libero_spatial"
    )
    camera_size: int = Field(ge=16, le=1024, description="side of the square camera images [px]")
    render: Literal["fast", "stock"] = Field(
        description="fast: no multisampling, no reflections, meshes with fewer faces; stock: LIBERO's own settings"
    )
    spread: float = Field(
        ge=0,
        le=0.3,
        description="how far beyond LIBERO's own regions, on every side, object and target may begin, "
        "in demonstrations and evaluation alike; 0: LIBERO's resets and its benchmark initial states [m]",
    )
    settle_steps: int = Field(ge=0, le=100, description="no-op control steps after a reset [steps]")


class Demonstrations(Section):
    """The LeRobotDataset every policy is trained on."""

    source: Literal["simulate", "hub"] = Field(
        description="simulate: record the scripted expert; hub: an existing dataset"
    )
    tasks: Naturals = Field(description="task ids to record")
    episodes_per_task: PositiveInt = Field(description="successful demonstrations per task [episodes]")
    max_attempts_per_task: PositiveInt = Field(description="give up on a task after this many attempts [episodes]")
    held_out_per_task: int = Field(
        ge=0, description="the last episodes of each task, on which nothing is trained [episodes]"
    )
    seed: Seed = Field(description="first reset seed; attempt i of a task uses seed + i")
    repo_id: RepoId | None = Field(description="hub: dataset id; simulate: null")
    revision: Revision | None = Field(description="hub: a commit, or a branch or tag pinned by `commits`")

    @model_validator(mode="after")
    def _check(self):
        _check_hub(self)
        if self.max_attempts_per_task < self.episodes_per_task:
            raise ValueError("max_attempts_per_task is below episodes_per_task")
        if self.held_out_per_task >= self.episodes_per_task:
            raise ValueError("held_out_per_task leaves none of episodes_per_task to train on")
        if self.seed + self.max_attempts_per_task > EVALUATION_SEEDS:
            raise ValueError(f"seed: the seeds from {EVALUATION_SEEDS} on are those of the evaluation's initial states")
        return self


class EncoderWeights(Section):
    """V-JEPA 2: a small random one (weights from a seed), or a published one."""

    source: Literal["small", "hub"] = Field(description="small: built from the sizes below; hub: a published encoder")
    repo_id: RepoId | None = Field(description="hub: model id; small: null")
    revision: Revision | None = Field(description="hub: a commit, or a branch or tag pinned by `commits`")
    image_size: PositiveInt = Field(description="side of the square the frames are resized to [px]")
    patch_size: PositiveInt = Field(description="small: side of a patch [px]")
    hidden_size: PositiveInt = Field(description="small: width of the latents D")
    layers: PositiveInt = Field(description="small: transformer layers")
    heads: PositiveInt = Field(description="small: attention heads")
    seed: Seed = Field(description="small: seed of the weights")

    @model_validator(mode="after")
    def _check(self):
        _check_hub(self)
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of heads {self.heads}")
        return self


class Encoder(EncoderWeights):
    """The weights, whether they are trained further before they encode anything, and how they compute."""

    precision: Precision = Field(
        description="of the matrix products, in the latents and at rollout: fp32, or bf16 by autocast (weights stay "
        "float32)"
    )
    pretrain_steps: int = Field(
        ge=0,
        description="small: updates of masked latent prediction on both cameras' demonstrations; 0: none [steps]",
    )

    @model_validator(mode="after")
    def _check_pretraining(self):
        if self.source == "hub" and self.pretrain_steps:
            raise ValueError("pretrain_steps: a published encoder is pretrained already")
        return self


class Latents(Section):
    """How the world latents are computed; `encoder` and `world.window` say what they are."""

    batch_size: PositiveInt = Field(description="windows encoded at once")


class World(Section):
    """The world modality: what Prophet sees, predicts, and how the policy is trained with it."""

    window: int = Field(ge=1, le=64, description="m: frames in one encoder window [frames]")
    history: int = Field(ge=1, le=64, description="T_ctx: past latents Prophet sees [frames]")
    horizon: int = Field(ge=1, le=64, description="K: future latents Prophet predicts [frames]")
    prophet_width: PositiveInt = Field(description="width of Prophet's transformer")
    prophet_layers: PositiveInt = Field(description="layers of Prophet's transformer")
    heads: PositiveInt = Field(description="attention heads of Prophet and of the cross-attention")
    loss_weight: float = Field(ge=0, description="lambda_world: weight of the world loss relative to the action loss")

    @model_validator(mode="after")
    def _check(self):
        if self.window > 2 and self.window % 2:
            raise ValueError(f"window {self.window}: V-JEPA 2 sees frames in pairs, so 1 or an even number")
        if self.prophet_width % self.heads:
            raise ValueError(f"prophet_width {self.prophet_width} is not a multiple of heads {self.heads}")
        return self


class Vlm(Section):
    """The SmolVLM that SmolVLA is built on: a published one, or a small one of the same classes."""

    source: Literal["small", "hub"] = Field(
        description="small: built from the sizes below; hub: config, tokenizer and processor of a published one, whose "
        "sizes must be those below"
    )
    repo_id: RepoId | None = Field(description="hub: model id; small: null")
    revision: Revision | None = Field(description="hub: a commit, or a branch or tag pinned by `commits`")
    image_size: PositiveInt = Field(description="side of the square images SmolVLA sees [px]")
    patch_size: PositiveInt = Field(description="small: side of a vision patch [px]")
    pixel_shuffle: PositiveInt = Field(description="small: patches merged per side into one image token")
    hidden_size: PositiveInt = Field(description="width of the text tower; small: of the vision tower too")
    layers: PositiveInt = Field(description="layers of the text tower SmolVLA uses; small: of the vision tower too")
    heads: PositiveInt = Field(description="small: attention heads (half as many key-value heads)")

    @model_validator(mode="after")
    def _check(self):
        _check_hub(self)
        if self.source == "hub":
            return self
        if self.image_size % (self.patch_size * self.pixel_shuffle):
            raise ValueError("image_size is not a multiple of patch_size x pixel_shuffle")
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of heads {self.heads}")
        if self.heads % 2:
            raise ValueError(f"heads {self.heads} is odd: it cannot have half as many key-value heads")
        return self


class Policy(Section):
    """SmolVLA on top of its VLM."""

    source: Literal["small", "hub"] = Field(
        description="small: weights from the training's seed; hub: those of a published SmolVLA, whose processors are "
        "kept and whose sizes must be those below"
    )
    repo_id: RepoId | None = Field(description="hub: model id; small: null")
    revision: Revision | None = Field(description="hub: a commit, or a branch or tag pinned by `commits`")
    expert_width: float = Field(gt=0, le=1, description="width of the action expert relative to the text tower")
    chunk_size: int = Field(ge=1, le=100, description="actions predicted at once [steps]")
    flow_steps: PositiveInt = Field(description="denoising steps of the flow matching")

    @model_validator(mode="after")
    def _check(self):
        _check_hub(self)
        return self


class Hyperparameters(Section):
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
    precision: Precision = Field(
        description="of the matrix products in training: fp32, or bf16 by autocast (weights stay float32)"
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


class EvaluationSettings(Section):
    """Closed-loop rollouts from the same initial states for every option."""

    tasks: Naturals = Field(description="task ids to evaluate")
    episodes: int | None = Field(
        ge=1,
        le=10_000,
        description="fixed, anytime: initial states 0 … n-1 of each task, for every option; adaptive: null [episodes]",
    )
    max_episodes: int = Field(
        ge=1,
        le=10_000,
        description="adaptive: the most initial states of each task, for any option; LIBERO's benchmark (spread 0) has "
        "50 [episodes]",
    )
    block_size: int = Field(ge=1, le=10_000, description="initial states evaluated by one job [episodes]")
    blocks_per_round: int = Field(ge=1, le=1_000, description="adaptive: blocks of each task between two looks")
    horizon: PositiveInt = Field(description="an episode fails after this many control steps [steps]")
    n_action_steps: PositiveInt = Field(description="how many actions of each predicted chunk are executed [steps]")
    batch_size: int = Field(
        ge=1,
        le=1_024,
        description="episodes whose chunks the policy predicts at once; fewer are filled up, because in another shape "
        "the same numbers may round otherwise [episodes]",
    )
    video_size: int = Field(ge=64, le=1024, description="side of the recorded videos [px]")


class Tree(Section):
    """Which option plays which role in the decision tree, and what the tree schedules; the tree itself is code."""

    pickup_tasks: Naturals = Field(description="tasks the tree asks about")
    baseline: OptionName = Field(description="the option without a world modality (E0)")
    world: OptionName = Field(description="the option judged against the baseline (E2)")
    wrist: OptionName = Field(description="the wrist experiment's preferred option (A)")
    fusion: OptionName | None = Field(description="the option that sees both cameras (C), where there is one")
    wrist_experiment: Literal["if_world_hurts", "always"] = Field(
        description="always: ask for the options of on_hurt in either branch; the reported branch stays the same"
    )
    on_hurt: OptionNames = Field(description="options to run where world hurts, decision.wrist among them, best first")
    on_success: OptionNames = Field(description="options to run where world helps or is neutral, best first")


class Criteria(Section):
    """By what a comparison is judged, and when its evaluation stops."""

    confidence: float = Field(
        gt=0.5,
        le=0.999,
        description="of all intervals; a verdict is read off one end of an interval, so it is false at most half as "
        "often as the interval misses",
    )
    margin: float = Field(
        gt=0, lt=1, description="non-inferiority margin: a loss of pickup success that would not matter [fraction]"
    )
    stopping: Literal["fixed", "anytime", "adaptive"] = Field(
        description="fixed: evaluation.episodes is chosen beforehand, and the verdicts hold for that number; anytime: "
        "they also hold if it is raised after a look at them; adaptive: the pipeline looks after each round, and stops "
        "evaluating a comparison once it is settled, at the latest after evaluation.max_episodes"
    )
    claim: Literal["checkpoints", "methods"] = Field(
        description="what the verdicts are about. checkpoints: those that were trained; methods: any training seed, "
        "which takes several of them (training.seeds) and stopping: fixed"
    )


class Decision(Tree, Criteria):
    """The tree, the criteria of its verdicts, and the thresholds of what is reported next to them."""

    min_baseline_success: Fraction = Field(description="below this pooled pickup success of the baseline: VOID")
    power: float = Field(gt=0.5, lt=1, description="chance of the right verdict that `pairs to settle` asks for")
    when_inconclusive: Literal["keep_baseline", "follow_branch", "extend"] = Field(
        description="what the decision advises if the episodes settle nothing; runs nothing and changes no branch"
    )
    min_world_effect: float = Field(
        ge=0, description="|tanh(gate)| or action change (RMS) below this: the decision says `world path inactive`"
    )


class Budget(Section):
    """What the options that the tree asks for may cost."""

    gpu_hours: Hours | None = Field(description="for everything the tree asks for, together; null: no limit [h]")
    gpus: int = Field(ge=1, le=64, description="how many jobs of the plan run at the same time")


class LatentCosts(Section):
    """GPU-hours of encoding one camera's latents."""

    front: Hours = Field(description="the front camera's [GPU-hours]")
    wrist: Hours = Field(description="the wrist camera's [GPU-hours]")


class PolicyCosts(Section):
    """GPU-hours of a policy, by the number of cameras of its world modality."""

    none: Hours = Field(description="without a world modality [GPU-hours]")
    one: Hours = Field(description="with the latents of one camera [GPU-hours]")
    both: Hours = Field(description="with the latents of both cameras [GPU-hours]")


class Costs(Section):
    """What the stages that the plan counts cost at one scale; `experiments/costs.yaml`."""

    latents: LatentCosts = Field(description="encoding one camera's latents, once for all options and seeds")
    train: PolicyCosts = Field(description="training one option with one seed")
    evaluate: PolicyCosts = Field(description="evaluating one option with one seed on all tasks, videos included")
    episodes: int = Field(
        ge=1,
        le=10**9,
        description="episodes that `evaluate` is for: initial states of all tasks, of one seed [episodes]",
    )


class Repository(Section):
    """A repository of the hub at one revision, and which of its files are taken."""

    kind: Literal["dataset", "model"]
    repo_id: RepoId
    revision: Revision
    files: tuple[str, ...] = Field(description="patterns of file names; if there are none, all files")

    @property
    def name(self) -> str:
        """Its key in `commits`."""
        return f"{self.repo_id}@{self.revision}"


class Figures(Section):
    """How the figures look."""

    task_colors: Annotated[list[Color], Field(min_length=1)] = Field(
        description="colours of the tasks, in order; if there are more tasks, the colours repeat"
    )
    pickup_color: Color = Field(description="colour of the pooled pickup tasks")


class LearningSchedule(Section):
    """What an option's training may set differently from `training`; the decision reports it."""

    learning_rate: float | None = Field(default=None, gt=0, le=1, description="peak of AdamW's learning rate")
    warmup_steps: int | None = Field(default=None, ge=0, description="linear warm-up [steps]")
    final_learning_rate: float | None = Field(default=None, gt=0, le=1, description="end of the cosine decay")


class OptionRow(Section):
    """What an option is to the decision tree: what it sees, and whose checkpoint it rolls out."""

    cameras: Cameras = Field(default=(), description="cameras of the world latents; none: no world modality")
    window: int | None = Field(default=None, ge=1, le=64, description="its own m instead of world.window [frames]")
    memory: Memory | None = Field(
        default=None,
        description="what the policy attends to. predicted: Prophet's prediction, the default of a trained row; zero; "
        "random: noise; random-scaled: noise as strong as the prediction; shuffle: another prediction of the batch or "
        "episode; signflip: the prediction with the sign of half of its dimensions flipped; oracle: the true future, "
        "in training only",
    )
    images: Literal["seen", "blank"] = Field(default="seen", description="blank: every image the policy sees is black")
    checkpoint_of: OptionName | None = Field(
        default=None, description="rolls out this option's checkpoint; trains nothing"
    )
    rollout_cameras: Cameras = Field(
        default=(), description="with checkpoint_of: the camera seen at rollout instead of the one trained on"
    )
    rollout_window: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="with checkpoint_of: another window m at rollout, a known mismatch [frames]",
    )
    rollout_noise: int = Field(
        default=0,
        ge=0,
        description="with checkpoint_of: another stream of flow noise at rollout, to show what chance alone does; "
        "0: the stream of all other options",
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
        for name in ("rollout_cameras", "rollout_window", "rollout_noise"):
            if getattr(self, name) and not self.checkpoint_of:
                raise ValueError(f"{name}: only a row with checkpoint_of may differ at rollout from its training")
        return self


class Option(OptionRow):
    """One row of the option table. A row with `checkpoint_of` states only what it changes at rollout."""

    label: str = Field(min_length=1, description="what the option is, in words, in one line")
    training: LearningSchedule | None = Field(default=None, description="its own learning schedule, where it needs one")

    @field_validator("label")
    @classmethod
    def _check_label(cls, label):
        """It stands in tables and in the middle of sentences."""
        if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in label):
            raise ValueError("a line break or a control character; expected one line of text")
        return label

    @model_validator(mode="after")
    def _check_training(self):
        if self.checkpoint_of and self.training:
            raise ValueError("a row with checkpoint_of trains nothing, so it takes no training")
        return self


# ---- reporting what is wrong ----------------------------------------------------------------------------------------


def explain(error: Any, model: type[Section]) -> str:
    key = ".".join(str(part) for part in error["loc"] if part != "[key]")
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key; {nearest(str(error['loc'][-1]), _fields_at(error['loc'][:-1], model))}"
    if error["type"] == "missing":
        return f"{key}: missing"
    scalar = isinstance(error["input"], str | int | float | bool) or error["input"] is None
    return (f"{key}: " if key else "") + message_of(error) + (f", not {error['input']!r}" if scalar else "")


def message_of(error: Any) -> str:
    return error["msg"].removeprefix("Value error, ")


def _fields_at(location: tuple, model: type[BaseModel]) -> list[str]:
    for part in location:
        if part in model.model_fields:  # else the name of an option
            annotation = model.model_fields[part].annotation
            classes = (a for a in (annotation, *get_args(annotation)) if isinstance(a, type))
            model = next(c for c in classes if issubclass(c, BaseModel))
    return list(model.model_fields)


def nearest(name: str, valid) -> str:
    close = difflib.get_close_matches(name, list(valid), n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}valid: {', '.join(valid)}"
