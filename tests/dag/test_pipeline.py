"""What Snakemake plans: dry runs of the real Snakefile in an empty or half-finished experiment."""

import collections
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from world_modality.artifacts.files import write_json
from world_modality.program import ROUNDING_VARIABLES

REPOSITORY = Path(__file__).parents[2]
TREE = REPOSITORY / "experiments"


def snakemake(directory, *arguments):
    command = [Path(sys.executable).with_name("snakemake"), "--snakefile", REPOSITORY / "Snakefile"]
    command += ["--directory", directory, "--cores", "1", *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "SNAKEMAKE_PROFILE"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def planned(directory, *arguments, target="results/decision.txt"):
    """Outputs Snakemake would make, as a set of (rule, output)."""
    run = snakemake(directory, "--summary", "--rerun-triggers", "mtime", *arguments, "--", target)
    assert run.returncode == 0, run.stderr
    lines = [line.split("\t") for line in run.stdout.splitlines()[1:]]
    return {(rule, output) for output, _, rule, _, _, plan in lines if plan == "update pending"}


def count(jobs):
    return collections.Counter(rule for rule, _ in jobs)


def outputs(jobs, rule):
    return {output for r, output in jobs if r == rule}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    return planned(tmp_path_factory.mktemp("fresh"))


def test_before_the_tree_branches_the_wrist_option_is_not_planned(fresh):
    assert outputs(fresh, "train_policy") == {f"results/ckpt_{o}/seed_0" for o in ("E0", "E2", "S0")}
    assert outputs(fresh, "encode_latents") == {"results/latents_front.parquet"}


def test_an_option_with_checkpoint_of_trains_nothing_and_is_evaluated(fresh):
    evaluated = {output.split("/")[2] for output in outputs(fresh, "evaluate_policy")}
    assert evaluated == {"E0", "E2", "E2-zero", "S0"}


def test_a_training_is_told_which_tasks_will_be_evaluated(tmp_path):
    run = snakemake(tmp_path, "-n", "-p", "--config", 'evaluation={"tasks": [1, 0]}', "--", "results/ckpt_E0/seed_0")
    assert " --suite libero_spatial --evaluated 1 0 " in run.stdout


def test_each_task_is_recorded_by_its_own_job(fresh):
    assert outputs(fresh, "record_demonstrations") == {f"results/demonstrations/task_{t}" for t in (0, 1)}


def test_with_always_the_wrist_experiment_is_planned_with_the_rest(tmp_path):
    jobs = planned(tmp_path, "--configfile", TREE / "both_branches.yaml")
    assert "results/ckpt_A/seed_0" in outputs(jobs, "train_policy")
    assert "results/latents_wrist.parquet" in outputs(jobs, "encode_latents")
    assert "E2-zero" not in {output.split("_")[1] for output in outputs(jobs, "train_policy")}


def test_without_the_plan_s_solver_nothing_begins(tmp_path, monkeypatch):
    (tmp_path / "highspy.py").write_text("raise ImportError('wrong ELF class')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    run = snakemake(tmp_path, "-n", "--", "results/decision.txt")
    assert run.stderr.splitlines()[-1] == (
        "error: HiGHS, which makes the plan, cannot be loaded (wrong ELF class); `make setup` installs highspy"
    )


def test_a_graph_is_all_that_is_printed_where_the_plan_is_made(tmp_path):
    """HiGHS 1.16.0 prints a banner to standard output."""
    budget = ["--configfile", TREE / "both_branches.yaml", "--config", f"costs={json.dumps({'embedded': COSTS})}"]
    run = snakemake(tmp_path, "--dag", *budget, 'budget={"gpu_hours": 30}', "--", "results/decision.txt")
    assert run.stdout.startswith("digraph")


COSTS = {
    "latents": {"front": 2, "wrist": 2},
    "train": {"none": 6, "one": 6, "both": 12},
    "evaluate": {"none": 4, "one": 4, "both": 4},
    "episodes": 40,
}


def budget(folder, costs):
    """An overlay with a budget that A does not fit into if it takes 2 + 6 + 4 hours."""
    path = folder / "budget.yaml"
    path.write_text(yaml.safe_dump({"budget": {"gpu_hours": 11.9}, "costs": costs}))
    return path


def test_what_the_budget_leaves_out_is_not_planned(tmp_path):
    overlays = ("--configfile", TREE / "both_branches.yaml", budget(tmp_path, {"embedded": COSTS}))
    jobs = planned(tmp_path, *overlays, target="all")
    assert {output.split("_")[1] for output in outputs(jobs, "train_policy")} == {
        f"{o}/seed" for o in ("E0", "E2", "S0")
    }
    assert outputs(jobs, "encode_latents") == {"results/latents_front.parquet"}
    assert ("plot_figure", "results/figures/plan.svg") in jobs


def test_costs_from_a_config_file_or_the_command_line_take_precedence(tmp_path):
    faster = {"embedded": COSTS | {"train": COSTS["train"] | {"one": 5}}}
    jobs = planned(tmp_path, "--configfile", TREE / "both_branches.yaml", budget(tmp_path, faster))
    assert "results/ckpt_A/seed_0" in outputs(jobs, "train_policy")
    overlays = ("--configfile", TREE / "both_branches.yaml", budget(tmp_path, {"embedded": COSTS}))
    jobs = planned(tmp_path, *overlays, "--config", "costs={'embedded': {'evaluate': {'one': 3}}}")
    assert "results/ckpt_A/seed_0" in outputs(jobs, "train_policy")


def test_a_budget_at_a_scale_whose_costs_are_not_known_is_refused(tmp_path):
    run = snakemake(tmp_path, "--dry-run", "--configfile", budget(tmp_path, {"full": COSTS}), "--", "all")
    assert run.returncode != 0
    assert "error: budget.gpu_hours: 11.9 needs costs.embedded: the costs of embedded scale are not known" in run.stderr


def finish(directory, jobs, scheduled, settled=True):
    """Pretend that `jobs` are done, in the order of the pipeline.

    Args:
        scheduled: options that the tree schedules.
        settled: whether the looks settle their comparisons.
    """
    order = ["record_demonstrations", "aggregate_demonstrations", "build_encoder", "build_vlm", "encode_latents"]
    order += ["train_policy", "write_manifest", "measure_prophet", "draw_init_states", "evaluate_policy"]
    order += ["look_at_comparison", "collect_evaluation"]
    for moment, rule in enumerate([*order, "judge_pickup"], start=1_700_000_000):
        for output in outputs(jobs, rule):
            path = directory / output
            path.parent.mkdir(parents=True, exist_ok=True)
            if rule == "judge_pickup":
                write_json(path, {"scheduled": scheduled})
            elif rule == "look_at_comparison":
                write_json(path, {"settled": settled})
            elif path.suffix:
                path.write_text("done")
            else:
                path.mkdir()
                (path / ".snakemake_timestamp").touch()
                os.utime(path / ".snakemake_timestamp", (moment, moment))
            os.utime(path, (moment, moment))


def test_only_the_decision_is_left_if_the_world_modality_helps(tmp_path, fresh):
    finish(tmp_path, fresh, scheduled=[])
    assert count(planned(tmp_path)) == {"audit_fairness": 1, "decide": 2}


# ---- rounds ---------------------------------------------------------------------------------------------------------


def blocks(jobs):
    """{option: numbers of the blocks that would be rolled out on the first task}"""
    found = collections.defaultdict(set)
    for output in outputs(jobs, "evaluate_policy"):
        _, _, option, _, task, block = output.split("/")
        if task == "task_0" and block.endswith(".jsonl"):
            found[option].add(int(block.removeprefix("block_").removesuffix(".jsonl")))
    return dict(found)


def looks(jobs):
    return {
        output.removeprefix("results/looks/").removesuffix(".json") for output in outputs(jobs, "look_at_comparison")
    }


def test_before_the_first_look_one_round_is_planned(fresh):
    assert blocks(fresh) == {"E0": {0}, "E2": {0}, "E2-zero": {0}, "S0": {0}}
    assert looks(fresh) == {"E2_E0/round_0", "E2-zero_E2/round_0", "S0_E0/round_0"}
    assert outputs(fresh, "draw_init_states") == {f"results/init_states/task_{t}/block_0.parquet" for t in (0, 1)}


def test_what_is_not_settled_gets_another_round(tmp_path, fresh):
    before_the_branch = {job for job in fresh if job[0] not in ("judge_pickup", "collect_evaluation")}
    finish(tmp_path, before_the_branch, scheduled=[], settled=False)
    jobs = planned(tmp_path)
    assert blocks(jobs) == {"E0": {1}, "E2": {1}, "E2-zero": {1}, "S0": {1}}
    assert looks(jobs) == {"E2_E0/round_1", "E2-zero_E2/round_1", "S0_E0/round_1"}


def test_what_is_settled_gets_no_more_and_a_control_ends_with_what_its_reference_is_evaluated_for(tmp_path, fresh):
    finish(tmp_path, {job for job in fresh if job[0] != "collect_evaluation"}, scheduled=[])
    for name in ("S0_E0", "E2-zero_E2"):
        write_json(tmp_path / f"results/looks/{name}/round_0.json", {"settled": False})
    assert blocks(planned(tmp_path)) == {}
    write_json(tmp_path / "results/looks/S0_E0/round_0.json", {"settled": True})
    write_json(tmp_path / "results/looks/E2_E0/round_0.json", {"settled": False})
    jobs = planned(tmp_path)
    assert blocks(jobs) == {"E0": {1}, "E2": {1}, "E2-zero": {1}}
    assert looks(jobs) == {"E2_E0/round_1", "E2-zero_E2/round_1"}


def test_the_last_round_ends_at_the_cap(tmp_path, fresh):
    finish(tmp_path, {job for job in fresh if job[0] != "collect_evaluation"}, scheduled=[], settled=False)
    assert blocks(planned(tmp_path, "--config", "evaluation={max_episodes: 10}")) == {}
    assert blocks(planned(tmp_path, "--config", "evaluation={max_episodes: 15}"))["E0"] == {1}


def test_a_round_may_hold_several_blocks(tmp_path):
    jobs = planned(tmp_path, "--config", "evaluation={blocks_per_round: 3}")
    assert blocks(jobs)["E0"] == {0, 1, 2}
    assert looks(jobs) == {"E2_E0/round_0", "E2-zero_E2/round_0", "S0_E0/round_0"}


def test_where_episodes_are_chosen_beforehand_there_is_one_round_of_all(tmp_path):
    fixed = ("--config", "decision={stopping: fixed}", "evaluation={episodes: 25}")
    jobs = planned(tmp_path, *fixed)
    assert blocks(jobs)["S0"] == {0, 1, 2}
    assert looks(jobs) == {"E2_E0/round_0", "E2-zero_E2/round_0", "S0_E0/round_0"}


def test_an_option_whose_reference_is_not_run_is_evaluated_as_long_as_the_branch_needs(tmp_path):
    row = "options: {A-zero: {label: A without its memory, checkpoint_of: A, memory: zero}}\nrun: [E0, E2, A-zero]\n"
    (tmp_path / "row.yaml").write_text(row)
    jobs = planned(tmp_path, "--configfile", tmp_path / "row.yaml", target="results/eval_A-zero_0.json")
    assert looks(jobs) == {"E2_E0/round_0"}


def test_the_wrist_option_is_compared_in_rounds_of_its_own(tmp_path, fresh):
    finish(tmp_path, {job for job in fresh if job[0] != "collect_evaluation"}, scheduled=["A"])
    jobs = planned(tmp_path)
    assert (blocks(jobs), looks(jobs)) == ({"A": {0}}, {"A_E0/round_0"})


def videos(jobs):
    return {output.split("/")[2] for output in outputs(jobs, "record_videos")}


def test_the_decision_waits_for_no_videos_and_the_whole_experiment_includes_them_all(tmp_path, fresh):
    assert videos(fresh) == set()
    assert videos(planned(tmp_path, target="all")) == {"E0", "E2", "E2-zero", "S0"}
    finish(tmp_path, fresh, scheduled=["A"])
    assert videos(planned(tmp_path)) == set()
    assert videos(planned(tmp_path, target="all")) == {"E0", "E2", "E2-zero", "S0", "A"}


def test_only_the_wrist_experiment_is_left_if_the_world_modality_hurts(tmp_path, fresh):
    finish(tmp_path, fresh, scheduled=["A"])
    jobs = planned(tmp_path)
    assert count(jobs) == {
        "encode_latents": 1,
        "train_policy": 1,
        "write_manifest": 1,
        "measure_prophet": 1,
        "evaluate_policy": 6,  # episodes, actions and attention of two tasks
        "look_at_comparison": 1,
        "collect_evaluation": 4,  # A's and, should A need more of them, E0's
        "audit_fairness": 1,
        "decide": 2,
    }
    assert outputs(jobs, "encode_latents") == {"results/latents_wrist.parquet"}
    assert outputs(jobs, "train_policy") == {"results/ckpt_A/seed_0"}
    assert {output.split("/")[2] for output in outputs(jobs, "evaluate_policy")} == {"A"}


def test_a_misspelt_key_is_reported_in_one_line_before_anything_runs(tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("training: {stepz: 3}\n")
    run = snakemake(tmp_path, "--dry-run", "--configfile", overlay, "--", "results/decision.txt")
    assert run.returncode != 0
    assert "training.stepz: unknown key; did you mean steps?" in run.stdout + run.stderr


# What a shell, Snakemake's wildcards or its formatting of commands would take for something else.
ODD = r"""it's "a" $(touch hurt) `touch hurt` ; touch hurt # {best} {{x}} {option} {} { $HOME \ % %s \n é 漢字"""
ODD_KEYS = {camera: f"{camera}_{''.join(ODD.split())}" for camera in ("front", "wrist")}
READ_BY = {  # program -> what of the config is in its command
    "record_demonstrations.py": ODD_KEYS.values(),
    "pretrain_encoder.py": ODD_KEYS.values(),
    "probe_encoder.py": [f"{camera}={key}" for camera, key in ODD_KEYS.items()],
    "precompute_world_latents.py": [ODD_KEYS["front"]],
    "train_llm_vla": ODD_KEYS.values(),
    "evaluate_policy.py": ODD_KEYS.values(),
    "decide.py": [ODD],
}


def strings(value):
    """All strings in a value, and in the JSON texts among them."""
    if isinstance(value, str):
        yield value
        if value.startswith("{"):
            yield from strings(json.loads(value))
    elif isinstance(value, dict):
        yield from strings([*value, *value.values()])
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


@pytest.fixture(scope="module")
def oddly_named(tmp_path_factory):
    """The folder of an experiment with odd words in its config, and the commands it would run."""
    folder = tmp_path_factory.mktemp("odd")
    odd = {"image_keys": ODD_KEYS, "options": {"E2": {"label": ODD}}, "encoder": {"pretrain_steps": 3}}
    (folder / "odd.yaml").write_text(yaml.safe_dump(odd))
    options = ("--dry-run", "--printshellcmds", "--configfile", folder / "odd.yaml")
    run = snakemake(folder, *options, "--", "results/decision.txt", "results/probe.json")
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    return folder, re.findall(r"^Shell command: (.*)", run.stdout, re.MULTILINE)


@pytest.mark.parametrize("program", READ_BY)
def test_whatever_the_words_of_the_config_hold_they_reach_the_programs_as_they_are(oddly_named, program):
    folder, commands = oddly_named
    command = next(command for command in commands if program in command)
    shell = [f'python() {{ "{sys.executable}" -c "import json, sys; json.dump(sys.argv[1:], sys.stdout)" "$@"; }}']
    shell += ["tee() { cat; }", "SCRIPTS=scripts", command]
    said = subprocess.run(["bash", "-c", "\n".join(shell)], cwd=folder, capture_output=True, text=True, check=True)
    assert set(READ_BY[program]) <= set(strings(json.loads(said.stdout)))
    assert not (folder / "hurt").exists()


# ---- separate experiments -------------------------------------------------------------------------------------------


def anywhere(cwd, *arguments):
    command = [Path(sys.executable).with_name("snakemake"), "--snakefile", REPOSITORY / "Snakefile", "--dry-run"]
    environment = {k: v for k, v in os.environ.items() if k != "SNAKEMAKE_PROFILE"}
    run = subprocess.run([*command, *arguments], cwd=cwd, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_an_experiment_lives_in_its_own_folder_wherever_snakemake_is_started(tmp_path):
    (tmp_path / "mine.yaml").write_text("evaluation: {tasks: [0], max_episodes: 10}\ndecision: {pickup_tasks: [0]}\n")
    plan = anywhere(tmp_path, "--cores", "1", "--directory", "runs/narrow", "--configfile", "mine.yaml", "--", "all")
    assert "results/eval_E0_0.json" in plan
    assert "results/eval_E0_1.json" not in plan
    assert not (tmp_path / "results").exists()
    whole = anywhere(tmp_path, "--cores", "1", "--directory", "runs/whole", "--", "all")
    assert "results/eval_E0_1.json" in whole


def test_a_config_file_on_the_command_line_replaces_the_profile_s_unless_both_are_given(tmp_path):
    profile = tmp_path / "cluster"
    profile.mkdir()
    (profile / "config.yaml").write_text("cores: 1\nconfigfile: site.yaml\n")
    (profile / "site.yaml").write_text("run: [E0, E2, S0]\n")
    (tmp_path / "mine.yaml").write_text("training: {seeds: [5]}\n")
    common = ("--directory", tmp_path, "--profile", profile)
    site = anywhere(tmp_path, *common, "--", "all")
    assert "eval_E2-zero_0" not in site
    assert "ckpt_E0/seed_0" in site
    mine = anywhere(tmp_path, *common, "--configfile", "mine.yaml", "--", "all")
    assert "eval_E2-zero_0" in mine
    assert "ckpt_E0/seed_5" in mine
    both = anywhere(tmp_path, *common, "--configfile", profile / "site.yaml", "mine.yaml", "--", "all")
    assert "eval_E2-zero_0" not in both
    assert "ckpt_E0/seed_5" in both


# ---- what comes from a hub ------------------------------------------------------------------------------------------


PLACED = {f"results/{name}" for name in ("dataset", "encoder", "vlm", "policy")}


def full(folder, commits):
    """Options for the study at full scale with everything at a branch `new`, which has these pins alone."""
    branches = {section: {"revision": "new"} for section in ("demonstrations", "encoder", "vlm", "policy")}
    (folder / "new.yaml").write_text(yaml.safe_dump(branches | {"commits": commits}))
    return "--configfile", TREE / "full.yaml", folder / "new.yaml"


def test_what_is_not_pinned_is_planned_with_the_rest_and_the_plan_says_what_it_does_not_know(tmp_path):
    run = snakemake(tmp_path, "-n", *full(tmp_path, {}), "--", "results/decision.txt")
    assert run.returncode == 0, run.stderr
    assert "Fetch and place policy: HuggingFaceVLA/smolvla_libero@new (the run pins its commit" in run.stdout
    jobs = planned(tmp_path, *full(tmp_path, {}))
    assert outputs(jobs, "place_repository") == PLACED
    assert outputs(jobs, "train_policy") == {f"results/ckpt_{option}/seed_0" for option in ("E0", "E2", "S0")}
    assert ("decide", "results/decision.txt") in jobs


def test_the_plan_names_the_commit_of_what_is_pinned(tmp_path):
    commits = {"HuggingFaceVLA/smolvla_libero@new": "a" * 40}
    run = snakemake(tmp_path, "-n", *full(tmp_path, commits), "--", "results/policy")
    assert f"HuggingFaceVLA/smolvla_libero@new (commit {'a' * 40})" in run.stdout


# ---- the option table -----------------------------------------------------------------------------------------------


def test_the_complete_experiment_trains_every_option_with_its_own_checkpoint_and_evaluates_all(tmp_path):
    jobs = planned(tmp_path, "--configfile", TREE / "complete.yaml")
    trained = {"E0", "E1", "E2", "A", "C", "S0"}
    borrowed = {"E2-zero", "E2-random", "E2-random-scaled", "E2-shuffle", "E2-signflip", "E2-m1", "B", "E0-blind"}
    assert outputs(jobs, "train_policy") == {f"results/ckpt_{option}/seed_0" for option in trained}
    assert {output.split("/")[2] for output in outputs(jobs, "evaluate_policy")} == trained | borrowed
    assert outputs(jobs, "encode_latents") == {f"results/latents_{camera}.parquet" for camera in ("front", "wrist")}


def test_a_new_option_is_one_row(tmp_path):
    row = 'options: {A8: {label: "the wrist with a window of 8", cameras: [wrist], window: 8}}\n'
    (tmp_path / "row.yaml").write_text(row)
    jobs = planned(tmp_path, "--configfile", tmp_path / "row.yaml", target="results/eval_A8_0.json")
    assert outputs(jobs, "encode_latents") == {"results/latents_wrist_m8.parquet"}
    compared = {"results/ckpt_A8/seed_0", "results/ckpt_E0/seed_0"}  # it is evaluated until E0 and it are told apart
    assert outputs(jobs, "train_policy") == compared


def test_a_clone_with_a_brace_in_its_name_is_refused_in_one_line(tmp_path):
    """Snakemake itself formats the paths of environments and scripts there."""
    clone = tmp_path / "a{b}c"
    clone.mkdir()
    for name in ("Snakefile", "config.yaml", "experiments", "rules", "envs", "profiles"):
        (clone / name).symlink_to(REPOSITORY / name)
    command = [Path(sys.executable).with_name("snakemake"), "--snakefile", clone / "Snakefile", "--dry-run"]
    done = subprocess.run([*command, "results/decision.txt"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"error: {clone}: has a brace in its name; clone into a folder without"


def test_a_program_runs_without_the_variables_by_which_a_shell_changes_how_numbers_are_rounded(tmp_path):
    common = REPOSITORY / "rules" / "common.smk"
    rule = f'include: "{common}"\nrule look:\n    output: "seen.txt"\n    shell: "env >{{output}}"\n'
    (tmp_path / "Snakefile").write_text(rule)
    chosen = dict.fromkeys(ROUNDING_VARIABLES, "1")
    command = [Path(sys.executable).with_name("snakemake"), "--cores", "1", "--quiet", "all", "--", "seen.txt"]
    subprocess.run(command, cwd=tmp_path, env=os.environ | chosen, check=True, timeout=120)
    seen = {line.partition("=")[0] for line in (tmp_path / "seen.txt").read_text().splitlines()}
    assert "RUN_PIDS" in seen
    assert not seen & set(chosen)
