"""World latents: V-JEPA 2 over every window of m frames of one camera."""

if experiment.encoder.source == "small":

    rule build_encoder:
        """Build the experiment's small V-JEPA 2, in the format of the published ones."""
        output:
            directory(paths.ENCODER),
        log:
            paths.log("build_encoder"),
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
        encoder=paths.ENCODER,
        dataset=paths.DATASET,
    output:
        directory(paths.PRETRAINED_ENCODER),
    log:
        paths.log("pretrain_encoder"),
    benchmark:
        paths.benchmark("pretrain_encoder")
    priority: 30  # trainings wait for it
    conda:
        "../envs/pipeline.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        flags=as_it_is(
            flags(
                image_keys=[
                    experiment.image_keys[camera] for camera in ("front", "wrist")
                ],
                temporal_window=experiment.world.window,
                held_out=experiment.demonstrations.held_out_per_task,
                steps=experiment.encoder.pretrain_steps,
                seed=experiment.encoder.seed,
            )
        ),
        source=source_code("scripts/pretrain_encoder.py"),
    message:
        "Pretrain the encoder"
    shell:
        'python "$SCRIPTS"/pretrain_encoder.py --encoder {input.encoder} --dataset {input.dataset}'
        " {params.flags} --output {output} 2>&1 | tee {log}"


rule replay_demonstrations:
    """Replay the recorded actions to find out where the objects were in each frame, which a dataset does not say."""
    input:
        dataset=paths.DATASET,
    output:
        paths.OBJECT_POSITIONS,
    log:
        paths.log("replay_demonstrations"),
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
    """Probe how well latents and, for comparison, raw pixels locate gripper and objects. Runs only on request."""
    input:
        **inputs.probed_encoders(experiment),
        dataset=paths.DATASET,
        objects=paths.OBJECT_POSITIONS,
    output:
        paths.PROBE,
    log:
        paths.log("probe_encoder"),
    conda:
        "../envs/pipeline.yaml"
    resources:
        mem_mb=growing(8000),
        runtime=growing(120),
    params:
        flags=as_it_is(
            flags(
                encoders=[
                    f"{name}={folder}"
                    for name, folder in inputs.probed_encoders(experiment).items()
                ],
                image_keys=[
                    f"{camera}={key}" for camera, key in experiment.image_keys.items()
                ],
                temporal_window=experiment.world.window,
                held_out=experiment.demonstrations.held_out_per_task,
            )
        ),
        source=source_code("scripts/probe_encoder.py"),
    message:
        "Probe the encoder"
    shell:
        'python "$SCRIPTS"/probe_encoder.py --dataset {input.dataset} --objects {input.objects} {params.flags}'
        " --output {output} 2>&1 | tee {log}"


rule encode_latents:
    """Encode the world latents of one camera: `wrist`, or `wrist_m8` for options with a window of 8 of their own."""
    input:
        dataset=paths.DATASET,
        encoder=inputs.encoder(experiment),
    output:
        paths.latents(),
    log:
        paths.log("encode_latents", "{table}"),
    benchmark:
        paths.benchmark("encode_latents", "{table}")
    priority: 30  # trainings wait for it
    conda:
        "../envs/pipeline.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        flags=lambda wildcards: flags(
            image_key=experiment.image_keys[wildcards.table.partition("_m")[0]],
            temporal_window=wildcards.table.partition("_m")[2]
            or experiment.world.window,
            image_size=experiment.encoder.image_size,
            batch_size=experiment.latents.batch_size,
            device=experiment.device,
            precision=experiment.encoder.precision,
        ),
        source=source_code("scripts/precompute_world_latents.py"),
    message:
        "Encode the latents of the camera: {wildcards.table}"
    shell:
        'python "$SCRIPTS"/precompute_world_latents.py --dataset {input.dataset}'
        " --encoder {input.encoder} {params.flags} --processors {threads} --output {output} 2>&1 | tee {log}"
