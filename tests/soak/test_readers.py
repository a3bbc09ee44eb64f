"""Readers of files that people pass around: whatever is in a file, it is read, or refused in one line.

Not part of `make test`: `make soak SECONDS=3600`. Each input is a file of a finished smoke experiment, spoilt at
random: cut, bytes changed, parts removed or repeated, and in JSON one value replaced by another. What was found has a
test of its own in the unit tier.
"""

import json
import os
import random
import time
from functools import partial
from pathlib import Path

import pytest
import yaml

from world_modality.artifacts.files import read_json_lines
from world_modality.artifacts.provenance import read_provenance
from world_modality.artifacts.records import content_sha256
from world_modality.decision.evaluations import read_evaluation
from world_modality.decision.looks import Look
from world_modality.decision.published import read_counts
from world_modality.errors import InputError
from world_modality.evaluation.actions import read_actions
from world_modality.examination.foresight import read_foresight
from world_modality.experiment.config import load_experiment
from world_modality.experiment.sections import ConfigError
from world_modality.latents.table import LatentTable

REPOSITORY = Path(__file__).parents[2]
SECONDS = float(os.environ.get("SOAK_SECONDS", "60"))
SEED = int(os.environ.get("SOAK_SEED", "0"))
RECORDED = [read_provenance, content_sha256]


def read_config(path: Path) -> None:
    """Validate what a YAML parser makes of a config, which says one line for each offending key."""
    try:
        values = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, ValueError, OverflowError):  # Snakemake's to report
        return
    if isinstance(values, dict):
        try:
            load_experiment(values)
        except ConfigError as error:
            raise InputError(str(error).replace("\n", "; ")) from None


READERS = {
    "eval_E2_0.json": [read_evaluation, *RECORDED],
    "rollouts/E2/seed_0/task_0/block_0.jsonl": [read_json_lines, *RECORDED],
    "rollouts/E2/seed_0/task_0/block_0_actions.parquet": [partial(read_actions, init_state_id=0), *RECORDED],
    "latents_front.parquet": [LatentTable.open, *RECORDED],
    "attention_rollout_E2.parquet": RECORDED,
    "looks/E2_E0/round_0.json": [Look.read, *RECORDED],
    "run_config.yaml": [read_config],
    "prophet_E2.json": [read_foresight, *RECORDED],
    "figures/success.svg": RECORDED,
    "published_counts.yaml": [read_counts],
}
VALUES = [None, True, -1, 0, 1e400, float("nan"), "", [], {}, "x" * 9, 10**30, "é\u0000"]


def spoil_bytes(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content))
    end = min(len(content), start + draw.randrange(1, 200))
    kind = draw.choice(["cut", "change", "remove", "repeat"])
    if kind == "cut":
        return content[:start]
    if kind == "remove":
        return content[:start] + content[end:]
    if kind == "repeat":
        return content[:end] + content[start:]
    changed = bytearray(content)
    for _ in range(draw.randrange(1, 8)):
        changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed)


def places(value, path=()):
    """Where a value may be replaced: the path of every value inside it."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield (*path, key)
        yield from places(part, (*path, key))


def spoil_json(content: bytes, draw: random.Random) -> bytes:
    document = json.loads(content)
    *path, last = draw.choice(list(places(document)))
    holder = document
    for key in path:
        holder = holder[key]
    if isinstance(holder, dict) and draw.random() < 0.2:
        del holder[last]
    else:
        holder[last] = draw.choice(VALUES)
    return json.dumps(document).encode()


def refusal(read, path: Path) -> str:
    """What a reader says of a file that it refuses; another error than that fails the test."""
    try:
        read(path)
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", READERS)
def test_a_spoilt_file_is_read_or_refused_in_one_line(smoke, tmp_path, name):
    original = REPOSITORY / "docs" / name if name == "published_counts.yaml" else smoke / "results" / name
    content, draw, inputs = original.read_bytes(), random.Random(f"{SEED} {name}"), 0
    if name == "run_config.yaml":
        content = json.dumps(yaml.safe_load(content)).encode()  # which is YAML as well
    path, until = tmp_path / original.name, time.monotonic() + SECONDS / len(READERS)
    while time.monotonic() < until:
        is_json = path.suffix == ".json" or name == "run_config.yaml"
        spoil = spoil_json if is_json and draw.random() < 0.6 else spoil_bytes
        path.write_bytes(spoil(content, draw))
        inputs += 1
        for read in READERS[name]:
            assert refusal(read, path).count("\n") == 0, f"{read.__name__}, input {inputs}, SOAK_SEED={SEED}"
    print(f"{name}: {inputs} inputs")
