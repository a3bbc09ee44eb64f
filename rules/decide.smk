"""The decision tree: the checkpoint that judges the pickup tasks, and the decision at its end."""


checkpoint judge_pickup:
    """Judge the world modality on the pickup tasks and plan what runs next."""
    input:
        look=lambda wildcards: last_look(
            (experiment.decision.world, experiment.decision.baseline)
        ),
    output:
        verdict=paths.PICKUP,
        plan=paths.PLAN,
    log:
        paths.log("judge_pickup"),
    priority: 40
    conda:
        "../envs/pipeline.yaml"
    params:
        spec=experiment.judge_spec().model_dump_json(),
        source=source_code("scripts/judge_pickup.py"),
    message:
        "Judge the world modality on the pickup tasks"
    shell:
        'python "$SCRIPTS"/judge_pickup.py --look {input.look} --spec {params.spec:q}'
        " --output {output.verdict} --output-plan {output.plan} 2>&1 | tee {log}"


rule audit_fairness:
    """Audit that the compared options differ only in what defines them."""
    input:
        **compared(evaluations=inputs.evaluations),
        checkpoints=lambda wildcards: inputs.checkpoints(
            experiment, *compared_options()
        ),
    output:
        paths.FAIRNESS,
    log:
        paths.log("audit_fairness"),
    conda:
        "../envs/pipeline.yaml"
    params:
        roles=flags(
            baseline=experiment.decision.baseline, world=experiment.decision.world
        ),
        source=source_code("scripts/audit_fairness.py"),
    message:
        "Audit the fairness of the comparison"
    shell:
        'python "$SCRIPTS"/audit_fairness.py --checkpoints {input.checkpoints}'
        " --evaluations {input.evaluations} {input.scheduled_evaluations} {params.roles} --output {output} 2>&1 | tee {log}"


rule decide:
    """Walk the decision tree to its end and write the decision."""
    input:
        **compared(evaluations=inputs.evaluations, foresights=inputs.foresights),
        looks=lambda wildcards: list(map(last_look, known_comparisons())),
        scheduled_looks=lambda wildcards: list(map(last_look, scheduled_comparisons())),
        pickup=paths.PICKUP,
        fairness=paths.FAIRNESS,
        plan=paths.PLAN,
    output:
        data=paths.DECISION,
        text=paths.DECISION_TEXT,
    log:
        paths.log("decide"),
    conda:
        "../envs/pipeline.yaml"
    params:
        spec=as_it_is(experiment.decision_spec().model_dump_json()),
        source=source_code("scripts/decide.py"),
    message:
        "Decide"
    shell:
        'python "$SCRIPTS"/decide.py --pickup {input.pickup} --plan {input.plan} --fairness {input.fairness}'
        " --looks {input.looks} {input.scheduled_looks} --evaluations {input.evaluations} {input.scheduled_evaluations} --foresights {input.foresights} {input.scheduled_foresights}"
        " --spec {params.spec:q} --output-json {output.data} --output-text {output.text} 2>&1 | tee {log}"
