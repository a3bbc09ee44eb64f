"""What the rules have in common: how a program is run, what the tree has scheduled, which job comes first."""

import shlex
import sys
from functools import partial
from pathlib import Path

from world_modality.artifacts.files import read_json
from world_modality.experiment.branches import judged_options

# Rules run their programs with the Python that runs Snakemake, whether or not its environment is activated, and with the
# library next to this file. The folder is no param: a repository that moves reruns nothing. $RUN_PIDS are the processes
# a program dies with. One thread of arithmetic each: Snakemake would have as many as the job has processors, which run
# simulators and loaders, and sums would depend on them.
#
# Snakemake compares a job's params as a *set* of values without their names: params 64 and 4 that become 4 and 64 are
# the same to it. So a rule's params are its spec (or its flags) in one string, and its source in another. It forgets
# params that are a function of a job's inputs: they follow from wildcards and config alone.
shell.prefix(
    f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"
    f" PYTHONPATH={shlex.quote(str(workflow.basedir))} SCRIPTS={shlex.quote(f'{workflow.basedir}/scripts')}"
    ' RUN_PIDS="$PPID $$"'
    " OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE TQDM_DISABLE=1; set -euo pipefail; "
)


def growing(amount):
    """Of memory or time: an attempt after a failed one asks for more."""
    return lambda wildcards, attempt: amount * attempt


def flags(**values):
    """Command-line flags with their values; one whose value is empty is left out."""
    words = {
        name: " ".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in values.items()
    }
    return " ".join(f"--{name} {text}" for name, text in words.items() if text)


def scheduled_options():
    """Options the plan chose for the branch of the tree; asking for them waits for the checkpoint."""
    verdict = read_json(checkpoints.judge_pickup.get().output.verdict)
    known = experiment.known_options()
    return [option for option in verdict["scheduled"] if option not in known]


def compared_options():
    """All options of the decision; asking for them waits for the checkpoint."""
    return [*experiment.known_options(), *scheduled_options()]


def compared(**artifacts):
    """For a job that reads something of every option of the decision, the inputs `<role>` and `scheduled_<role>`.

    The options that run in any case are an input of their own, so that their jobs need not wait for the checkpoint.
    """
    inputs = {}
    for role, of_options in artifacts.items():
        inputs[role] = partial(_inputs, of_options, experiment.known_options)
        inputs[f"scheduled_{role}"] = partial(_inputs, of_options, scheduled_options)
    return inputs


def _inputs(of_options, options, wildcards):
    return of_options(experiment, options())


def urgency(wildcards):
    """Priority: first what the branch of the tree waits for, then what it adds, then what nothing waits for."""
    if wildcards.option in judged_options(experiment.judge_spec()):
        return 20
    return 0 if wildcards.option in experiment.run else 10


def training_urgency(wildcards):
    """A training is the longest way to the decision: no core waits for it at the end."""
    return urgency(wildcards) + 10
