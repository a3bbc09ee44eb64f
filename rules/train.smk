"""Policies: SmolVLA, alone or with a world modality; every option from the same demonstrations and hyperparameters."""


rule build_vlm:
    """Build the SmolVLM of the experiment, in the format of the published ones."""
    output:
        directory("results/vlm"),
    log:
        "logs/build_vlm.log",
    conda:
        "../envs/pipeline.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        spec=experiment.vlm.model_dump_json(),
        source=source_hash("scripts/build_vlm.py"),
    message:
        "Build the vision-language model"
    shell:
        'python "$SCRIPTS"/build_vlm.py --spec {params.spec:q} --output {output} 2>&1 | tee {log}'


rule train_policy:
    """Train one option with one seed."""
    input:
        unpack(training_inputs),
    output:
        directory("results/ckpt_{option}/seed_{seed}"),
    log:
        "logs/train_policy/{option}_seed_{seed}.log",
    benchmark:
        "benchmarks/out/train_policy/{option}_seed_{seed}.tsv"
    conda:
        "../envs/pipeline.yaml"
    resources:
        mem_mb=6000,
        runtime=600,
    params:
        spec=training_spec,
        world=world_flags,
        wrist_image_key=experiment.image_keys["wrist"],
        source=source_hash("world_modality/train_llm_vla.py"),
    message:
        "Train option {wildcards.option}, seed {wildcards.seed}"
    shell:
        "python -m world_modality.train_llm_vla --dataset {input.dataset} --vlm {input.vlm} {params.world}"
        " --wrist_image_key {params.wrist_image_key} --spec {params.spec:q} --seed {wildcards.seed}"
        " --training_dir results/.training/{wildcards.option}/seed_{wildcards.seed} --output {output}"
        " 2>&1 | tee {log}"


rule write_manifest:
    """List an option's checkpoints."""
    input:
        checkpoints=checkpoints_of_option,
    output:
        "results/ckpt_{option}/manifest.json",
    log:
        "logs/write_manifest/{option}.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        source=source_hash("scripts/write_manifest.py"),
    message:
        "List the checkpoints of option {wildcards.option}"
    shell:
        'python "$SCRIPTS"/write_manifest.py --option {wildcards.option} --checkpoints {input.checkpoints}'
        " --output {output} 2>&1 | tee {log}"
