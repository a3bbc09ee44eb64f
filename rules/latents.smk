"""World latents: V-JEPA 2 over every window of m frames of one camera."""

if experiment.encoder.source == "small":

    rule build_encoder:
        """Build the V-JEPA 2 of the experiment, in the format of the published ones."""
        output:
            directory("results/encoder"),
        log:
            "logs/build_encoder.log",
        priority: 30  # trainings wait for it
        conda:
            "../envs/pipeline.yaml"
        resources:
            mem_mb=growing(4000),
            runtime=growing(30),
        params:
            spec=experiment.encoder_spec().model_dump_json(),
            source=source_code("scripts/build_encoder.py"),
        message:
            "Build the encoder"
        shell:
            'python "$SCRIPTS"/build_encoder.py --spec {params.spec:q} --output {output} 2>&1 | tee {log}'


rule pretrain_encoder:
    """Pretrain the encoder on the demonstrations of both cameras (encoder.pretrain_steps)."""
    input:
        encoder="results/encoder",
        dataset="results/dataset",
    output:
        directory("results/encoder_pretrained"),
    log:
        "logs/pretrain_encoder.log",
    benchmark:
        "benchmarks/out/pretrain_encoder.tsv"
    priority: 30  # trainings wait for it
    conda:
        "../envs/pipeline.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        flags=pretraining_flags,
        source=source_code("scripts/pretrain_encoder.py"),
    message:
        "Pretrain the encoder"
    shell:
        'python "$SCRIPTS"/pretrain_encoder.py --encoder {input.encoder} --dataset {input.dataset}'
        " {params.flags} --output {output} 2>&1 | tee {log}"


rule replay_demonstrations:
    """Find out where the objects were on every frame, which a dataset does not say, by replaying its actions."""
    input:
        dataset="results/dataset",
    output:
        "results/object_positions.parquet",
    log:
        "logs/replay_demonstrations.log",
    conda:
        "../envs/pipeline.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        source=source_code("scripts/replay_demonstrations.py"),
    message:
        "Replay the demonstrations"
    shell:
        'python "$SCRIPTS"/replay_demonstrations.py --dataset {input.dataset} --output {output} 2>&1 | tee {log}'


rule probe_encoder:
    """Probe what the encoder's latents say of gripper and objects, beside raw pixels; asked for by its name."""
    input:
        unpack(probed_encoders),
        dataset="results/dataset",
        objects="results/object_positions.parquet",
    output:
        "results/probe.json",
    log:
        "logs/probe_encoder.log",
    conda:
        "../envs/pipeline.yaml"
    resources:
        mem_mb=growing(8000),
        runtime=growing(120),
    params:
        flags=probe_flags,
        source=source_code("scripts/probe_encoder.py"),
    message:
        "Probe the encoder"
    shell:
        'python "$SCRIPTS"/probe_encoder.py --dataset {input.dataset} --objects {input.objects} {params.flags}'
        " --output {output} 2>&1 | tee {log}"


rule encode_latents:
    """Encode the world latents of one camera: `wrist`, or `wrist_m8` for a window that is not world.window."""
    input:
        dataset="results/dataset",
        encoder=experiment.encoder_folder(),
    output:
        "results/latents_{table}.parquet",
    log:
        "logs/encode_latents/{table}.log",
    benchmark:
        "benchmarks/out/encode_latents/{table}.tsv"
    priority: 30  # trainings wait for it
    conda:
        "../envs/pipeline.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        flags=encoding_flags,
        source=source_code("scripts/precompute_world_latents.py"),
    message:
        "Encode the latents of the camera: {wildcards.table}"
    shell:
        'python "$SCRIPTS"/precompute_world_latents.py --dataset {input.dataset}'
        " --encoder {input.encoder} {params.flags} --output {output} 2>&1 | tee {log}"
