"""What the jobs of an experiment read: the paths of their inputs, by role. Light (no torch)."""

from __future__ import annotations

from collections.abc import Iterable

from world_modality.experiment import paths
from world_modality.experiment.config import Experiment

Inputs = dict[str, str | list[str]]


def demonstration_parts(experiment: Experiment) -> list[str]:
    """The recordings of each task, in the order of the tasks: Snakemake does not remember the order of inputs."""
    return [paths.demonstrations(task) for task in sorted(experiment.demonstrations.tasks)]


def encoder(experiment: Experiment) -> str:
    """The encoder behind all latents: as it was built, or pretrained on the demonstrations."""
    return paths.PRETRAINED_ENCODER if experiment.encoder.pretrain_steps else paths.ENCODER


def probed_encoders(experiment: Experiment) -> Inputs:
    """The encoder as it was built and, where there is one, as it was pretrained."""
    pretrained = {"pretrained": paths.PRETRAINED_ENCODER} if experiment.encoder.pretrain_steps else {}
    return {"untrained": paths.ENCODER} | pretrained


def latents(experiment: Experiment, option: str) -> list[str]:
    """The latents of each world camera that the training of an option reads."""
    return [paths.latents(table) for table in experiment.latent_tables(option).values()]


def training(experiment: Experiment, option: str) -> Inputs:
    """The demonstrations, the VLM and, for an option with a world modality, its encoder and latents."""
    inputs: Inputs = {"dataset": paths.DATASET, "vlm": paths.VLM}
    if experiment.policy.source == "hub":
        inputs["policy"] = paths.POLICY
    if experiment.train_spec(option).cameras:
        inputs |= {"encoder": encoder(experiment), "latents": latents(experiment, option)}
    return inputs


def checkpoints(experiment: Experiment, *options: str) -> list[str]:
    """The checkpoints that some options roll out, each once, for every training seed."""
    trained = dict.fromkeys(experiment.checkpoint_option(option) for option in options)
    return [paths.checkpoint(option, seed) for option in trained for seed in experiment.training.seeds]


def examination(experiment: Experiment, option: str) -> Inputs:
    """What a checkpoint's Prophet and attention are measured on."""
    return {
        "checkpoints": checkpoints(experiment, option),
        "latents": latents(experiment, option),
        "dataset": paths.DATASET,
        "vlm": paths.VLM,
    }


def rollout(experiment: Experiment, option: str, seed: int | str) -> Inputs:
    """One checkpoint, the VLM it names, and the encoder if the option encodes what it sees at rollout."""
    inputs: Inputs = {"checkpoint": paths.checkpoint(experiment.checkpoint_option(option), seed), "vlm": paths.VLM}
    return inputs | ({"encoder": encoder(experiment)} if experiment.latent_cameras(option) else {})


def init_states(experiment: Experiment, task: int | str, blocks: Iterable[int | str]) -> list[str]:
    """The files of drawn initial states; none if evaluation begins at LIBERO's benchmark states."""
    return [paths.init_states(task, block) for block in blocks] if experiment.simulation.spread else []


def filmed(experiment: Experiment, option: str, task: int | str, rounds: int) -> Inputs:
    """The episodes of the first training seed, some of which are filmed, and their actions."""
    seed, blocks = experiment.training.seeds[0], experiment.blocks(rounds)
    return {
        "blocks": [paths.block_episodes(option, seed, task, block) for block in blocks],
        "actions": [paths.block_actions(option, seed, task, block) for block in blocks],
        "init_states": init_states(experiment, task, blocks),
    }


def evaluated_blocks(experiment: Experiment, option: str, tasks: Iterable[int | str], rounds: int) -> list[str]:
    """All episodes of an option on some tasks, in its first rounds."""
    seeds, blocks = experiment.training.seeds, experiment.blocks(rounds)
    return [paths.block_episodes(option, s, task, block) for s in seeds for task in tasks for block in blocks]


def attention_blocks(experiment: Experiment, option: str, rounds: int) -> list[str]:
    """The attention in all episodes of an option."""
    tasks, blocks = experiment.evaluation.tasks, experiment.blocks(rounds)
    seeds = experiment.training.seeds
    return [paths.block_attention(option, s, task, block) for s in seeds for task in tasks for block in blocks]


def look(experiment: Experiment, option: str, reference: str, rounds: int) -> Inputs:
    """What a look after so many rounds reads: the episodes of two options on the pickup tasks, and their manifests."""
    inputs: Inputs = {}
    for role, name in (("option", option), ("reference", reference)):
        inputs[role] = evaluated_blocks(experiment, name, experiment.decision.pickup_tasks, rounds)
        inputs[f"{role}_manifest"] = paths.manifest(experiment.checkpoint_option(name))
    return inputs


def drawn(experiment: Experiment, figure: str) -> list[str]:
    """What a figure is drawn from; `prophet` also from the foresights of the options that the tree schedules."""
    if figure == "prophet":
        return foresights(experiment, experiment.known_options())
    return [{"success": paths.DECISION, "plan": paths.PLAN, "attention": paths.ATTENTION}[figure]]


# ---- of the options that are compared -------------------------------------------------------------------------------


def evaluations(experiment: Experiment, options: Iterable[str], tasks: Iterable[int] | None = None) -> list[str]:
    """The evaluations of some options on some tasks; None: on all."""
    tasks = experiment.evaluation.tasks if tasks is None else list(tasks)
    return [paths.evaluation(option, task) for option in options for task in tasks]


def videos(experiment: Experiment, options: Iterable[str]) -> list[str]:
    return [paths.videos(option, task) for option in options for task in experiment.evaluation.tasks]


def foresights(experiment: Experiment, options: Iterable[str]) -> list[str]:
    """The measurements of each Prophet that an option trains; none if no episode is held out to measure it on."""
    if not experiment.demonstrations.held_out_per_task:
        return []
    return [paths.foresight(option) for option in options if experiment.options[option].cameras]


def attention_tables(experiment: Experiment, options: Iterable[str]) -> list[str]:
    """The attention in training and at rollout, of the options that train a world modality of their own."""
    own = [option for option in options if experiment.options[option].cameras]
    return [table for option in own for table in (paths.training_attention(option), paths.rollout_attention(option))]
