"""What the rules share: how a program is run, which options the tree has scheduled, how long each option is evaluated,
which jobs run first."""

import shlex
import sys
from functools import partial
from pathlib import Path

from world_modality.artifacts.files import read_json
from world_modality.experiment.branches import leader
from world_modality.experiment.sections import is_commit
from world_modality.program import ROUNDING_VARIABLES

# Rules run their programs with the Python that runs Snakemake, whether or not its environment is activated, and with
# the library next to this file. That folder is not a param, so moving the repository reruns nothing. A program ends
# when one of the processes in $RUN_PIDS ends. Each program computes with one thread. Snakemake would set as many as the
# job has processors, but simulators and loaders use those, and sums would depend on the number of threads. For the same
# reason it runs without the `ROUNDING_VARIABLES` that the user's shell may have set. Only the rules of hub.smk ask the
# hub, unless the user's shell forbids it ($HUB_OFFLINE): a compute node may have no network.
#
# Snakemake compares a job's params as a *set* of values without their names: if params 64 and 4 become 4 and 64, it
# sees no change. So a rule's params are its spec (or its flags) in one string, and its source in another. It forgets
# params that are a function of a job's inputs: they follow from wildcards and config alone.
shell.prefix(
    f"unset {' '.join(ROUNDING_VARIABLES)}; export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"
    f" PYTHONPATH={shlex.quote(str(workflow.basedir))} SCRIPTS={shlex.quote(f'{workflow.basedir}/scripts')}"
    ' RUN_PIDS="$PPID $$" HUB_OFFLINE="${{HF_HUB_OFFLINE:-}}" HF_HUB_OFFLINE=1'
    " OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE TQDM_DISABLE=1; set -euo pipefail; "
)


def growing(amount):
    """An amount of memory or time that grows with each attempt, so that a job asks for more after it failed."""
    return lambda wildcards, attempt: amount * attempt


def flags(**values):
    """Command-line flags with their values, quoted; a flag whose value is empty is left out."""
    lists = {n: v if isinstance(v, list) else [v] for n, v in values.items()}
    words = {
        name: " ".join(shlex.quote(str(value)) for value in found if str(value))
        for name, found in lists.items()
    }
    return " ".join(f"--{name} {text}" for name, text in words.items() if text)


def as_it_is(text):
    """A param with words from the config. In a plain param Snakemake would take `{x}` for a wildcard."""
    return lambda wildcards: text


def scheduled_options():
    """Options that the plan chose for the branch of the tree; a job that asks for them waits for the checkpoint."""
    verdict = read_json(checkpoints.judge_pickup.get().output.verdict)
    known = experiment.known_options()
    return [option for option in verdict["scheduled"] if option not in known]


def compared_options():
    """All options of the decision; a job that asks for them waits for the checkpoint."""
    return [*experiment.known_options(), *scheduled_options()]


def compared(**artifacts):
    """The inputs `<role>` and `scheduled_<role>` of a job that reads something of every option of the decision.

    The options that always run are a separate input, so that their jobs need not wait for the checkpoint.
    """
    inputs = {}
    for role, of_options in artifacts.items():
        inputs[role] = partial(_inputs, of_options, experiment.known_options)
        inputs[f"scheduled_{role}"] = partial(_inputs, of_options, scheduled_options)
    return inputs


def _inputs(of_options, options, wildcards):
    return of_options(experiment, options())


# ---- rounds: with `decision.stopping: adaptive` each option is evaluated until what it is compared for is settled -----


def is_settled(pair, round):
    """Whether the look after a round (from 0) settles a comparison; a job that asks waits for the look."""
    option, reference = pair
    look = checkpoints.look_at_comparison.get(
        option=option, reference=reference, round=round
    )
    return read_json(look.output[0])["settled"]


def goes_on(pair, rounds):
    """Whether a comparison gets another round after its first `rounds` ones."""
    ahead = leader(pair, experiment.decision)
    return (
        rounds < experiment.rounds()
        and not any(is_settled(pair, round) for round in range(rounds))
        and (ahead is None or not rounds or goes_on(ahead, rounds))
    )


def rounds_of(pair):
    """After how many rounds the evaluation of a comparison stops."""
    rounds = 0
    while goes_on(pair, rounds):
        rounds += 1
    return rounds


def last_look(pair):
    """The look at which a comparison stopped."""
    return paths.look(*pair, rounds_of(pair) - 1)


def known_comparisons():
    """The comparisons of the decision in either branch."""
    return list(experiment.comparisons(experiment.known_options()))


def scheduled_comparisons():
    """Those that the branch adds; a job that asks for them waits for the checkpoint."""
    known = known_comparisons()
    return [p for p in experiment.comparisons(compared_options()) if p not in known]


def rounds_run(option):
    """How many rounds an option is evaluated for: as many as the longest of its comparisons.

    An option waits for the branch of the tree only if the branch may add a comparison with it.
    """
    if not experiment.is_adaptive:
        return 1
    known = comparisons_with(option, experiment.known_options())
    rounds = max(map(rounds_of, known))
    if set(known) == set(comparisons_with(option, experiment.reported_options())):
        return rounds
    return max(map(rounds_of, comparisons_with(option, compared_options())))


def filmed(*roles):
    """The inputs of a job that films an option on a task: its episodes, their actions and where they began."""

    def of_role(role, wildcards):
        task, rounds = known_task(wildcards), rounds_run(wildcards.option)
        return inputs.filmed(experiment, wildcards.option, task, rounds)[role]

    return {role: partial(of_role, role) for role in roles}


def known_task(wildcards):
    """The task of a job, which must be one of the suite's: nothing should run before a wrong one is refused."""
    experiment.check_task(int(wildcards.task))
    return wildcards.task


def comparisons_with(option, others):
    """The comparisons that an option takes part in, if it is run with these others.

    An option that is compared with nothing is evaluated for as long as the two that the branch compares.
    """
    pairs = experiment.comparisons([*others, option])
    own = [pair for pair in pairs if option in pair]
    return own or [(experiment.decision.world, experiment.decision.baseline)]


def urgency(wildcards):
    """Priority: first what the branch of the tree waits for, then what the branch adds, then everything else."""
    if wildcards.option in (experiment.decision.baseline, experiment.decision.world):
        return 20
    return 0 if wildcards.option in experiment.run else 10


def training_urgency(wildcards):
    """Trainings are the longest jobs, so they start early: at the end, no core should sit idle waiting for one."""
    return urgency(wildcards) + 10


# ---- what comes from a hub: a run pins it to commits before its first job ---------------------------------------------


def pin_to(commits):
    """From here on, take what is not pinned yet at these commits."""
    global experiment
    experiment = load_experiment(config | {"commits": commits | experiment.commits})


def pin_published(planned):
    """Pin what these jobs place, or raise InputError: once, before any of them runs, and on the machine of Snakemake.

    Snakemake evaluates the params of a job again when the job is ready, and then they hold the commit.
    """
    placing = [job for job in planned if job.rule.name == "place_repository"]
    if not placing:
        return
    from world_modality.data.pins import pin  # slow to import, and only a run needs it

    sections = sorted(published[job.wildcards.published] for job in placing)
    wanted = [experiment.repository(section) for section in sections]
    commits = Path(workflow.basedir, "experiments", "commits.yaml")
    pin_to(pin(wanted, commits))
    # It keeps the params that it compared with those of the last run, and would record them as what was made.
    workflow.persistence._params.cache_clear()


def origin(wildcards):
    """What a job takes from the hub, in words. It is a resource, because params are what an artifact is made from."""
    section = published[wildcards.published]
    name = experiment.repositories()[section].name
    revision = experiment.repository(section).revision
    if is_commit(revision):
        return f"{name} (commit {revision})"
    return f"{name} (the run pins its commit before the first job)"


def published_demonstrations():
    """The hub's repository of the demonstrations, for the shell; nothing if they are recorded."""
    if experiment.demonstrations.source != "hub":
        return ""
    return shlex.quote(experiment.repository("demonstrations").model_dump_json())
