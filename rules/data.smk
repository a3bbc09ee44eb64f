"""Demonstrations: recorded from the scripted expert in the simulator. A dataset from the hub is placed by hub.smk."""

if experiment.demonstrations.source == "simulate":

    rule record_demonstrations:
        """Record the scripted expert's demonstrations of one task."""
        output:
            directory(paths.demonstrations()),
        log:
            paths.log("record_demonstrations", "task_{task}"),
        benchmark:
            paths.benchmark("record_demonstrations", "task_{task}")
        priority: 40  # everything waits for it
        conda:
            "../envs/pipeline.yaml"
        resources:
            mem_mb=growing(4000),
            runtime=growing(120),
        params:
            spec=as_it_is(experiment.record_spec().model_dump_json()),
            source=source_code("scripts/record_demonstrations.py"),
        message:
            "Record the demonstrations of task {wildcards.task}"
        shell:
            'python "$SCRIPTS"/record_demonstrations.py --task {wildcards.task} --spec {params.spec:q}'
            " --output {output} 2>&1 | tee {log}"

    rule aggregate_demonstrations:
        """Join the recordings of all tasks into one LeRobotDataset."""
        input:
            parts=inputs.demonstration_parts(experiment),
        output:
            directory(paths.DATASET),
        log:
            paths.log("aggregate_demonstrations"),
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
