"""`snakemake preflight`: one small job on each kind of node that the experiment uses, before hours are spent."""


rule check_simulating_node:
    """Check a node that computes and simulates, as an evaluation does."""
    output:
        temp(paths.preflight("simulating")),
    log:
        paths.log("preflight", "simulating"),
    conda:
        "../envs/pipeline.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(10),
    params:
        flags=flags(
            device=experiment.device,
            disk=experiment.disk_gb(),
            cache_frames=int(experiment.training.cache_frames),
            dataset=paths.DATASET,
            repository=published_demonstrations(),
        ),
        simulation=experiment.simulation.model_dump_json(),
    message:
        "Check a node that simulates"
    shell:
        'python "$SCRIPTS"/preflight.py {params.flags} --simulation {params.simulation:q} --memory {resources.mem_mb}'
        " --processors {threads} --output {output} 2>&1 | tee {log}"


rule check_plain_node:
    """Check a node for the other rules, which need no GPU; and the demonstrations, if they are there already."""
    output:
        temp(paths.preflight("plain")),
    log:
        paths.log("preflight", "plain"),
    conda:
        "../envs/pipeline.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        flags=flags(
            device="cpu",
            disk=experiment.disk_gb(),
            cache_frames=int(experiment.training.cache_frames),
            dataset=paths.DATASET,
            repository=published_demonstrations(),
            suite=experiment.simulation.suite,
            evaluated=experiment.evaluation.tasks,
        ),
    message:
        "Check a node that does not simulate"
    shell:
        'python "$SCRIPTS"/preflight.py {params.flags} --memory {resources.mem_mb} --processors {threads}'
        " --output {output} 2>&1 | tee {log}"


rule preflight:
    """Check every kind of node."""
    input:
        paths.preflight("simulating"),
        paths.preflight("plain"),
    log:
        paths.log("preflight", "all"),
    conda:
        "../envs/pipeline.yaml"
    message:
        "Every kind of node has passed"
    shell:
        "cat {input} | tee {log}"
