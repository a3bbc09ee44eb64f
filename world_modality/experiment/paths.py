"""Where each artifact of an experiment lies, relative to the experiment's folder. Light (no torch).

Called with values, a function returns one path. Called without, it returns the pattern for a rule:

    checkpoint("E2", 0)  ->  results/ckpt_E2/seed_0
    checkpoint()         ->  results/ckpt_{option}/seed_{seed}
"""

from __future__ import annotations

RESULTS = "results"
RUN_CONFIG = f"{RESULTS}/run_config.yaml"

DATASET = f"{RESULTS}/dataset"
OBJECT_POSITIONS = f"{RESULTS}/object_positions.parquet"
ENCODER = f"{RESULTS}/encoder"
PRETRAINED_ENCODER = f"{RESULTS}/encoder_pretrained"
PROBE = f"{RESULTS}/probe.json"
VLM = f"{RESULTS}/vlm"
POLICY = f"{RESULTS}/policy"
TRAINING_STATES = f"{RESULTS}/.training"  # of trainings in progress

PICKUP = f"{RESULTS}/pickup.json"
PLAN = f"{RESULTS}/plan.json"
FAIRNESS = f"{RESULTS}/fairness.json"
DECISION = f"{RESULTS}/decision.json"
DECISION_TEXT = f"{RESULTS}/decision.txt"
ATTENTION = f"{RESULTS}/attention.json"
ATTENTION_TEXT = f"{RESULTS}/attention.txt"

# The artifact that holds what each section of the config takes from a hub.
PUBLISHED = {"demonstrations": DATASET, "encoder": ENCODER, "vlm": VLM, "policy": POLICY}

Number = int | str  # a number, or the wildcard that stands for it


def demonstrations(task: Number = "{task}") -> str:
    return f"{RESULTS}/demonstrations/task_{task}"


def latents(table: str = "{table}") -> str:
    """The latents of a camera: `wrist`, or `wrist_m8` for a window of 8 that is not `world.window`."""
    return f"{RESULTS}/latents_{table}.parquet"


def checkpoint(option: str = "{option}", seed: Number = "{seed}") -> str:
    return f"{RESULTS}/ckpt_{option}/seed_{seed}"


def manifest(option: str = "{option}") -> str:
    return f"{RESULTS}/ckpt_{option}/manifest.json"


def foresight(option: str = "{option}") -> str:
    return f"{RESULTS}/prophet_{option}.json"


def training_attention(option: str = "{option}") -> str:
    return f"{RESULTS}/attention_train_{option}.parquet"


def rollout_attention(option: str = "{option}") -> str:
    return f"{RESULTS}/attention_rollout_{option}.parquet"


def init_states(task: Number = "{task}", block: Number = "{block}") -> str:
    return f"{RESULTS}/init_states/task_{task}/block_{block}.parquet"


def block_episodes(
    option: str = "{option}", seed: Number = "{seed}", task: Number = "{task}", block: Number = "{block}"
) -> str:
    return f"{RESULTS}/rollouts/{option}/seed_{seed}/task_{task}/block_{block}.jsonl"


def block_attention(
    option: str = "{option}", seed: Number = "{seed}", task: Number = "{task}", block: Number = "{block}"
) -> str:
    return block_episodes(option, seed, task, block).replace(".jsonl", "_attention.parquet")


def block_actions(
    option: str = "{option}", seed: Number = "{seed}", task: Number = "{task}", block: Number = "{block}"
) -> str:
    return block_episodes(option, seed, task, block).replace(".jsonl", "_actions.parquet")


def look(option: str = "{option}", reference: str = "{reference}", round: Number = "{round}") -> str:
    """What the episodes of two options up to a round say of their comparison."""
    return f"{RESULTS}/looks/{option}_{reference}/round_{round}.json"


def evaluation(option: str = "{option}", task: Number = "{task}") -> str:
    return f"{RESULTS}/eval_{option}_{task}.json"


def videos(option: str = "{option}", task: Number = "{task}") -> str:
    return f"{RESULTS}/videos/{option}/task_{task}"


def figure(name: str = "{figure}") -> str:
    return f"{RESULTS}/figures/{name}.svg"


def preflight(node: str) -> str:
    """What the preflight check of one kind of node found."""
    return f"{RESULTS}/.preflight/{node}.txt"


# ---- what a job leaves in addition to its artifacts -----------------------------------------------------------------


def training_job(option: str = "{option}", seed: Number = "{seed}") -> str:
    return f"{option}_seed_{seed}"


def block_job(
    option: str = "{option}", seed: Number = "{seed}", task: Number = "{task}", block: Number = "{block}"
) -> str:
    return f"{option}_seed_{seed}_task_{task}_block_{block}"


def task_job(option: str = "{option}", task: Number = "{task}") -> str:
    """The job of one option on one task."""
    return f"{option}_task_{task}"


def look_job(option: str = "{option}", reference: str = "{reference}", round: Number = "{round}") -> str:
    return f"{option}_{reference}_round_{round}"


def log(rule: str, job: str = "") -> str:
    return f"logs/{rule}/{job}.log" if job else f"logs/{rule}.log"


def benchmark(rule: str, job: str = "") -> str:
    """Where Snakemake writes what it measured of a job: seconds, memory."""
    return f"benchmarks/out/{rule}/{job}.tsv" if job else f"benchmarks/out/{rule}.tsv"
