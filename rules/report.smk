"""What people look at beside the decision."""


rule plot_success:
    """Plot the success rate of every option and task."""
    input:
        decision="results/decision.json",
    output:
        "results/figures/success.svg",
    log:
        "logs/plot_success.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        spec=experiment.figures.model_dump_json(),
        source=source_code("scripts/plot_success.py"),
    message:
        "Plot the success rates"
    shell:
        'python "$SCRIPTS"/plot_success.py --decision {input.decision} --spec {params.spec:q}'
        " --output {output} 2>&1 | tee {log}"


rule plot_prophet:
    """Plot how well each Prophet predicts the held-out episodes."""
    input:
        foresights=all_foresights,
    output:
        "results/figures/prophet.svg",
    log:
        "logs/plot_prophet.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        spec=experiment.figures.model_dump_json(),
        source=source_code("scripts/plot_prophet.py"),
    message:
        "Plot how well Prophet predicts"
    shell:
        'python "$SCRIPTS"/plot_prophet.py --foresights {input.foresights} --spec {params.spec:q}'
        " --output {output} 2>&1 | tee {log}"


rule verify:
    """Check every artifact of the results folder against its own record and those of its ancestors."""
    log:
        "logs/verify.log",
    conda:
        "../envs/pipeline.yaml"
    message:
        "Verify the results"
    shell:
        'python "$SCRIPTS"/verify_results.py results 2>&1 | tee {log}'
