"""`snakemake --profile slurm` on a real cluster: the same decision as without it, and nothing lost on the way there."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from world_modality.artifacts.files import read_json
from world_modality.report.lineage import verify

REPOSITORY = Path(__file__).parents[2]
SMOKE = REPOSITORY / "experiments" / "smoke.yaml"
ON_GPU = {"encode_latents", "train_policy", "evaluate_policy", "record_videos"}
CHECKPOINTS = ("results/ckpt_E0/seed_0", "results/ckpt_E2/seed_0")
HALTED = {"training": {"steps": 200, "save_every": 10}}
PATIENCE = 900  # seconds a run may take; the test fails where it takes longer


class Run:
    """A run of Snakemake with the profile, as it is typed in a clone, in a folder of its own."""

    def __init__(self, cluster, environment, directory, *targets, overlay=None, options=()):
        self.slurm, self.directory, self.log = cluster, directory, directory / "run.log"
        self.results = directory / "results"
        configs = [SMOKE]
        if overlay:
            configs.append(directory / "overlay.yaml")
            configs[-1].write_text(yaml.safe_dump(overlay))
        command = [Path(sys.executable).with_name("snakemake"), "--profile", "slurm", "--directory", directory]
        command += ["--configfile", *configs, *options, "--", *targets]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log)

    def ends_well(self):
        assert self.process.wait(PATIENCE) == 0, self.log.read_text()[-8000:]

    def until(self, happened, what, within=300):
        """Wait until `happened()` is true, and return it; fails, with Snakemake's output, if that takes too long."""
        limit = time.monotonic() + within
        while not (truth := happened()):
            assert time.monotonic() < limit, f"not {what} within {within} s: {self.log.read_text()[-5000:]}"
            time.sleep(0.2)
        return truth

    def queued(self, states="R"):
        """Its jobs in the queue that are in one of these states: id by rule and wildcards."""
        lines = [line.split("|") for line in self.slurm("squeue", "-h", "-t", states, "-o", "%Z|%k|%A").splitlines()]
        return {comment: job for folder, comment, job in lines if folder == str(self.directory)}

    def ended(self, rule):
        """What accounting has of its jobs of a rule that have ended, in the order they were submitted."""
        fields = "JobID,State,TimelimitRaw,ReqMem,Partition,ReqTRES,Comment,WorkDir"
        lines = self.slurm("sacct", "-X", "-D", "-n", "-P", "-S", "now-3hours", "-o", fields).splitlines()
        rows = [dict(zip(fields.split(","), line.split("|"), strict=True)) for line in lines]
        return [r for r in rows if r["WorkDir"] == str(self.directory) and r["Comment"].startswith(f"rule_{rule}")]

    def training(self, option):
        """The job that trains an option, once it has saved another state. The training is halted there.

        So it is still running when the test disturbs it, however fast the machine. SLURM sends SIGCONT before it ends
        a job.
        """
        before = newest_state(self.results, option)
        self.until(lambda: newest_state(self.results, option) > before, f"a state of {option}")
        self.signal_training(option, signal.SIGSTOP)
        return next(job for comment, job in self.queued().items() if f"train_policy_wildcards_{option}" in comment)

    def signal_training(self, option, what):
        for process, words in self.at_work().items():
            if f"results/ckpt_{option}/seed_0" in words:
                os.kill(process, what)

    def at_work(self):
        """The words of each program of its rules by process id, on any node: all nodes are on this machine."""
        found = {int(path.name): where_and_what(path) for path in Path("/proc").glob("[0-9]*")}
        here = {process: words for process, (folder, words) in found.items() if folder == str(self.directory)}
        return {process: words for process, words in here.items() if any("--output" in word for word in words)}


def where_and_what(process):
    """The folder of a process, and the words of its command."""
    try:
        return os.readlink(process / "cwd"), (process / "cmdline").read_text().split("\0")
    except OSError:
        return "", []


def newest_state(results, option):
    states = results.glob(f".training/{option}_seed_*/state.pt")
    return max((path.stat().st_mtime_ns for path in states), default=0)


@pytest.fixture(scope="module")
def start(cluster, environment):
    """start(FOLDER, *TARGETS, overlay=, options=) -> Run"""
    runs = []

    def start(directory, *targets, **how):
        runs.append(Run(cluster, environment, directory.resolve(), *targets, **how))
        return runs[-1]

    yield start
    for run in runs:
        if run.process.poll() is None:
            run.process.send_signal(signal.SIGINT)
            run.process.wait(PATIENCE)


@pytest.fixture(scope="module")
def begun(start, tmp_path_factory):
    """The smoke experiment, started from scratch on the cluster. It mostly waits, so other tests run meanwhile."""
    return start(tmp_path_factory.mktemp("cluster"), "results/decision.txt", "results/videos/E0/task_0")


@pytest.fixture(scope="module")
def on_cluster(begun):
    """The smoke experiment, run on the cluster from scratch."""
    begun.ends_well()
    return begun


@pytest.fixture(scope="module")
def finished(smoke, tmp_path_factory):
    """finished() -> a copy of a finished smoke experiment, to go on from."""

    def copy():
        return shutil.copytree(smoke, tmp_path_factory.mktemp("from") / "smoke", symlinks=True)

    return copy


# ---- next to a whole experiment -------------------------------------------------------------------------------------


def check_at_rest(run):
    """None of its programs runs any more, and everything they left under a final name is whole."""
    run.until(lambda: not run.at_work(), "at rest")
    assert not (run.results / "ckpt_E0/seed_0").exists()
    assert [problem for _, problems in verify(run.results) for problem in problems] == []


@pytest.mark.usefixtures("begun")
def test_the_profile_s_own_experiment_is_the_full_one(environment, tmp_path):
    command = [Path(sys.executable).with_name("snakemake"), "--profile", "slurm", "--directory", tmp_path]
    command += ["--dry-run", "--", "results/decision.txt"]
    ended = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert "Fetch and place dataset: HuggingFaceVLA/libero@main" in ended.stdout


@pytest.mark.parametrize(
    ("resources", "error"),
    [
        (("slurm_account=nobody", "slurm_partition=cpu"), "slurm_account nobody: .* Available accounts: .*test.*"),
        (("slurm_account=test", "slurm_partition=big"), "slurm_partition big: .* it has cpu, gpu"),
    ],
)
def test_an_account_or_partition_that_is_not_there_is_refused_before_a_job_is_submitted(
    start, tmp_path, resources, error
):
    run = start(tmp_path, "preflight", options=["--default-resources", *resources, "mem_mb=300"])
    assert run.process.wait(60) == 1
    assert re.search(f"^error: {error}$", run.log.read_text(), re.MULTILINE)
    assert run.queued("all") == {}


def preflight(start, folder, mem_mb):
    asked = [f"check_simulating_node:{what}" for what in ("slurm_partition=gpu", "gpu=1", f"mem_mb={mem_mb}")]
    return start(folder, "preflight", options=["--retries", "0", "--set-resources", *asked])


@pytest.mark.usefixtures("begun")
def test_preflight_passes_where_a_node_has_what_jobs_ask_for(start, tmp_path):
    run = preflight(start, tmp_path, 4000)
    run.ends_well()
    assert "rendering: egl: two images" in run.log.read_text()


@pytest.mark.usefixtures("begun")
def test_preflight_finds_a_node_that_claims_more_memory_than_it_has(start, tmp_path):
    run = preflight(start, tmp_path, 500_000)
    assert run.process.wait(PATIENCE) != 0
    assert "WRONG  memory: " in run.log.read_text()
    assert "500000 MiB are needed; raise mem_mb in slurm/config.yaml" in run.log.read_text()


@pytest.mark.usefixtures("begun")
def test_a_job_that_ran_out_of_memory_is_submitted_again_with_more(start, finished):
    options = ["--forcerun", "encode_latents", "--set-resources", "encode_latents:mem_mb=400*attempt**2"]
    run = start(finished(), "results/latents_front.parquet", options=options)
    run.ends_well()
    jobs = run.ended("encode_latents")
    assert jobs[0]["State"] in ("FAILED", "OUT_OF_MEMORY")
    assert [job["ReqMem"] for job in jobs] == ["400M", "1600M", "3600M"][: len(jobs)]
    assert jobs[-1]["State"] == "COMPLETED"


@pytest.mark.usefixtures("begun")
def test_an_adaptive_run_gets_its_rounds_on_the_cluster(start, finished):
    """Each round's blocks are jobs of their own, submitted together once a look has asked for the round."""
    rounds = {"decision": {"stopping": "adaptive"}, "evaluation": {"episodes": None, "max_episodes": 3}}
    run = start(finished(), "results/looks/E2_E0/round_1.json", "results/eval_S0_0.json", overlay=rounds)
    run.ends_well()
    rolled_out = {
        job["Comment"].removeprefix("rule_evaluate_policy_wildcards_") for job in run.ended("evaluate_policy")
    }
    assert rolled_out == {f"{option}_0_0_1" for option in ("E0", "E2", "S0")}
    assert len(read_json(run.results / "eval_S0_0.json")["episodes"]) == 3


# ---- the same decision ----------------------------------------------------------------------------------------------


def test_the_decision_is_that_of_a_run_without_the_cluster(on_cluster, smoke):
    for name in ("decision.txt", "decision.json", "ckpt_E2/manifest.json", "ckpt_A/manifest.json"):
        assert (on_cluster.results / name).read_bytes() == (smoke / "results" / name).read_bytes(), name
    blocks = sorted((smoke / "results/rollouts").rglob("*.jsonl"))
    assert [(on_cluster.results / b.relative_to(smoke / "results")).read_bytes() for b in blocks] == [
        block.read_bytes() for block in blocks
    ]


def test_every_job_ran_on_the_cluster_at_once_and_gpus_only_where_they_are_used(on_cluster):
    jobs = on_cluster.ended("")
    assert {job["State"] for job in jobs} == {"COMPLETED"}
    rules = {job["Comment"].removeprefix("rule_").split("_wildcards_")[0]: job for job in jobs}
    assert set(rules) >= ON_GPU | {"record_demonstrations", "draw_init_states", "build_vlm"}
    assert {rule for rule, job in rules.items() if job["Partition"] == "gpu"} == ON_GPU
    assert {rule for rule, job in rules.items() if "gres/gpu=1" in job["ReqTRES"]} == ON_GPU


def test_jobs_get_the_processors_that_the_profile_asks_for(on_cluster):
    """However few the submitting machine has."""
    assert {"cpu=8" in job["ReqTRES"] for job in on_cluster.ended("train_policy")} == {True}


# ---- interrupted trainings ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def disturbed(start, finished, submit, cluster):
    """Two trainings side by side, both preempted; then one that reaches its time limit as well."""
    run = start(finished(), *CHECKPOINTS, overlay=HALTED)
    jobs = {option: run.training(option) for option in ("E0", "E2")}
    urgent = submit("true", "--partition=gpu", "--gres=gpu:2", "--qos=urgent")
    assert urgent.until("COMPLETED") == "COMPLETED"
    again = {option: run.training(option) for option in ("E0", "E2")}
    assert again == jobs, "a preempted job has gone back to the queue under the number it had"
    cluster("scontrol", "update", f"JobId={jobs['E0']}", "EndTime=now")  # limits are whole minutes
    run.signal_training("E2", signal.SIGCONT)
    run.ends_well()
    return run


@pytest.fixture(scope="module")
def undisturbed(disturbed, finished, run_smoke):
    """The same without a cluster."""
    folder = finished()
    overlay = folder / "overlay.yaml"
    overlay.write_text(yaml.safe_dump(HALTED))
    run_smoke(folder, *CHECKPOINTS, options=["--configfile", SMOKE, overlay])
    return folder / "results"


@pytest.mark.parametrize("option", ["E0", "E2"])
def test_a_training_that_was_cut_off_ends_with_the_weights_of_an_undisturbed_one(disturbed, undisturbed, option):
    checkpoint = Path(f"ckpt_{option}/seed_0/model.safetensors")
    assert (disturbed.results / checkpoint).read_bytes() == (undisturbed / checkpoint).read_bytes()


@pytest.mark.parametrize("option", ["E0", "E2"])
def test_it_goes_on_where_it_was(disturbed, option):
    assert "goes on after step" in (disturbed.directory / f"logs/train_policy/{option}_seed_0.log").read_text()


def test_a_training_at_its_time_limit_is_submitted_again_with_more_time(disturbed):
    limits = [(job["State"], int(job["TimelimitRaw"])) for job in disturbed.ended("train_policy_wildcards_E0")]
    assert [state for state, _ in limits if state != "PREEMPTED"] == ["TIMEOUT", "COMPLETED"]
    assert limits[-1][1] == 2 * 720


# ---- whatever else happens to jobs ----------------------------------------------------------------------------------


def test_a_training_that_is_cancelled_saves_its_state_when_slurm_says_so(start, finished, cluster):
    run = start(finished(), "results/ckpt_E0/seed_0", overlay={"training": {"steps": 600, "save_every": 10**6}})
    log = run.directory / "logs/train_policy/E0_seed_0.log"
    run.until(lambda: log.exists() and "/600  loss" in log.read_text(), "training")
    cluster("scancel", *run.queued().values())
    check_at_rest(run)
    run.ends_well()
    assert "goes on after step" in log.read_text()


def test_a_node_that_goes_down_leaves_nothing_half_written_and_its_job_is_done_after_all(start, finished, cluster):
    run = start(finished(), "results/ckpt_E0/seed_0", overlay=HALTED)
    run.training("E0")
    cluster("scontrol", "update", "NodeName=loopback", "State=down", "Reason=test")
    try:
        check_at_rest(run)
    finally:
        cluster("scontrol", "update", "NodeName=loopback", "State=resume")
    run.ends_well()
    assert (run.results / "ckpt_E0/seed_0/model.safetensors").exists()


def test_ctrl_c_cancels_the_jobs_and_the_same_command_goes_on(start, finished):
    folder = finished()
    run = start(folder, *CHECKPOINTS, overlay=HALTED)
    jobs = {run.training(option) for option in ("E0", "E2")}
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(PATIENCE) != 0
    run.until(lambda: not run.queued("PD,R,CG"), "rid of its jobs")
    check_at_rest(run)
    assert {job["JobID"] for job in run.ended("train_policy") if job["State"].startswith("CANCELLED")} == jobs
    again = start(folder, "results/ckpt_E0/seed_0", overlay=HALTED)
    again.ends_well()
    assert "goes on after step" in (folder / "logs/train_policy/E0_seed_0.log").read_text()
