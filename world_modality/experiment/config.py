"""The experiment: the whole of `config.yaml`, validated, and what the rules ask of it. Light: the Snakefile imports it.

Each stage is handed a small frozen *spec*. It holds just the keys that the stage's artifact depends on
(`Experiment.record_spec()` and its siblings).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from world_modality.experiment.branches import Pair, comparisons, wanted_options
from world_modality.experiment.plan import choose
from world_modality.experiment.sections import (
    Branch,
    Budget,
    Camera,
    Commit,
    ConfigError,
    Costs,
    Criteria,
    Decision,
    Demonstrations,
    Encoder,
    EncoderWeights,
    EvaluationSettings,
    Family,
    Figures,
    Hyperparameters,
    ImageKey,
    Latents,
    Memory,
    Option,
    OptionName,
    OptionNames,
    OptionRow,
    Policy,
    PolicyCosts,
    Repository,
    Scale,
    Section,
    Simulation,
    Training,
    Tree,
    Vlm,
    World,
    explain,
    message_of,
    nearest,
)
from world_modality.experiment.specs import (
    Candidate,
    DecisionSpec,
    EvalProtocol,
    EvaluationSpec,
    InitStatesSpec,
    JudgeSpec,
    LookSpec,
    PairCosts,
    PlanSpec,
    RecordSpec,
    RolloutSpec,
    Stage,
    TrainSpec,
)
from world_modality.experiment.suites import INIT_STATES_PER_TASK, SUITE_SIZES

REPOSITORY = Path(__file__).resolve().parents[2]
COSTS = REPOSITORY / "experiments" / "costs.yaml"
COMMITS = REPOSITORY / "experiments" / "commits.yaml"
POLICY_KINDS = tuple(PolicyCosts.model_fields)  # by the number of cameras of its world modality
DEFAULT_CONFIG = (REPOSITORY / "config.yaml", COSTS, COMMITS)  # as the Snakefile reads them
# What the repository of each section is to the hub, and which of its files are taken (none named: all).
HUB_FILES: dict[str, tuple[Literal["dataset", "model"], tuple[str, ...]]] = {
    "demonstrations": ("dataset", ()),
    "encoder": ("model", ("*.json", "*.safetensors")),
    "vlm": ("model", ("*.json", "*.txt")),
    "policy": ("model", ("*.json", "*.safetensors")),
}


class Experiment(Section):
    """The whole of `config.yaml`, with the costs and commits of `experiments/costs.yaml` and `commits.yaml`."""

    scale: Scale = Field(description="the scale that the verdict reports")
    device: Literal["cpu", "cuda"] = Field(description="where encoding, training and rollouts run")
    image_keys: dict[Camera, ImageKey] = Field(description="the cameras' keys in the dataset")
    simulation: Simulation
    demonstrations: Demonstrations
    encoder: Encoder
    latents: Latents
    world: World
    vlm: Vlm
    policy: Policy
    training: Training
    evaluation: EvaluationSettings
    decision: Decision
    budget: Budget
    costs: dict[Scale, Costs] = Field(description="by scale; the costs of a scale that is not listed are not known")
    commits: dict[str, Commit] = Field(description="the commit of each pinned branch or tag of a hub's repository")
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

    @field_validator("commits", mode="before")
    @classmethod
    def _none_left(cls, commits):
        return {} if commits is None else commits  # as YAML has it once the last line was deleted

    @model_validator(mode="after")
    def _check(self):
        self._check_options()
        self._check_tasks()
        if self.decision.claim == "methods" and (len(self.training.seeds) < 2 or self.decision.stopping != "fixed"):
            raise ValueError(
                f"decision.claim: methods needs two training.seeds or more and decision.stopping fixed, not "
                f"{len(self.training.seeds)} and {self.decision.stopping}"
            )
        self._check_episodes()
        if not self.simulation.spread and self.most_episodes > INIT_STATES_PER_TASK:
            raise ValueError(
                f"evaluation.episodes: LIBERO's benchmark has {INIT_STATES_PER_TASK} initial states a task, not "
                f"{self.most_episodes}; with simulation.spread above 0 any number is drawn"
            )
        if self.budget.gpu_hours is not None and self.scale not in self.costs:
            raise ValueError(
                f"budget.gpu_hours: {self.budget.gpu_hours:g} needs costs.{self.scale}: the costs of {self.scale} "
                "scale are not known; `make costs` measures them in a run without a budget (null)"
            )
        if self.encoder.pretrain_steps and not self.demonstrations.held_out_per_task:
            raise ValueError("encoder.pretrain_steps: demonstrations.held_out_per_task 0 leaves nothing to judge it by")
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

    def _check_episodes(self) -> None:
        episodes, stopping = self.evaluation.episodes, self.decision.stopping
        if self.is_adaptive and episodes is not None:
            raise ValueError(
                f"evaluation.episodes: {episodes} means nothing with decision.stopping adaptive; "
                "evaluation.max_episodes is the cap, and stopping fixed takes a number chosen beforehand"
            )
        if not self.is_adaptive and episodes is None:
            raise ValueError(f"evaluation.episodes: decision.stopping {stopping} needs a number")

    def _check_options(self) -> None:
        decision = self.decision
        roles = {f"decision.{role}": getattr(decision, role) for role in ("baseline", "world", "wrist", "fusion")}
        named = {key: name for key, name in roles.items() if name}
        named |= {f"run[{i}]": name for i, name in enumerate(self.run)}
        for key in ("on_hurt", "on_success"):
            named |= {f"decision.{key}[{i}]": name for i, name in enumerate(getattr(decision, key))}
        named |= {f"options.{n}.checkpoint_of": o.checkpoint_of for n, o in self.options.items() if o.checkpoint_of}
        for key, name in named.items():
            if name not in self.options:
                raise ValueError(f"{key}: no option {name}; {nearest(name, self.options)}")
        self._check_roles({key: name for key, name in roles.items() if name})
        if decision.wrist not in decision.on_hurt:
            raise ValueError(f"decision.on_hurt: lacks {decision.wrist}, which is decision.wrist")
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
                    raise ValueError(f"options.{name}.{key}: {message_of(error.errors()[0])}") from None
        for role in (decision.baseline, decision.world):
            if role not in self.run:
                raise ValueError(f"run: the tree needs {role}")
        for name in dict.fromkeys([*self.run, *filter(None, roles.values()), *decision.on_hurt, *decision.on_success]):
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
        for task in self.evaluation.tasks if self.demonstrations.source == "simulate" else ():
            if task not in self.demonstrations.tasks:
                raise ValueError(f"evaluation.tasks: task {task} is not in demonstrations.tasks: no policy learns it")
        for task in self.decision.pickup_tasks:
            if task not in self.evaluation.tasks:
                raise ValueError(f"decision.pickup_tasks: task {task} is not in evaluation.tasks")

    def check_task(self, task: int) -> None:
        """Raise ConfigError if the suite has no such task."""
        size = SUITE_SIZES[self.simulation.suite]
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
            raise ConfigError(f"no option {name}; {nearest(name, self.options)}")
        return self.options[name]

    def known_options(self) -> list[str]:
        """Options that the decision reads in either branch."""
        always = self.scheduled("wrist") if self.decision.wrist_experiment == "always" else ()
        return [*self.run, *always]

    def scheduled(self, branch: Branch) -> tuple[str, ...]:
        """Options in addition to `run` that the plan chooses in a branch of the tree, in order of preference."""
        spec = self.judge_spec()
        return choose(spec.plan, tuple(wanted_options(spec, branch)))

    def repositories(self) -> dict[str, Repository]:
        """What the experiment takes from the hub, by section."""
        found = {name: getattr(self, name) for name in HUB_FILES}
        return {
            name: Repository(kind=kind, repo_id=found[name].repo_id, revision=found[name].revision, files=files)
            for name, (kind, files) in HUB_FILES.items()
            if found[name].source == "hub"
        }

    def disk_gb(self) -> int:
        """A generous estimate of the room for all results; checkpoints and the states of running trainings dominate."""
        trained = sum(not option.checkpoint_of for option in self.options.values()) * len(self.training.seeds)
        return 2 + trained * (10 if self.policy.source == "hub" else 1)

    def repository(self, section: str) -> Repository:
        """What a section takes from the hub; if its branch or tag is pinned, at that commit."""
        repository = self.repositories()[section]
        return repository.model_copy(update={"revision": self.commits.get(repository.name, repository.revision)})

    def drawn_figures(self) -> list[str]:
        """Names of the figures. Prophet's is drawn only if episodes are held out, because it is measured on those."""
        return ["success", "attention", "plan", *(["prophet"] if self.demonstrations.held_out_per_task else [])]

    # ---- rounds and blocks: how many initial states of each task an option is evaluated from ------------------------

    @property
    def is_adaptive(self) -> bool:
        """Whether the pipeline looks after each round; else all episodes are one round, followed by the only look."""
        return self.decision.stopping == "adaptive"

    @property
    def most_episodes(self) -> int:
        """The most initial states of a task that an option is evaluated from."""
        if not self.is_adaptive:
            return self.evaluation.episodes
        there_are = self.evaluation.max_episodes if self.simulation.spread else INIT_STATES_PER_TASK
        return min(self.evaluation.max_episodes, there_are)

    def rounds(self) -> int:
        """The most rounds that an option is evaluated for."""
        most = len(self.blocks())
        return -(-most // self.evaluation.blocks_per_round) if self.is_adaptive else 1

    def episodes(self, rounds: int) -> int:
        """Initial states of each task in the first `rounds` rounds."""
        size = self.evaluation.block_size * self.evaluation.blocks_per_round
        return min(rounds * size, self.most_episodes) if self.is_adaptive else self.most_episodes

    def blocks(self, rounds: int | None = None) -> list[int]:
        """Numbers of the blocks of the first `rounds` rounds; None: of all."""
        episodes = self.most_episodes if rounds is None else self.episodes(rounds)
        return list(range(-(-episodes // self.evaluation.block_size)))

    def block(self, number: int | str) -> range:
        """All initial states of a block, even beyond `most_episodes`: raising that number reruns no block."""
        first = int(number) * self.evaluation.block_size
        last = first + self.evaluation.block_size
        return range(first, last if self.simulation.spread else min(last, INIT_STATES_PER_TASK))

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

    def encoder_spec(self) -> EncoderWeights:
        return EncoderWeights(**{name: getattr(self.encoder, name) for name in EncoderWeights.model_fields})

    def init_states_spec(self, task: int | str = 0) -> InitStatesSpec:
        """What drawing initial states of a task depends on.

        Raises:
            ConfigError: the suite has no such task.
        """
        self.check_task(int(task))
        return InitStatesSpec(**{name: getattr(self.simulation, name) for name in InitStatesSpec.model_fields})

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
            held_out_per_task=self.demonstrations.held_out_per_task,
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
        """The hyperparameters of `training`, with the option's own learning schedule."""
        values = {name: getattr(self.training, name) for name in Hyperparameters.model_fields}
        own = option.training.model_dump(exclude_none=True) if option.training else {}
        return Hyperparameters(**values | own)

    def rollout_spec(self, name: str, task: int | str = 0) -> RolloutSpec:
        """What rolling out option `name` on a task depends on.

        Raises:
            ConfigError: there is no such option or task.
        """
        self.check_task(int(task))
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
            noise_stream=option.rollout_noise,
            protocol=EvalProtocol(
                simulation=self.simulation,
                horizon=self.evaluation.horizon,
                n_action_steps=self.evaluation.n_action_steps,
                batch_size=self.evaluation.batch_size,
            ),
        )

    def _rollout_memory(self, name: str) -> Memory:
        option = self.options[name]
        return option.memory or self.options[self.checkpoint_option(name)].memory or "predicted"

    def evaluation_spec(self, name: str) -> EvaluationSpec:
        """What joining the episodes of option `name` depends on."""
        return EvaluationSpec(rollout=self.rollout_spec(name), episodes=self.most_episodes, adaptive=self.is_adaptive)

    def comparisons(self, names: Iterable[str]) -> dict[Pair, Family]:
        """What is compared where these options are run.

        Raises:
            ConfigError: there is no such option.
        """
        names = list(dict.fromkeys(names))
        for name in names:
            self._option(name)
        return comparisons(names, self.options, self.decision)

    def look_spec(self, option: str, reference: str, rounds: int) -> LookSpec:
        """What a look at a comparison after so many rounds depends on.

        Raises:
            ConfigError: the decision does not compare these options.
        """
        compared = self.comparisons([*self.reported_options(), option])
        if (option, reference) not in compared:
            pairs = [f"{a}_{b}" for a, b in compared]
            raise ConfigError(f"{option} is not compared with {reference}; {nearest(f'{option}_{reference}', pairs)}")
        family, episodes = compared[option, reference], self.episodes(rounds)
        looked_at = (
            self.evaluation_spec(name).model_copy(update={"episodes": episodes, "adaptive": False})
            for name in (option, reference)
        )
        return LookSpec(
            **dict(zip(("option", "reference"), looked_at, strict=True)),
            tasks=tuple(self.decision.pickup_tasks),
            criteria=Criteria(**{name: getattr(self.decision, name) for name in Criteria.model_fields}),
            family=family,
            members=list(compared.values()).count(family),
        )

    def judge_spec(self) -> JudgeSpec:
        tree = Tree(**{name: getattr(self.decision, name) for name in Tree.model_fields})
        return JudgeSpec(decision=tree, run=self.run, plan=self.plan_spec())

    def plan_spec(self) -> PlanSpec:
        """The budget, the options the tree may ask for in addition to `run`, and the stages they still need."""
        decision, budget, seeds = self.decision, self.budget, self.training.seeds
        options = [o for o in dict.fromkeys([*decision.on_hurt, *decision.on_success]) if o not in self.run]
        made = {stage.name for name in self.run for stage in self._stages(name)}
        stages = {stage.name: stage for name in options for stage in self._stages(name, made) if stage.name not in made}
        ends = {name: tuple(f"eval_{name}/seed_{seed}" for seed in seeds) for name in options}
        candidates = tuple(Candidate(name=name, ends=ends[name]) for name in options)
        return PlanSpec(
            scale=self.scale,
            gpu_hours=budget.gpu_hours,
            gpus=budget.gpus,
            stages=tuple(stages.values()),
            candidates=candidates,
        )

    def _stages(self, name: str, made: Collection[str] = ()) -> Iterator[Stage]:
        """The stages of one option, in order; they do not wait for a stage that is already `made`."""
        source, costs = self.checkpoint_option(name), self.costs.get(self.scale)
        kind = POLICY_KINDS[len(self.latent_cameras(name))]
        tables = {f"latents_{table}": camera for camera, table in self.latent_tables(name).items()}
        latents = tuple(table for table in tables if table not in made)
        for table, camera in tables.items():
            yield Stage(name=table, kind="latents", hours=costs and getattr(costs.latents, camera), after=())
        for seed in self.training.seeds:
            checkpoint = f"ckpt_{source}/seed_{seed}"
            yield Stage(name=checkpoint, kind="train", hours=costs and getattr(costs.train, kind), after=latents)
        for seed in self.training.seeds:
            checkpoint = f"ckpt_{source}/seed_{seed}"
            after = () if checkpoint in made else (checkpoint,)
            hours = costs and getattr(costs.evaluate, kind)
            yield Stage(name=f"eval_{name}/seed_{seed}", kind="evaluate", hours=hours, after=after)

    def decision_spec(self) -> DecisionSpec:
        reported = self.reported_options()
        labels = {name: self.options[name].label for name in reported}
        return DecisionSpec(
            decision=self.decision,
            options=self._rows(reported),
            run=self.run,
            plan=self.plan_spec(),
            labels=labels,
            scale=self.scale,
            rounds=tuple(self.episodes(rounds) for rounds in range(1, self.rounds() + 1)),
            costs=self._pair_costs(),
        )

    def _pair_costs(self) -> PairCosts | None:
        """What one more initial state, and one more training seed, of the options that the branch compares costs."""
        costs = self.costs.get(self.scale)
        if costs is None:
            return None
        kinds = [POLICY_KINDS[len(self.latent_cameras(name))] for name in (self.decision.world, self.decision.baseline)]
        evaluations = sum(getattr(costs.evaluate, kind) for kind in kinds)
        return PairCosts(
            state=evaluations / costs.episodes * len(self.evaluation.tasks),
            seed=sum(getattr(costs.train, kind) for kind in kinds),
        )

    def reported_options(self) -> list[str]:
        """Every option that the decision may report, whichever branch the tree takes."""
        return list(dict.fromkeys([*self.run, *self.decision.on_hurt, *self.decision.on_success]))

    def _rows(self, names: Iterable[str]) -> dict[str, OptionRow]:
        """The rows of some options, and of those whose checkpoints they roll out."""
        wanted = dict.fromkeys([*names, *(self.checkpoint_option(name) for name in names)])
        return {
            name: OptionRow(**{f: getattr(self.options[name], f) for f in OptionRow.model_fields}) for name in wanted
        }


def default_config() -> dict[str, Any]:
    """The repository's default configuration, into which overlays are merged."""
    config: dict[str, Any] = {}
    for path in DEFAULT_CONFIG:
        config |= yaml.safe_load(path.read_text(encoding="utf-8"))
    return config


def load_experiment(config: dict[str, Any]) -> Experiment:
    """Validate a merged configuration.

    Raises:
        ConfigError: one line per offending key, with the nearest valid key if it is misspelt.
    """
    try:
        return Experiment.model_validate(config)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(e, Experiment) for e in error.errors())) from None
