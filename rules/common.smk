"""What the rules share: how a program is run, which options the tree has scheduled, which jobs run first."""

import shlex
import sys
from functools import partial
from pathlib import Path

from world_modality.artifacts.files import read_json
from world_modality.experiment.branches import judged_options
from world_modality.program import ROUNDING_VARIABLES

# Rules run their programs with the Python that runs Snakemake, whether or not its environment is activated, and with
# the library next to this file. That folder is not a param, so moving the repository reruns nothing. A program ends
# when one of the processes in $RUN_PIDS ends. Each program computes with one thread. Snakemake would set as many as the
# job has processors, but simulators and loaders use those, and sums would depend on the number of threads. For the same
# reason it runs without the `ROUNDING_VARIABLES` that the user's shell may have set.
#
# Snakemake compares a job's params as a *set* of values without their names: if params 64 and 4 become 4 and 64, it
# sees no change. So a rule's params are its spec (or its flags) in one string, and its source in another. It forgets
# params that are a function of a job's inputs: they follow from wildcards and config alone.
shell.prefix(
    f"unset {' '.join(ROUNDING_VARIABLES)}; export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"
    f" PYTHONPATH={shlex.quote(str(workflow.basedir))} SCRIPTS={shlex.quote(f'{workflow.basedir}/scripts')}"
    ' RUN_PIDS="$PPID $$"'
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


def urgency(wildcards):
    """Priority: first what the branch of the tree waits for, then what the branch adds, then everything else."""
    if wildcards.option in judged_options(experiment.judge_spec()):
        return 20
    return 0 if wildcards.option in experiment.run else 10


def training_urgency(wildcards):
    """Trainings are the longest jobs, so they start early: at the end, no core should sit idle waiting for one."""
    return urgency(wildcards) + 10
