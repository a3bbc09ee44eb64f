"""Evaluations: closed-loop rollouts in fixed blocks of initial states, the same for every option, and looks at them."""


rule draw_init_states:
    """Draw a block of initial states from wider regions than LIBERO's own, each solved by the expert."""
    output:
        paths.init_states(),
    log:
        paths.log("draw_init_states", "task_{task}_block_{block}"),
    benchmark:
        paths.benchmark("draw_init_states", "task_{task}_block_{block}")
    priority: 20
    conda:
        "../envs/pipeline.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        spec=lambda wildcards: experiment.init_states_spec(
            wildcards.task
        ).model_dump_json(),
        block=lambda wildcards: flags(
            first=experiment.block(wildcards.block).start,
            count=len(experiment.block(wildcards.block)),
        ),
        source=source_code("scripts/draw_init_states.py"),
    message:
        "Draw initial states of task {wildcards.task}, block {wildcards.block}"
    shell:
        'python "$SCRIPTS"/draw_init_states.py --task {wildcards.task} {params.block} --spec {params.spec:q}'
        " --output {output} 2>&1 | tee {log}"


rule evaluate_policy:
    """Roll out one block of initial states."""
    input:
        unpack(
            lambda wildcards: inputs.rollout(
                experiment, wildcards.option, wildcards.seed
            )
        ),
        init_states=lambda wildcards: inputs.init_states(
            experiment, wildcards.task, [wildcards.block]
        ),
    output:
        episodes=paths.block_episodes(),
        actions=paths.block_actions(),
        attention=paths.block_attention(),
    log:
        paths.log("evaluate_policy", paths.block_job()),
    benchmark:
        paths.benchmark("evaluate_policy", paths.block_job())
    priority: urgency
    conda:
        "../envs/pipeline.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
    params:
        spec=lambda wildcards: experiment.rollout_spec(
            wildcards.option, wildcards.task
        ).model_dump_json(),
        block=lambda wildcards: flags(
            first=experiment.block(wildcards.block).start,
            count=len(experiment.block(wildcards.block)),
            init_states=inputs.init_states(
                experiment, wildcards.task, [wildcards.block]
            ),
        ),
        source=source_code("scripts/evaluate_policy.py"),
    message:
        "Evaluate option {wildcards.option} on task {wildcards.task}, block {wildcards.block}"
    shell:
        'python "$SCRIPTS"/evaluate_policy.py --checkpoint {input.checkpoint} --task {wildcards.task}'
        " --seed {wildcards.seed} {params.block} --spec {params.spec:q} --simulators {threads}"
        " --output {output.episodes} --actions {output.actions} --attention {output.attention} 2>&1 | tee {log}"


checkpoint look_at_comparison:
    """Look at the episodes of two options: are they enough to settle their comparison?"""
    input:
        unpack(
            lambda wildcards: inputs.look(
                experiment,
                wildcards.option,
                wildcards.reference,
                int(wildcards.round) + 1,
            )
        ),
    output:
        paths.look(),
    log:
        paths.log("look_at_comparison", paths.look_job()),
    priority: 40
    conda:
        "../envs/pipeline.yaml"
    params:
        spec=lambda wildcards: experiment.look_spec(
            wildcards.option, wildcards.reference, int(wildcards.round) + 1
        ).model_dump_json(),
        source=source_code("scripts/look_at_comparison.py"),
    message:
        "Look at {wildcards.option} : {wildcards.reference} after round {wildcards.round}"
    shell:
        'python "$SCRIPTS"/look_at_comparison.py --option {input.option} --option_manifest {input.option_manifest}'
        " --reference {input.reference} --reference_manifest {input.reference_manifest} --spec {params.spec:q}"
        " --output {output} 2>&1 | tee {log}"


rule record_videos:
    """Film the first success and the first failure."""
    input:
        **filmed("blocks", "actions", "init_states"),
    output:
        directory(paths.videos()),
    log:
        paths.log("record_videos", paths.task_job()),
    benchmark:
        paths.benchmark("record_videos", paths.task_job())
    conda:
        "../envs/pipeline.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        spec=lambda wildcards: experiment.rollout_spec(
            wildcards.option, wildcards.task
        ).model_dump_json(),
        size=flags(size=experiment.evaluation.video_size),
        init_states=lambda wildcards, input: flags(init_states=input.init_states),
        source=source_code("scripts/record_videos.py"),
    message:
        "Film option {wildcards.option} on task {wildcards.task}"
    shell:
        'python "$SCRIPTS"/record_videos.py --task {wildcards.task}'
        " --blocks {input.blocks} --actions {input.actions} {params.size} {params.init_states} --spec {params.spec:q} --output {output} 2>&1 | tee {log}"


rule collect_evaluation:
    """Join an option's blocks of rollouts on one task."""
    input:
        blocks=lambda wildcards: inputs.evaluated_blocks(
            experiment,
            wildcards.option,
            [known_task(wildcards)],
            rounds_run(wildcards.option),
        ),
        manifest=lambda wildcards: paths.manifest(
            experiment.checkpoint_option(wildcards.option)
        ),
    output:
        paths.evaluation(),
    log:
        paths.log("collect_evaluation", "{option}_{task}"),
    priority: urgency
    conda:
        "../envs/pipeline.yaml"
    params:
        spec=lambda wildcards: experiment.evaluation_spec(
            wildcards.option
        ).model_dump_json(),
        source=source_code("scripts/collect_evaluation.py"),
    message:
        "Join the rollouts of option {wildcards.option} on task {wildcards.task}"
    shell:
        'python "$SCRIPTS"/collect_evaluation.py --task {wildcards.task} --manifest {input.manifest}'
        " --blocks {input.blocks}"
        f" --videos {paths.videos('{wildcards.option}', '{wildcards.task}')}"
        " --spec {params.spec:q} --output {output} 2>&1 | tee {log}"


rule collect_attention:
    """Join what an option paid attention to in all of its rollouts."""
    input:
        blocks=lambda wildcards: inputs.attention_blocks(
            experiment, wildcards.option, rounds_run(wildcards.option)
        ),
    output:
        paths.rollout_attention(),
    log:
        paths.log("collect_attention", "{option}"),
    conda:
        "../envs/pipeline.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        flags=flags(episodes=experiment.most_episodes)
        + (" --adaptive" if experiment.is_adaptive else ""),
        source=source_code("scripts/collect_attention.py"),
    message:
        "Join the attention of option {wildcards.option} at rollout"
    shell:
        'python "$SCRIPTS"/collect_attention.py --option {wildcards.option} --blocks {input.blocks}'
        " {params.flags} --output {output} 2>&1 | tee {log}"
