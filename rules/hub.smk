"""What comes from the hub. A run pins it to commits before its first job; then it is fetched and placed as artifacts."""

import json

from world_modality.artifacts.files import read_run_config
from world_modality.experiment.sections import is_commit

# The section of the config that asks for each artifact from the hub, by the artifact's name.
published = {
    Path(paths.PUBLISHED[section]).name: section
    for section in experiment.repositories()
}
to_fetch = [experiment.repository(section) for section in published.values()]

# What the config does not pin stays at the commits of the folder's last run. So what was trained there is not trained
# again because experiments/commits.yaml was not kept. `fetch` does not look there: it moves on.
if Path(paths.RUN_CONFIG).exists() and not all(is_commit(r.revision) for r in to_fetch):
    try:
        pin_to(read_run_config(paths.RUN_CONFIG).get("commits") or {})
    except InputError as error:
        sys.exit(f"error: {error}")


rule fetch:
    """Pin everything from the hub in experiments/commits.yaml, and fetch it into the cache of the hub's client."""
    log:
        paths.log("fetch"),
    conda:
        "../envs/pipeline.yaml"
    params:
        repositories=json.dumps([repository.model_dump() for repository in to_fetch]),
        commits=f"{workflow.basedir}/experiments/commits.yaml",
    message:
        "Fetch from the hub"
    shell:
        'HF_HUB_OFFLINE="$HUB_OFFLINE" python "$SCRIPTS"/fetch.py --repositories {params.repositories:q}'
        " --commits {params.commits:q} 2>&1 | tee {log}"


rule place_repository:
    """Fetch a repository at its pinned commit, and turn it into an artifact."""
    output:
        directory(f"{paths.RESULTS}/{{published}}"),
    log:
        paths.log("place_repository", "{published}"),
    wildcard_constraints:
        published="|".join(published) or "(?!)",
    priority: 30  # trainings wait for it
    conda:
        "../envs/pipeline.yaml"
    resources:
        source=origin,
    params:
        spec=lambda wildcards: experiment.repository(
            published[wildcards.published]
        ).model_dump_json(),
        source=source_code("scripts/place_repository.py"),
    message:
        "Fetch and place {wildcards.published}: {resources.source}"
    shell:
        'HF_HUB_OFFLINE="$HUB_OFFLINE" python "$SCRIPTS"/place_repository.py --spec {params.spec:q} --output {output}'
        " 2>&1 | tee {log}"
