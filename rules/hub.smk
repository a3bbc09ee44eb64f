"""What the experiment takes from the hub: fetched and pinned on a machine with a network, then artifacts like any other."""


rule fetch:
    """Fetch everything the experiment takes from the hub into its cache, and pin it in experiments/commits.yaml."""
    log:
        "logs/fetch.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        repositories=lambda wildcards: json.dumps(
            [r.model_dump() for r in experiment.repositories().values()]
        ),
        commits=f"{workflow.basedir}/experiments/commits.yaml",
    message:
        "Fetch from the hub"
    shell:
        'python "$SCRIPTS"/fetch.py --repositories {params.repositories:q} --commits {params.commits:q} 2>&1 | tee {log}'


rule place_repository:
    """Make an artifact of what was fetched."""
    output:
        directory("results/{published}"),
    log:
        "logs/place_repository/{published}.log",
    wildcard_constraints:
        published="|".join(published_artifacts()) or "(?!)",
    priority: 30  # trainings wait for it
    conda:
        "../envs/pipeline.yaml"
    params:
        spec=published_repository,
        source=source_code("scripts/place_repository.py"),
    message:
        "Place what was fetched: {wildcards.published}"
    shell:
        'python "$SCRIPTS"/place_repository.py --spec {params.spec:q} --output {output} 2>&1 | tee {log}'
