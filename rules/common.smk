"""What the rules ask the experiment: specs as JSON (design: rebuilding only what changed) and lists of artifacts."""

import json
import shlex
import sys
from pathlib import Path

from world_modality.experiment import branches
from world_modality.artifacts.files import read_json

# Rules run their programs with the Python that runs Snakemake, whether or not its environment is activated, and with the
# library beside this file. The folder is no param: a repository that moves reruns nothing. $RUN_PIDS are the processes
# a program dies with. One thread of arithmetic each: Snakemake would have as many as the job has processors, which run
# simulators and loaders, and sums would depend on them.
#
# Snakemake compares a job's params as a *set* of values without their names: params 64 and 4 that become 4 and 64 are
# the same to it. So a rule's params are its spec (or its flags) in one string, and its source in another.
shell.prefix(
    f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"
    f" PYTHONPATH={shlex.quote(str(workflow.basedir))} SCRIPTS={shlex.quote(f'{workflow.basedir}/scripts')}"
    ' RUN_PIDS="$PPID $$"'
    " OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE TQDM_DISABLE=1; set -euo pipefail; "
)


def growing(amount):
    """Of memory or time: an attempt after a failed one asks for more."""
    return lambda wildcards, attempt: amount * attempt


def published_artifacts():
    """By the artifact that is taken from the hub, the section of the config that says so."""
    names = {"demonstrations": "dataset"}
    return {names.get(name, name): name for name in experiment.repositories()}


def published_repository(wildcards):
    section = published_artifacts()[wildcards.published]
    return experiment.pinned(section).model_dump_json()


def demonstration_parts(wildcards):
    """The recordings of each task. Snakemake does not remember an order of inputs, so it is that of the tasks."""
    return [
        f"results/demonstrations/task_{task}"
        for task in sorted(experiment.demonstrations.tasks)
    ]


def encoding_flags(wildcards):
    camera, _, window = wildcards.table.partition("_m")
    return (
        f"--image_key {experiment.image_keys[camera]}"
        f" --temporal_window {window or experiment.world.window}"
        f" --image_size {experiment.encoder.image_size}"
        f" --batch_size {experiment.latents.batch_size}"
        f" --device {experiment.device}"
    )


def pretraining_flags(wildcards):
    cameras = " ".join(experiment.image_keys[camera] for camera in ("front", "wrist"))
    return (
        f"--image_keys {cameras} --temporal_window {experiment.world.window}"
        f" --held_out {experiment.demonstrations.held_out_per_task}"
        f" --steps {experiment.encoder.pretrain_steps} --seed {experiment.encoder.seed}"
    )


def probed_encoders(wildcards):
    """The encoder as it was built and, where there is one, as it was pretrained."""
    built, folder = {"untrained": "results/encoder"}, experiment.encoder_folder()
    return built | ({"pretrained": folder} if experiment.encoder.pretrain_steps else {})


def probe_flags(wildcards):
    encoders = " ".join(
        f"{name}={folder}"
        for name, folder in probed_encoders(wildcards).items()
        if folder
    )
    cameras = " ".join(
        f"{camera}={key}" for camera, key in experiment.image_keys.items()
    )
    return (
        f"--encoders {encoders} --image_keys {cameras}"
        f" --temporal_window {experiment.world.window}"
        f" --held_out {experiment.demonstrations.held_out_per_task}"
    )


def training_spec(wildcards):
    return experiment.train_spec(wildcards.option).model_dump_json()


def training_inputs(wildcards):
    """The demonstrations, the small VLM and, for an option with a world modality, its encoder and latents."""
    inputs = {"dataset": "results/dataset", "vlm": "results/vlm"}
    if experiment.policy.source == "hub":
        inputs["policy"] = "results/policy"
    if experiment.train_spec(wildcards.option).cameras:
        tables = experiment.latent_tables(wildcards.option).values()
        inputs["encoder"] = experiment.encoder_folder()
        inputs["latents"] = [f"results/latents_{table}.parquet" for table in tables]
    return inputs


def training_flags(wildcards):
    """The flags people vary by hand: the wrist camera's key, and the latents of an option with a world modality."""
    tables = experiment.latent_tables(wildcards.option)
    flags = f"--wrist_image_key {experiment.image_keys['wrist']}"
    if experiment.policy.source == "hub":
        flags = f"{flags} --policy results/policy"
    if not tables:
        return flags
    keys = " ".join(experiment.image_keys[camera] for camera in tables)
    latents = " ".join(
        f"{camera}=results/latents_{table}.parquet" for camera, table in tables.items()
    )
    return f"{flags} --image_key {keys} --latents {latents} --encoder {experiment.encoder_folder()}"


def checkpoints_of_option(wildcards):
    return [
        f"results/ckpt_{wildcards.option}/seed_{seed}"
        for seed in experiment.training.seeds
    ]


def rolled_out_manifest(wildcards):
    return (
        f"results/ckpt_{experiment.checkpoint_option(wildcards.option)}/manifest.json"
    )


def rollout_inputs(wildcards):
    """One seed's checkpoint, the VLM it names, and the encoder where it encodes what it sees at rollout."""
    seed = getattr(
        wildcards, "seed", experiment.training.seeds[0]
    )  # videos are of the first seed
    source = experiment.checkpoint_option(wildcards.option)
    inputs = {"checkpoint": f"results/ckpt_{source}/seed_{seed}", "vlm": "results/vlm"}
    if experiment.latent_cameras(wildcards.option):
        inputs["encoder"] = experiment.encoder_folder()
    return inputs


def rollout_spec(wildcards):
    experiment.check_task(int(wildcards.task))
    return experiment.rollout_spec(wildcards.option).model_dump_json()


def evaluation_spec(wildcards):
    return experiment.evaluation_spec(wildcards.option).model_dump_json()


def drawing_spec(wildcards):
    experiment.check_task(int(wildcards.task))
    return experiment.init_states_spec().model_dump_json()


def init_states_of(task, blocks):
    """The files of drawn initial states; none where they are LIBERO's benchmark."""
    blocks = blocks if experiment.simulation.spread else []
    return [
        f"results/init_states/task_{task}/block_{block}.parquet" for block in blocks
    ]


def init_states_of_block(wildcards):
    return init_states_of(wildcards.task, [wildcards.block])


def filmed_init_states(wildcards):
    return init_states_of(wildcards.task, experiment.blocks())


def init_states_flag(files):
    return f" --init_states {' '.join(files)}" if files else ""


def block_range(wildcards):
    block = experiment.block(int(wildcards.block))
    return f"--first {block.start} --count {len(block)}"


def block_flags(wildcards):
    return (
        f"{block_range(wildcards)}{init_states_flag(init_states_of_block(wildcards))}"
    )


def film_flags(wildcards):
    size = experiment.evaluation.video_size
    return f"--size {size}{init_states_flag(filmed_init_states(wildcards))}"


def blocks_of_seed(option, task, seed):
    return [
        f"results/rollouts/{option}/seed_{seed}/task_{task}/block_{block}.jsonl"
        for block in experiment.blocks()
    ]


def filmed_blocks(wildcards):
    return blocks_of_seed(
        wildcards.option, wildcards.task, experiment.training.seeds[0]
    )


def evaluated_blocks(wildcards):
    return [
        block
        for seed in experiment.training.seeds
        for block in blocks_of_seed(wildcards.option, wildcards.task, seed)
    ]


def evaluations(options, tasks):
    return [
        f"results/eval_{option}_{task}.json" for option in options for task in tasks
    ]


def judged_options():
    return branches.judged_options(experiment.judge_spec())


def pickup_evaluations(wildcards):
    return evaluations(judged_options(), experiment.decision.pickup_tasks)


def urgency(wildcards):
    """Priority: first what the branch of the tree waits for, then what it adds, then what is made beside it."""
    if wildcards.option in judged_options():
        return 20
    return 0 if wildcards.option in experiment.run else 10


def training_urgency(wildcards):
    """A training is the longest way to the decision: no core waits for it at the end."""
    return urgency(wildcards) + 10


def known_videos(wildcards):
    return videos(experiment.known_options())


def scheduled_videos(wildcards):
    return videos(scheduled_options())


def videos(options):
    return [
        f"results/videos/{option}/task_{task}"
        for option in options
        for task in experiment.evaluation.tasks
    ]


def known_evaluations(wildcards):
    """What the decision reads whatever the branch."""
    return evaluations(experiment.known_options(), experiment.evaluation.tasks)


def scheduled_options():
    """Options the plan chose for the branch of the tree; asking for them waits for the checkpoint."""
    verdict = read_json(checkpoints.judge_pickup.get().output.verdict)
    known = experiment.known_options()
    return [option for option in verdict["scheduled"] if option not in known]


def scheduled_evaluations(wildcards):
    return evaluations(scheduled_options(), experiment.evaluation.tasks)


def audited_checkpoints(wildcards):
    """The checkpoints behind everything the decision compares."""
    options = [*experiment.known_options(), *scheduled_options()]
    trained = dict.fromkeys(experiment.checkpoint_option(option) for option in options)
    return [
        f"results/ckpt_{option}/seed_{seed}"
        for option in trained
        for seed in experiment.training.seeds
    ]


def attention_blocks(wildcards):
    return [
        block.replace(".jsonl", "_attention.parquet")
        for seed in experiment.training.seeds
        for task in experiment.evaluation.tasks
        for block in blocks_of_seed(wildcards.option, task, seed)
    ]


def attention_tables(options):
    """Of those with a world modality of their own, in training and at rollout."""
    return [
        f"results/attention_{where}_{option}.parquet"
        for option in options
        if experiment.options[option].cameras
        for where in ("train", "rollout")
    ]


def known_attention(wildcards):
    return attention_tables(experiment.known_options())


def scheduled_attention(wildcards):
    return attention_tables(scheduled_options())


def foreseeing_options(options):
    """Of some options those with a Prophet of their own; none where no episode is held out to measure it on."""
    held_out = experiment.demonstrations.held_out_per_task
    return [
        option for option in options if held_out and experiment.options[option].cameras
    ]


def latents_of_option(wildcards):
    tables = experiment.latent_tables(wildcards.option).values()
    return [f"results/latents_{table}.parquet" for table in tables]


def known_foresights(wildcards):
    options = foreseeing_options(experiment.known_options())
    return [f"results/prophet_{option}.json" for option in options]


def scheduled_foresights(wildcards):
    options = foreseeing_options(scheduled_options())
    return [f"results/prophet_{option}.json" for option in options]


def judge_spec(wildcards):
    return experiment.judge_spec().model_dump_json()


def decision_spec(wildcards):
    return experiment.decision_spec().model_dump_json()
