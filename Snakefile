"""Does a predicted future of what a camera sees help a robot policy pick things up, and from which camera?

    demonstrations -> latents_<camera> -> ckpt_<option> -> eval_<option>_<task> -> pickup -> decision

Nothing is decided here: `config.yaml` says what the experiment is, the rules say how each artifact is made, the library
makes it, and the tree branches in the checkpoint `judge_pickup`.
"""

import sys

from snakemake.utils import min_version

from world_modality.artifacts.files import write_run_config
from world_modality.artifacts.sources import source_code
from world_modality.cluster import check_cluster
from world_modality.errors import InputError
from world_modality.experiment import inputs, paths
from world_modality.experiment.config import load_experiment
from world_modality.experiment.plan import check_solver

min_version("9.27")


configfile: f"{workflow.basedir}/config.yaml"
configfile: f"{workflow.basedir}/experiments/costs.yaml"
configfile: f"{workflow.basedir}/experiments/commits.yaml"


# Snakemake formats the paths of environments and scripts.
if "{" in workflow.basedir or "}" in workflow.basedir:
    sys.exit(
        f"error: {workflow.basedir}: has a brace in its name; clone into a folder without"
    )
try:
    check_solver()
    experiment = load_experiment(config)
except InputError as error:
    sys.exit(f"error: {error}")  # no traceback, because this file is not to blame


onstart:
    planned = list(workflow.dag.needrun_jobs())
    try:
        if workflow.executor_plugin.name == "slurm":
            check_cluster([job.resources for job in planned if not job.is_local])
        pin_published(planned)
    except InputError as error:
        sys.exit(f"error: {error}")
    write_run_config(config | {"commits": experiment.commits}, paths.RUN_CONFIG)


wildcard_constraints:
    option=r"[A-Z][A-Za-z0-9-]*",
    reference=r"[A-Z][A-Za-z0-9-]*",
    round=r"\d+",
    table=r"(front|wrist)(_m\d+)?",
    task=r"\d+",
    seed=r"\d+",
    block=r"\d+",
    figure="|".join(experiment.drawn_figures()),


localrules:
    all,
    fetch,
    preflight,
    place_repository,
    write_manifest,
    collect_evaluation,
    look_at_comparison,
    judge_pickup,
    audit_fairness,
    decide,
    plot_figure,
    collect_attention,
    compare_attention,
    verify,


include: "rules/common.smk"


rule all:
    """The decision, what the policies paid attention to, the figures and the videos."""
    input:
        paths.DECISION_TEXT,
        paths.ATTENTION_TEXT,
        [paths.figure(name) for name in experiment.drawn_figures()],
        **compared(videos=inputs.videos),


include: "rules/hub.smk"
include: "rules/preflight.smk"
include: "rules/data.smk"
include: "rules/latents.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/decide.smk"
include: "rules/report.smk"
