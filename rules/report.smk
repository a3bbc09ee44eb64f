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


rule plot_plan:
    """Plot which GPU runs which stage when."""
    input:
        plan="results/plan.json",
    output:
        "results/figures/plan.svg",
    log:
        "logs/plot_plan.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        spec=experiment.figures.model_dump_json(),
        source=source_code("scripts/plot_plan.py"),
    message:
        "Plot the plan"
    shell:
        'python "$SCRIPTS"/plot_plan.py --plan {input.plan} --spec {params.spec:q}'
        " --output {output} 2>&1 | tee {log}"


rule plot_prophet:
    """Plot how well each Prophet predicts the held-out episodes."""
    input:
        known=known_foresights,
        scheduled=scheduled_foresights,
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
        'python "$SCRIPTS"/plot_prophet.py --foresights {input.known} {input.scheduled} --spec {params.spec:q}'
        " --output {output} 2>&1 | tee {log}"


rule compare_attention:
    """Compare where the options with a world modality look in the predicted future."""
    input:
        known=known_attention,
        scheduled=scheduled_attention,
    output:
        data="results/attention.json",
        text="results/attention.txt",
    log:
        "logs/compare_attention.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        roles=f"--world {experiment.decision.world} --wrist {experiment.decision.wrist}",
        source=source_code("scripts/compare_attention.py"),
    message:
        "Compare the options' attention"
    shell:
        'python "$SCRIPTS"/compare_attention.py --tables {input.known} {input.scheduled} {params.roles}'
        " --output-json {output.data} --output-text {output.text} 2>&1 | tee {log}"


rule plot_attention:
    """Plot where the options with a world modality look in the predicted future."""
    input:
        attention="results/attention.json",
    output:
        "results/figures/attention.svg",
    log:
        "logs/plot_attention.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        spec=experiment.figures.model_dump_json(),
        source=source_code("scripts/plot_attention.py"),
    message:
        "Plot the options' attention"
    shell:
        'python "$SCRIPTS"/plot_attention.py --attention {input.attention} --spec {params.spec:q}'
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
