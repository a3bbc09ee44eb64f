"""Policies: SmolVLA with or without a world modality, trained on the same demonstrations, with the same settings."""

if experiment.vlm.source == "small":

    rule build_vlm:
        """Build the experiment's small SmolVLM, in the format of the published ones."""
        output:
            directory(paths.VLM),
        log:
            paths.log("build_vlm"),
        priority: 30  # trainings wait for it
        conda:
            "../envs/pipeline.yaml"
        resources:
            mem_mb=growing(4000),
            runtime=growing(30),
        params:
            spec=experiment.vlm.model_dump_json(),
            source=source_code("scripts/build_vlm.py"),
        message:
            "Build the vision-language model"
        shell:
            'python "$SCRIPTS"/build_vlm.py --spec {params.spec:q} --output {output} 2>&1 | tee {log}'


rule train_policy:
    """Train one option with one seed."""
    input:
        unpack(lambda wildcards: inputs.training(experiment, wildcards.option)),
    output:
        directory(paths.checkpoint()),
    log:
        paths.log("train_policy", paths.training_job()),
    benchmark:
        paths.benchmark("train_policy", paths.training_job())
    priority: training_urgency
    conda:
        "../envs/pipeline.yaml"
    resources:
        mem_mb=growing(6000),
        runtime=growing(600),
        # These say how a training runs, not what it makes. They are resources because a changed param would retrain.
        save_every=experiment.training.save_every,
        cache_frames=int(experiment.training.cache_frames),
        loader_workers=experiment.training.loader_workers,
        # What will be evaluated must have been demonstrated, but does not change what is trained.
        suite=experiment.simulation.suite,
        evaluated=" ".join(map(str, experiment.evaluation.tasks)),
    params:
        spec=lambda wildcards: experiment.train_spec(wildcards.option).model_dump_json(),
        flags=lambda wildcards: flags(
            wrist_image_key=experiment.image_keys["wrist"],
            policy=inputs.training(experiment, wildcards.option).get("policy", ""),
            image_key=[
                experiment.image_keys[camera]
                for camera in experiment.latent_cameras(wildcards.option)
            ],
            latents=[
                f"{camera}={paths.latents(table)}"
                for camera, table in experiment.latent_tables(wildcards.option).items()
            ],
            encoder=inputs.training(experiment, wildcards.option).get("encoder", ""),
        ),
        source=source_code("world_modality/train_llm_vla.py"),
    message:
        "Train option {wildcards.option}, seed {wildcards.seed}"
    shell:
        "python -m world_modality.train_llm_vla --dataset {input.dataset} --vlm {input.vlm} {params.flags}"
        " --save_every {resources.save_every} --cache_frames {resources.cache_frames}"
        " --loader_workers {resources.loader_workers} --suite {resources.suite} --evaluated {resources.evaluated}"
        " --spec {params.spec:q} --seed {wildcards.seed}"
        f" --training_dir {paths.TRAINING_STATES} --output {{output}}"
        " 2>&1 | tee {log}"


rule write_manifest:
    """List an option's checkpoints."""
    input:
        checkpoints=lambda wildcards: inputs.checkpoints(experiment, wildcards.option),
    output:
        paths.manifest(),
    log:
        paths.log("write_manifest", "{option}"),
    priority: urgency
    conda:
        "../envs/pipeline.yaml"
    params:
        source=source_code("scripts/write_manifest.py"),
    message:
        "List the checkpoints of option {wildcards.option}"
    shell:
        'python "$SCRIPTS"/write_manifest.py --option {wildcards.option} --checkpoints {input.checkpoints}'
        " --output {output} 2>&1 | tee {log}"


rule measure_prophet:
    """Measure how well the Prophet of one option predicts the held-out episodes."""
    input:
        unpack(lambda wildcards: inputs.examination(experiment, wildcards.option)),
    output:
        paths.foresight(),
    log:
        paths.log("measure_prophet", "{option}"),
    conda:
        "../envs/pipeline.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        flags=flags(held_out=experiment.demonstrations.held_out_per_task),
        source=source_code("scripts/measure_prophet.py"),
    message:
        "Measure the Prophet of option {wildcards.option}"
    shell:
        'python "$SCRIPTS"/measure_prophet.py --checkpoints {input.checkpoints} --latents {input.latents}'
        " --dataset {input.dataset} {params.flags} --output {output} 2>&1 | tee {log}"


rule measure_attention:
    """Measure what the policies of one option pay attention to on frames they were trained on."""
    input:
        unpack(lambda wildcards: inputs.examination(experiment, wildcards.option)),
    output:
        paths.training_attention(),
    log:
        paths.log("measure_attention", "{option}"),
    conda:
        "../envs/pipeline.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        flags=flags(
            actions=experiment.evaluation.n_action_steps, device=experiment.device
        ),
        source=source_code("scripts/measure_attention.py"),
    message:
        "Measure the attention of option {wildcards.option} on training frames"
    shell:
        'python "$SCRIPTS"/measure_attention.py --checkpoints {input.checkpoints} --latents {input.latents}'
        " --dataset {input.dataset} {params.flags} --output {output} 2>&1 | tee {log}"
