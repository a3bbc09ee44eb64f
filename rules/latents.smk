"""World latents: V-JEPA 2 over every window of m frames of one camera."""


rule build_encoder:
    """Build the V-JEPA 2 of the experiment, in the format of the published ones."""
    output:
        directory("results/encoder"),
    log:
        "logs/build_encoder.log",
    conda:
        "../envs/pipeline.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        spec=experiment.encoder.model_dump_json(),
        source=source_code("scripts/build_encoder.py"),
    message:
        "Build the encoder"
    shell:
        'python "$SCRIPTS"/build_encoder.py --spec {params.spec:q} --output {output} 2>&1 | tee {log}'


rule encode_latents:
    """Encode the world latents of one camera: `wrist`, or `wrist_m8` for a window that is not world.window."""
    input:
        dataset="results/dataset",
        encoder="results/encoder",
    output:
        "results/latents_{table}.parquet",
    log:
        "logs/encode_latents/{table}.log",
    benchmark:
        "benchmarks/out/encode_latents/{table}.tsv"
    conda:
        "../envs/pipeline.yaml"
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        flags=encoding_flags,
        source=source_code("scripts/precompute_world_latents.py"),
    message:
        "Encode the latents of the camera: {wildcards.table}"
    shell:
        'python "$SCRIPTS"/precompute_world_latents.py --dataset {input.dataset}'
        " --encoder {input.encoder} {params.flags} --output {output} 2>&1 | tee {log}"
