"""The decision tree: the checkpoint that judges the pickup tasks, and the decision at its end."""


checkpoint judge_pickup:
    """Judge the world modality on the pickup tasks and plan what runs next."""
    input:
        evaluations=pickup_evaluations,
    output:
        verdict="results/pickup.json",
        plan="results/plan.json",
    log:
        "logs/judge_pickup.log",
    priority: 40
    conda:
        "../envs/pipeline.yaml"
    params:
        spec=judge_spec,
        source=source_code("scripts/judge_pickup.py"),
    message:
        "Judge the world modality on the pickup tasks"
    shell:
        'python "$SCRIPTS"/judge_pickup.py --evaluations {input.evaluations} --spec {params.spec:q}'
        " --output {output.verdict} --output-plan {output.plan} 2>&1 | tee {log}"


rule audit_fairness:
    """Audit that the compared options differ only in what defines them."""
    input:
        known=known_evaluations,
        scheduled=scheduled_evaluations,
        checkpoints=audited_checkpoints,
    output:
        "results/fairness.json",
    log:
        "logs/audit_fairness.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        roles=f"--baseline {experiment.decision.baseline} --world {experiment.decision.world}",
        source=source_code("scripts/audit_fairness.py"),
    message:
        "Audit the fairness of the comparison"
    shell:
        'python "$SCRIPTS"/audit_fairness.py --checkpoints {input.checkpoints}'
        " --evaluations {input.known} {input.scheduled} {params.roles} --output {output} 2>&1 | tee {log}"


rule decide:
    """Walk the decision tree to its end and write the decision."""
    input:
        pickup="results/pickup.json",
        fairness="results/fairness.json",
        known=known_evaluations,
        scheduled=scheduled_evaluations,
        plan="results/plan.json",
        foresights=known_foresights,
        scheduled_foresights=scheduled_foresights,
    output:
        data="results/decision.json",
        text="results/decision.txt",
    log:
        "logs/decide.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        spec=decision_spec,
        source=source_code("scripts/decide.py"),
    message:
        "Decide"
    shell:
        'python "$SCRIPTS"/decide.py --pickup {input.pickup} --plan {input.plan} --fairness {input.fairness}'
        " --evaluations {input.known} {input.scheduled} --foresights {input.foresights} {input.scheduled_foresights}"
        " --spec {params.spec:q} --output-json {output.data} --output-text {output.text} 2>&1 | tee {log}"
