"""What comes from the hub. It is fetched and pinned on a machine with a network; then it is placed as artifacts."""

import json

# The section of the config that asks for each artifact from the hub, by the artifact's name.
published = {
    Path(paths.PUBLISHED[section]).name: section
    for section in experiment.repositories()
}


rule fetch:
    """Fetch everything from the hub into its client's cache, and pin it in experiments/commits.yaml."""
    log:
        paths.log("fetch"),
    conda:
        "../envs/pipeline.yaml"
    params:
        repositories=json.dumps(
            [r.model_dump() for r in experiment.repositories().values()]
        ),
        commits=f"{workflow.basedir}/experiments/commits.yaml",
    message:
        "Fetch from the hub"
    shell:
        'python "$SCRIPTS"/fetch.py --repositories {params.repositories:q} --commits {params.commits:q} 2>&1 | tee {log}'


rule place_repository:
    """Turn what was fetched into an artifact."""
    output:
        directory(f"{paths.RESULTS}/{{published}}"),
    log:
        paths.log("place_repository", "{published}"),
    wildcard_constraints:
        published="|".join(published) or "(?!)",
    priority: 30  # trainings wait for it
    conda:
        "../envs/pipeline.yaml"
    params:
        spec=lambda wildcards: experiment.pinned(
            published[wildcards.published]
        ).model_dump_json(),
        source=source_code("scripts/place_repository.py"),
    message:
        "Place what was fetched: {wildcards.published}"
    shell:
        'python "$SCRIPTS"/place_repository.py --spec {params.spec:q} --output {output} 2>&1 | tee {log}'
