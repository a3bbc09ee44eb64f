"""On a finished experiment an edit makes anew exactly what depends on it: real dry runs, by Snakemake's own memory."""

import fnmatch
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from world_modality.rebuild import explain, hidden_jobs, plan

REPOSITORY = Path(__file__).parents[2]
SMOKE = REPOSITORY / "experiments" / "smoke.yaml"
ALL = {"E0", "E2", "E2-zero", "S0", "A"}
END = {"decision.json", "decision.txt", "figures/success.svg"}
AUDITED = {"fairness.json"} | END


def evaluated(*options, block="*"):
    blocks = {f"rollouts/{o}/seed_0/task_0/block_{block}.jsonl" for o in options}
    return blocks | {f"videos/{o}/task_0" for o in options} | {f"eval_{o}_0.json" for o in options}


def policy(option):
    return {f"ckpt_{option}/seed_0", f"ckpt_{option}/manifest.json"}


EDITS = {
    "option A's learning schedule": (
        {"options": {"A": {"training": {"learning_rate": 1e-3}}}},
        policy("A") | evaluated("A") | AUDITED,
    ),
    "more episodes": ({"evaluation": {"episodes": 4}}, evaluated(*ALL, block="1") | {"pickup.json"} | AUDITED),
    "the margin": ({"decision": {"margin": 0.05}}, END),
    "a figure's colour": ({"figures": {"pickup_color": "#123456"}}, {"figures/success.svg"}),
    "T_ctx": (
        {"world": {"history": 3}},
        policy("E2") | policy("A") | evaluated("E2", "E2-zero", "A") | {"pickup.json"} | AUDITED,
    ),
    "K": (
        {"world": {"horizon": 4}},
        policy("E2") | policy("A") | evaluated("E2", "E2-zero", "A") | {"pickup.json"} | AUDITED,
    ),
    "m": (
        {"world": {"window": 2}},
        {"latents_front.parquet", "latents_wrist.parquet"}
        | policy("E2")
        | policy("A")
        | evaluated("E2", "E2-zero", "A")
        | {"pickup.json"}
        | AUDITED,
    ),
    "a new option that nobody runs": ({"options": {"E9": {"label": "new", "cameras": ["front"]}}}, set()),
    "a new option": (
        {"options": {"E9": {"label": "new", "cameras": ["front"]}}, "run": ["E0", "E2", "E2-zero", "S0", "E9"]},
        policy("E9") | evaluated("E9") | {"pickup.json"} | AUDITED,
    ),
    "how a training runs": ({"training": {"save_every": 7, "loader_workers": 1, "cache_frames": False}}, set()),
}


def dry_run(directory, *overlays, snakefile=REPOSITORY / "Snakefile"):
    """Outputs that a real dry run would make, without `results/`."""
    command = [Path(sys.executable).with_name("snakemake"), "--snakefile", snakefile, "--directory", directory]
    command += ["--cores", "1", "--dry-run", "--printshellcmds", "--configfile", *overlays, "--", "all"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return {output.removeprefix("results/") for output in re.findall(r"--output(?:-json|-text)? (\S+)", run.stdout)}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_of_the_config_plans_what_depends_on_it(smoke, tmp_path, name):
    edit, expected = EDITS[name]
    overlay = tmp_path / "edit.yaml"
    overlay.write_text(yaml.safe_dump(edit))
    found = dry_run(smoke, SMOKE, overlay)
    assert {output for output in found if not any(fnmatch.fnmatchcase(output, p) for p in expected)} == set()
    assert {pattern for pattern in expected if not fnmatch.filter(found, pattern)} == set()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The repository checked out again, elsewhere and with new times."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("rules", "scripts", "envs", "world_modality", "lerobot_policy_world_modality", "profiles"):
        shutil.copytree(REPOSITORY / name, folder / name, copy_function=shutil.copy)
    for name in ("Snakefile", "config.yaml"):
        shutil.copy(REPOSITORY / name, folder / name)
    return folder


def test_checking_the_repository_out_again_plans_nothing(smoke, checkout):
    assert dry_run(smoke, SMOKE, snakefile=checkout / "Snakefile") == set()


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("world_modality/statistics.py", {"pickup.json"} | AUDITED),  # the audit waits for the branch
        ("world_modality/figures.py", {"figures/success.svg"}),
        (
            "world_modality/manifest.py",
            {f"ckpt_{o}/manifest.json" for o in ALL - {"E2-zero"}}
            | {f"eval_{o}_0.json" for o in ALL}
            | {"pickup.json"}
            | AUDITED,
        ),
    ],
)
def test_an_edit_of_a_module_plans_what_it_makes(smoke, checkout, module, expected):
    path = checkout / module
    code = path.read_text()
    try:
        path.write_text(f"{code.replace(chr(34) * 3, chr(34) * 3 + 'Edited. ', 1)}\n# edited\n")
        assert dry_run(smoke, SMOKE, snakefile=checkout / "Snakefile") == set()
        path.write_text(f"{code}\n_EDITED = True\n")
        assert dry_run(smoke, SMOKE, snakefile=checkout / "Snakefile") == expected
    finally:
        path.write_text(code)


# ---- in words -------------------------------------------------------------------------------------------------------


def why(smoke, tmp_path, edit):
    overlay = tmp_path / "edit.yaml"
    overlay.write_text(yaml.safe_dump(edit))
    overlays = [SMOKE, overlay]
    planned = plan(["all"], smoke, overlays)
    return explain(planned.jobs, hidden_jobs(planned, smoke, overlays))


@pytest.mark.parametrize(
    ("edit", "cause"),
    [
        ({"world": {"horizon": 4}}, "world.horizon was 8, is 4"),
        ({"world": {"window": 2}}, "world.window was 4, is 2"),
        ({"training": {"learning_rate": 1e-3}}, "training.learning_rate was 0.0015, is 0.001"),
        ({"decision": {"margin": 0.05}}, "decision.margin was 0.1, is 0.05"),
        ({"options": {"A": {"label": "else"}}}, "options.A.label was predicted futures of the wrist camera, is else"),
        ({"evaluation": {"video_size": 96}}, "evaluation.video_size was 64, is 96"),
        ({"evaluation": {"horizon": 30}}, "evaluation.horizon was 20, is 30"),
        ({"simulation": {"settle_steps": 3}}, "simulation.settle_steps was 10, is 3"),
        ({"evaluation": {"episodes": 4}}, "it has never been made"),
        ({"figures": {"pickup_color": "#123456"}}, "figures.pickup_color was #000000, is #123456"),
    ],
)
def test_the_plan_names_the_key(smoke, tmp_path, edit, cause):
    assert f"Because {cause}:" in why(smoke, tmp_path, edit)


def test_nothing_to_do_is_said_so(smoke, tmp_path):
    assert why(smoke, tmp_path, {}) == "Nothing would run: all is as it should be.\n"


def test_the_plan_names_a_file_that_was_deleted_or_edited(smoke, tmp_path):
    figure = smoke / "results/figures/success.svg"
    kept = figure.read_bytes()
    figure.unlink()
    try:
        assert "Because it has never been made" in why(smoke, tmp_path, {})
    finally:
        figure.write_bytes(kept)


def test_the_plan_says_what_the_branch_still_hides(smoke, tmp_path):
    text = why(smoke, tmp_path, {"decision": {"wrist_experiment": "if_world_hurts"}, "training": {"steps": 13}})
    hidden = text.partition("Hidden until judge_pickup has chosen the branch")[2]
    assert "results/ckpt_A/seed_0" in hidden
    assert "results/eval_A_0.json" in hidden
    assert "ckpt_E0" not in hidden


def test_the_program_says_why(smoke):
    command = [sys.executable, REPOSITORY / "scripts/why.py", "--directory", smoke, "--configfile", SMOKE]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.stdout == "Nothing would run: all is as it should be.\n", run.stderr
