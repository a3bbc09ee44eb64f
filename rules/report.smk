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
        source=source_hash("scripts/plot_success.py"),
    message:
        "Plot the success rates"
    shell:
        'python "$SCRIPTS"/plot_success.py --decision {input.decision} --output {output} 2>&1 | tee {log}'
