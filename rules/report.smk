"""What people look at in addition to the decision."""


rule compare_attention:
    """Compare where the options with a world modality look in the predicted future."""
    input:
        **compared(tables=inputs.attention_tables),
    output:
        data=paths.ATTENTION,
        text=paths.ATTENTION_TEXT,
    log:
        paths.log("compare_attention"),
    conda:
        "../envs/pipeline.yaml"
    params:
        roles=flags(world=experiment.decision.world, wrist=experiment.decision.wrist),
        source=source_code("scripts/compare_attention.py"),
    message:
        "Compare the options' attention"
    shell:
        'python "$SCRIPTS"/compare_attention.py --tables {input.tables} {input.scheduled_tables} {params.roles}'
        " --output-json {output.data} --output-text {output.text} 2>&1 | tee {log}"


rule plot_figure:
    """Plot one of the figures."""
    input:
        data=lambda wildcards: inputs.drawn(experiment, wildcards.figure),
        scheduled=lambda wildcards: (
            inputs.foresights(experiment, scheduled_options())
            if wildcards.figure == "prophet"
            else []
        ),
    output:
        paths.figure(),
    log:
        paths.log("plot_figure", "{figure}"),
    conda:
        "../envs/pipeline.yaml"
    params:
        spec=experiment.figures.model_dump_json(),
        source=source_code("scripts/plot_figure.py"),
    message:
        "Plot the figure: {wildcards.figure}"
    shell:
        'python "$SCRIPTS"/plot_figure.py --figure {wildcards.figure} --data {input.data} {input.scheduled} --spec {params.spec:q}'
        " --output {output} 2>&1 | tee {log}"


rule verify:
    """Check every artifact of the results folder against its own record and those of its ancestors."""
    log:
        paths.log("verify"),
    conda:
        "../envs/pipeline.yaml"
    message:
        "Verify the results"
    shell:
        f'python "$SCRIPTS"/verify_results.py {paths.RESULTS} 2>&1 | tee {{log}}'
