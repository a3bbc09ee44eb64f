"""In a finished experiment, an edit rebuilds exactly what depends on it: real dry runs, by Snakemake's own records."""

import contextlib
import fnmatch
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from tests.e2e.test_interruption import PATIENCE, at_work, go_on, wait_until_quiet
from world_modality.artifacts.files import read_json
from world_modality.artifacts.records import content_sha256
from world_modality.experiment.config import default_config
from world_modality.report.rebuild import explain, hidden_jobs, plan

REPOSITORY = Path(__file__).parents[2]
SMOKE = REPOSITORY / "experiments" / "smoke.yaml"
ALL = {"E0", "E2", "E2-zero", "S0", "A"}
END = {"decision.json", "decision.txt", "figures/success.svg"}
WORLD = {"E2", "A", "E9"}
COSTS = {"smoke": default_config()["costs"]["full"]}  # costs.yaml has none for this scale
CONTROLS = {"looks/S0_E0/round_0.json", "looks/E2-zero_E2/round_0.json"}  # each has a smaller share of the level
LOOKS = {f"looks/{pair}/round_0.json" for pair in ("E2_E0", "S0_E0", "A_E0", "E2-zero_E2")}
FIGURES = {f"figures/{name}.svg" for name in ("success", "attention", "prophet")}
DRAWN = FIGURES | {"figures/plan.svg"}
PICKUP = {"pickup.json", "figures/plan.svg"}  # and plan.json between the two
COMPARED = {"fairness.json", "attention.json", "attention.txt"} | FIGURES | END  # these wait for the branch as well


def evaluated(*options, block="*"):
    blocks = {f"rollouts/{o}/seed_0/task_0/block_{block}" for o in options}
    blocks |= {f"looks/{o}_*" for o in options if o != "E0"}
    joined = {f"eval_{o}_0.json" for o in options} | {f"attention_rollout_{o}.parquet" for o in WORLD & {*options}}
    return blocks | {f"videos/{o}/task_0" for o in options} | joined


def policy(option):
    examined = {f"prophet_{option}.json", f"attention_train_{option}.parquet"} if option in WORLD else set()
    return {f"ckpt_{option}/seed_0", f"ckpt_{option}/manifest.json"} | examined


EDITS = {
    "option A's learning schedule": (
        {"options": {"A": {"training": {"learning_rate": 1e-3}}}},
        policy("A") | evaluated("A") | COMPARED,
    ),
    "more episodes": (
        {"evaluation": {"episodes": 4}},
        evaluated(*ALL, block="1*") | {"init_states/*"} | PICKUP | COMPARED,
    ),
    "the size of the videos": ({"evaluation": {"video_size": 96}}, {f"videos/{option}/task_0" for option in ALL}),
    "the margin": ({"decision": {"margin": 0.05}}, LOOKS | PICKUP | COMPARED),
    "a figure's colour": ({"figures": {"pickup_color": "#123456"}}, DRAWN),
    "T_ctx": (
        {"world": {"history": 3}},
        policy("E2") | policy("A") | evaluated("E2", "E2-zero", "A") | PICKUP | COMPARED,
    ),
    "K": (
        {"world": {"horizon": 4}},
        policy("E2") | policy("A") | evaluated("E2", "E2-zero", "A") | PICKUP | COMPARED,
    ),
    "m": (
        {"world": {"window": 2}},
        {"latents_front.parquet", "latents_wrist.parquet"}
        | policy("E2")
        | policy("A")
        | evaluated("E2", "E2-zero", "A")
        | PICKUP
        | COMPARED,
    ),
    "a new option that nobody runs": ({"options": {"E9": {"label": "new", "cameras": ["front"]}}}, set()),
    "a new option": (
        {"options": {"E9": {"label": "new", "cameras": ["front"]}}, "run": ["E0", "E2", "E2-zero", "S0", "E9"]},
        policy("E9") | evaluated("E9") | CONTROLS | PICKUP | COMPARED,
    ),
    "a budget": ({"budget": {"gpu_hours": 1000}, "costs": COSTS}, PICKUP | COMPARED),
    "a budget for nothing": ({"budget": {"gpu_hours": 0}, "costs": COSTS}, PICKUP | COMPARED),
    "costs": ({"costs": COSTS}, PICKUP | COMPARED),
    "what another scale costs": ({"costs": {"full": {"train": {"one": 99}}}}, set()),
    "how a training runs": ({"training": {"save_every": 7, "loader_workers": 1, "cache_frames": False}}, set()),
}


def dry_run(directory, *overlays, snakefile=REPOSITORY / "Snakefile"):
    """Outputs that a real dry run would make, without `results/`."""
    command = [Path(sys.executable).with_name("snakemake"), "--snakefile", snakefile, "--directory", directory]
    command += ["--cores", "1", "--dry-run", "--printshellcmds", "--configfile", *overlays, "--", "all"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return {
        output.removeprefix("results/")
        for output in re.findall(r"--(?:output(?:-json|-text)?|attention(?= \S+\.parquet)) (\S+)", run.stdout)
    }


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
    for name in ("Snakefile", "config.yaml", "experiments/costs.yaml", "experiments/commits.yaml"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, folder / name)
    return folder


def test_several_simulators_write_the_files_of_one(smoke, tmp_path, run_smoke):
    copy = shutil.copytree(smoke, tmp_path / "copy", symlinks=True)
    block = "results/rollouts/E2/seed_0/task_0/block_0"
    files = [copy / f"{block}.jsonl", copy / f"{block}_attention.parquet"]
    before = [file.read_bytes() for file in files]
    log = run_smoke(copy, f"{block}.jsonl", options=["--force", "--set-threads", "evaluate_policy=2"])
    assert "1 of 1 steps" in log
    assert [file.read_bytes() for file in files] == before


def test_checking_the_repository_out_again_plans_nothing(smoke, checkout):
    assert dry_run(smoke, SMOKE, snakefile=checkout / "Snakefile") == set()


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("world_modality/decision/statistics.py", LOOKS | PICKUP | COMPARED),
        ("world_modality/report/figures.py", DRAWN),
        (
            "world_modality/training/manifest.py",
            {f"ckpt_{o}/manifest.json" for o in ALL - {"E2-zero"}}
            | {f"eval_{o}_0.json" for o in ALL}
            | LOOKS
            | PICKUP
            | COMPARED,
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


# ---- additions to what is there -------------------------------------------------------------------------------------


def test_a_new_option_is_one_row_and_retrains_nothing(smoke, tmp_path, environment):
    """The wrist with a window of 8, evaluated for real next to what is there; then E0 with a second training seed."""
    shutil.copytree(smoke, tmp_path / "runs", copy_function=shutil.copy2)
    results = tmp_path / "runs/results"
    there = trained(results)
    row = {"A8": {"label": "the wrist with a window of 8", "cameras": ["wrist"], "window": 8}}
    run_more(tmp_path, environment, {"options": row}, "results/eval_A8_0.json")
    assert {**there, **trained(results)} == trained(results)
    assert set(trained(results)) - set(there) == {"latents_wrist_m8.parquet", "ckpt_A8/seed_0"}
    assert read_json(results / "ckpt_A8/seed_0/config.json")["world_window"] == 8

    there = trained(results)
    run_more(tmp_path, environment, {"training": {"seeds": [0, 1]}}, "results/eval_E0_0.json")
    assert {**there, **trained(results)} == trained(results)
    assert set(trained(results)) - set(there) == {"ckpt_E0/seed_1"}
    evaluation = read_json(results / "eval_E0_0.json")
    assert len(set(evaluation["checkpoint"]["hashes"].values())) == 2
    states = {seed: [e["init_state_id"] for e in evaluation["episodes"] if e["train_seed"] == seed] for seed in (0, 1)}
    assert states[0] == states[1] == [0, 1]


def trained(results):
    """Every latent table and checkpoint: its content, and when it was made."""
    made = [*results.glob("latents_*.parquet"), *results.glob("ckpt_*/seed_*")]
    return {path.relative_to(results).as_posix(): (content_sha256(path), path.stat().st_mtime_ns) for path in made}


def run_more(folder, environment, overlay, *targets):
    """Run the smoke experiment with an overlay to some targets."""
    command = more_command(folder, overlay, *targets)
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]


def more_command(folder, overlay, *targets):
    (folder / "more.yaml").write_text(yaml.safe_dump(overlay))
    command = [Path(sys.executable).with_name("snakemake"), "--snakefile", REPOSITORY / "Snakefile", "--cores", "2"]
    return [*command, "--directory", folder / "runs", "--configfile", SMOKE, folder / "more.yaml", "--", *targets]


# ---- rounds ---------------------------------------------------------------------------------------------------------


ROUNDS = {"decision": {"stopping": "adaptive"}, "evaluation": {"episodes": None, "max_episodes": 3}}


@pytest.fixture(scope="module")
def two_rounds(smoke, tmp_path_factory, environment):
    """The results of a run that went on from the smoke experiment's only round to a second one, to be left as they are.

    With them comes what the smoke experiment had trained by then.
    """
    folder = tmp_path_factory.mktemp("two_rounds")
    shutil.copytree(smoke, folder / "runs", copy_function=shutil.copy2)
    there = trained(folder / "runs/results")
    run_more(folder, environment, ROUNDS, "results/decision.txt")
    return folder / "runs/results", there


def rolled_out(results):
    """The blocks of rollouts that are there: their content, and when they were made."""
    blocks = results.glob("rollouts/*/seed_0/task_0/block_*.jsonl")
    return {path.relative_to(results).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns) for path in blocks}


def test_an_adaptive_run_goes_on_from_the_episodes_that_are_there(smoke, two_rounds):
    results, there = two_rounds
    assert trained(results) == there
    before, after = (
        {name: content for name, (content, _) in rolled_out(folder).items()} for folder in (smoke / "results", results)
    )
    assert {**before, **after} == after
    assert compared(results) == {"E2": 3, "S0": 3, "A": 3, "E2-zero": 3}
    assert (results / "decision.txt").read_text().splitlines()[1].endswith("  cap  default: keep E0")
    assert len(read_json(results / "eval_A_0.json")["episodes"]) == 3


def test_an_adaptive_run_that_is_killed_within_a_round_rolls_out_no_block_twice_and_ends_like_an_undisturbed_one(
    smoke, two_rounds, tmp_path, environment
):
    undisturbed, _ = two_rounds
    directory = (tmp_path / "runs").resolve()
    shutil.copytree(smoke, directory, copy_function=shutil.copy2)
    results, log = directory / "results", directory / "run.log"
    first_round = set(rolled_out(results))
    command = more_command(tmp_path, ROUNDS, "results/decision.txt")

    run = go_on(command, directory, environment)
    try:
        while not suspend_within_the_round(directory, first_round):
            assert run.poll() is None, log.read_text()[-5000:]
            time.sleep(0.05)
        kept = rolled_out(results)
    finally:
        send(signal.SIGKILL, directory)
    run.wait(PATIENCE)
    wait_until_quiet(directory, seconds=15)
    assert first_round < set(kept) < set(rolled_out(undisturbed))
    assert not (results / "looks/E2_E0/round_1.json").exists()

    log.unlink()
    assert go_on(command, directory, environment).wait(PATIENCE) == 0, log.read_text()[-5000:]
    jobs = re.findall(r"Job \d+: Evaluate option (\S+) on task 0, block (\d+)", log.read_text())
    again = [f"rollouts/{option}/seed_0/task_0/block_{block}.jsonl" for option, block in jobs]
    assert sorted(again) == sorted(set(rolled_out(undisturbed)) - set(kept))
    assert {name: rolled_out(results)[name] for name in kept} == kept
    for pattern in ("rollouts/*/seed_0/task_0/*", "looks/*/*", "eval_*.json", "pickup.json", "decision.*"):
        ours, theirs = (
            {path.relative_to(r): path.read_bytes() for path in r.glob(pattern)} for r in (results, undisturbed)
        )
        assert ours == theirs, pattern
        assert theirs, pattern


def suspend_within_the_round(directory, first_round):
    """Suspend a run where a later round has a block that is finished, and one that is being rolled out.

    Nothing moves then between what is seen and the kill. A run that is elsewhere goes on.
    """
    if not set(rolled_out(directory / "results")) - first_round:
        return False
    words = "\n".join(send(signal.SIGSTOP, directory))
    made = set(rolled_out(directory / "results")) - first_round
    begun = set(re.findall(r"evaluate_policy\.py .*--output results/(rollouts/\S+\.jsonl)", words))
    recorded = (directory / "run.log").read_text().count("(Rule: evaluate_policy)")
    if len(made) == recorded and begun - made:
        return True
    send(signal.SIGCONT, directory)
    return False


def send(what, directory):
    """Send a signal to all programs of a run; their command lines."""
    words = []
    for process in at_work(directory):
        with contextlib.suppress(psutil.Error):  # it ended by itself
            process.send_signal(what)
            words.append(" ".join(process.cmdline()))
    return words


def test_a_margin_so_wide_that_the_first_look_settles_everything_needs_one_round(two_rounds, tmp_path, environment):
    shutil.copytree(two_rounds[0].parent, tmp_path / "runs", copy_function=shutil.copy2)
    results = tmp_path / "runs/results"
    rounds = ROUNDS | {"decision": ROUNDS["decision"] | {"margin": 0.999, "confidence": 0.6}}
    run_more(tmp_path, environment, rounds, "results/decision.txt", "results/attention.txt")
    assert compared(results) == {"E2": 2, "S0": 2, "A": 2, "E2-zero": 2}
    assert (results / "decision.txt").read_text().splitlines()[1].endswith("  settled")
    assert len(read_json(results / "eval_A_0.json")["episodes"]) == 2


def compared(results):
    """How many initial states of the task each option was compared on."""
    return {c["option"]: c["episodes"] for c in read_json(results / "decision.json")["comparisons"]}


# ---- in words -------------------------------------------------------------------------------------------------------


def why(smoke, tmp_path, edit):
    overlay = tmp_path / "edit.yaml"
    overlay.write_text(yaml.safe_dump(edit))
    overlays = [SMOKE, overlay]
    planned = plan(["all"], smoke, overlays)
    return explain(planned, hidden_jobs(planned, smoke, overlays))


@pytest.mark.parametrize(
    ("edit", "cause"),
    [
        ({"world": {"horizon": 4}}, "world.horizon was 8, is now 4"),
        ({"world": {"window": 2}}, "world.window was 4, is now 2"),
        ({"training": {"learning_rate": 1e-3}}, "training.learning_rate was 0.0015, is now 0.001"),
        ({"decision": {"margin": 0.05}}, "decision.margin was 0.2, is now 0.05"),
        ({"options": {"A": {"label": "new"}}}, "options.A.label was predicted futures of the wrist camera, is now new"),
        ({"evaluation": {"video_size": 96}}, "evaluation.video_size was 64, is now 96"),
        ({"evaluation": {"horizon": 30}}, "evaluation.horizon was 20, is now 30"),
        ({"simulation": {"settle_steps": 3}}, "simulation.settle_steps was 10, is now 3"),
        ({"evaluation": {"episodes": 4}}, "it has never been made"),
        ({"budget": {"gpus": 2}}, "budget.gpus was 1, is now 2"),
        ({"costs": COSTS}, f"costs.ckpt_A/seed_0.hours was not there, is now {float(COSTS['smoke']['train']['one'])}"),
        ({"figures": {"pickup_color": "#123456"}}, "figures.pickup_color was #000000, is now #123456"),
    ],
)
def test_the_plan_names_the_key(smoke, tmp_path, edit, cause):
    assert f"Because {cause}:" in why(smoke, tmp_path, edit)


def test_the_plan_says_so_if_there_is_nothing_to_do(smoke, tmp_path):
    assert why(smoke, tmp_path, {}) == "Nothing would run: everything is up to date.\n"


def test_the_plan_names_a_file_that_was_deleted_or_edited(smoke, tmp_path):
    figure = smoke / "results/figures/success.svg"
    kept = figure.read_bytes()
    figure.unlink()
    try:
        assert "Because it has never been made" in why(smoke, tmp_path, {})
    finally:
        figure.write_bytes(kept)


def test_the_plan_lists_what_the_branch_may_still_add(smoke, tmp_path):
    text = why(smoke, tmp_path, {"decision": {"wrist_experiment": "if_world_hurts"}, "training": {"steps": 13}})
    hidden = text.partition("Unknown until judge_pickup has chosen the branch")[2]
    assert "results/ckpt_A/seed_0" in hidden
    assert "results/eval_A_0.json" in hidden
    assert "ckpt_E0" not in hidden


def test_the_program_says_why(smoke):
    command = [sys.executable, REPOSITORY / "scripts/tools/why.py", "--directory", smoke, "--configfile", SMOKE]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.stdout == "Nothing would run: everything is up to date.\n", run.stderr
