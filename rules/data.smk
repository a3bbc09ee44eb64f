"""Demonstrations: the scripted expert in the simulator; a dataset from the hub is placed (hub.smk)."""

if experiment.demonstrations.source == "simulate":

    rule record_demonstrations:
        """Record the scripted expert's demonstrations of one task."""
        output:
            directory("results/demonstrations/task_{task}"),
        log:
            "logs/record_demonstrations/task_{task}.log",
        benchmark:
            "benchmarks/out/record_demonstrations/task_{task}.tsv"
        priority: 40  # everything waits for it
        conda:
            "../envs/pipeline.yaml"
        resources:
            mem_mb=growing(4000),
            runtime=growing(120),
        params:
            spec=experiment.record_spec().model_dump_json(),
            source=source_code("scripts/record_demonstrations.py"),
        message:
            "Record the demonstrations of task {wildcards.task}"
        shell:
            'python "$SCRIPTS"/record_demonstrations.py --task {wildcards.task} --spec {params.spec:q}'
            " --output {output} 2>&1 | tee {log}"

    rule aggregate_demonstrations:
        """Join the recordings of all tasks into one LeRobotDataset."""
        input:
            parts=demonstration_parts,
        output:
            directory("results/dataset"),
        log:
            "logs/aggregate_demonstrations.log",
        priority: 30  # trainings wait for it
        conda:
            "../envs/pipeline.yaml"
        resources:
            mem_mb=growing(4000),
            runtime=growing(30),
        params:
            source=source_code("scripts/aggregate_demonstrations.py"),
        message:
            "Join the recordings into one LeRobotDataset"
        shell:
            'python "$SCRIPTS"/aggregate_demonstrations.py --parts {input.parts} --output {output}'
            " 2>&1 | tee {log}"
