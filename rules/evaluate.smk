"""Evaluations: closed-loop rollouts in fixed blocks of initial states, the same for every option."""


rule draw_init_states:
    """Draw a block of initial states from wider regions than LIBERO's own, each solved by the expert."""
    output:
        "results/init_states/task_{task}/block_{block}.parquet",
    log:
        "logs/draw_init_states/task_{task}_block_{block}.log",
    benchmark:
        "benchmarks/out/draw_init_states/task_{task}_block_{block}.tsv"
    priority: 20
    conda:
        "../envs/pipeline.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        spec=drawing_spec,
        block=block_range,
        source=source_code("scripts/draw_init_states.py"),
    message:
        "Draw initial states of task {wildcards.task}, block {wildcards.block}"
    shell:
        'python "$SCRIPTS"/draw_init_states.py --task {wildcards.task} {params.block} --spec {params.spec:q}'
        " --output {output} 2>&1 | tee {log}"


rule evaluate_policy:
    """Roll out one block of initial states."""
    input:
        unpack(rollout_inputs),
        init_states=init_states_of_block,
    output:
        episodes="results/rollouts/{option}/seed_{seed}/task_{task}/block_{block}.jsonl",
        attention="results/rollouts/{option}/seed_{seed}/task_{task}/block_{block}_attention.parquet",
    log:
        "logs/evaluate_policy/{option}_seed_{seed}_task_{task}_block_{block}.log",
    benchmark:
        "benchmarks/out/evaluate_policy/{option}_seed_{seed}_task_{task}_block_{block}.tsv"
    priority: urgency
    conda:
        "../envs/pipeline.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
    params:
        spec=rollout_spec,
        block=block_flags,
        source=source_code("scripts/evaluate_policy.py"),
    message:
        "Evaluate option {wildcards.option} on task {wildcards.task}, block {wildcards.block}"
    shell:
        'python "$SCRIPTS"/evaluate_policy.py --checkpoint {input.checkpoint} --task {wildcards.task}'
        " --seed {wildcards.seed} {params.block} --spec {params.spec:q} --simulators {threads}"
        " --output {output.episodes} --attention {output.attention} 2>&1 | tee {log}"


rule record_videos:
    """Film the first success and the first failure."""
    input:
        unpack(rollout_inputs),
        blocks=filmed_blocks,
        init_states=filmed_init_states,
    output:
        directory("results/videos/{option}/task_{task}"),
    log:
        "logs/record_videos/{option}_task_{task}.log",
    benchmark:
        "benchmarks/out/record_videos/{option}_task_{task}.tsv"
    conda:
        "../envs/pipeline.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        spec=rollout_spec,
        flags=film_flags,
        source=source_code("scripts/record_videos.py"),
    message:
        "Film option {wildcards.option} on task {wildcards.task}"
    shell:
        'python "$SCRIPTS"/record_videos.py --checkpoint {input.checkpoint} --task {wildcards.task}'
        " --blocks {input.blocks} {params.flags} --spec {params.spec:q} --output {output} 2>&1 | tee {log}"


rule collect_evaluation:
    """Join an option's blocks of one task."""
    input:
        blocks=evaluated_blocks,
        manifest=rolled_out_manifest,
    output:
        "results/eval_{option}_{task}.json",
    log:
        "logs/collect_evaluation/{option}_{task}.log",
    priority: urgency
    conda:
        "../envs/pipeline.yaml"
    params:
        spec=evaluation_spec,
        source=source_code("scripts/collect_evaluation.py"),
    message:
        "Join the rollouts of option {wildcards.option} on task {wildcards.task}"
    shell:
        'python "$SCRIPTS"/collect_evaluation.py --task {wildcards.task} --manifest {input.manifest}'
        " --blocks {input.blocks} --videos results/videos/{wildcards.option}/task_{wildcards.task}"
        " --spec {params.spec:q} --output {output} 2>&1 | tee {log}"


rule collect_attention:
    """Join what an option paid attention to in all of its rollouts."""
    input:
        blocks=attention_blocks,
    output:
        "results/attention_rollout_{option}.parquet",
    log:
        "logs/collect_attention/{option}.log",
    conda:
        "../envs/pipeline.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        flags=f"--episodes {experiment.evaluation.episodes}",
        source=source_code("scripts/collect_attention.py"),
    message:
        "Join the attention of option {wildcards.option} in its rollouts"
    shell:
        'python "$SCRIPTS"/collect_attention.py --option {wildcards.option} --blocks {input.blocks}'
        " {params.flags} --output {output} 2>&1 | tee {log}"
