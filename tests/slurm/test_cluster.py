"""The cluster the SLURM tests run on does what a cluster does, and what its jobs meet there."""

import shlex
import sys

import pytest

FINISHED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL")
AWAIT_USR1 = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print("waiting", flush=True)
signal.sigwait([signal.SIGUSR1])
print("python got USR1", flush=True)
"""
RUN_CHILD = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


def python(*arguments):
    return shlex.join([sys.executable, "-c", *arguments])


@pytest.fixture(scope="module")
def at_limit(cluster, submit):
    """Jobs that wait for their time limit or for a signal before it: up to 30 seconds, while other tests run."""
    early = ("--time=1", "--signal=USR1@60")
    jobs = {
        "too long": submit("srun -n1 sleep 300"),
        "step": submit(f"trap 'echo shell got USR1' USR1; srun -n1 {python(AWAIT_USR1)}", *early),
        "child": submit(f"srun -n1 {python(RUN_CHILD, AWAIT_USR1)}", *early),
    }
    jobs["too long"].until("RUNNING")
    cluster("scontrol", "update", f"JobId={jobs['too long'].id}", "EndTime=now")  # limits are whole minutes
    return jobs


@pytest.mark.usefixtures("at_limit")
def test_a_gpu_job_sees_one_device(submit):
    job = submit("echo devices=$CUDA_VISIBLE_DEVICES", "--partition=gpu", "--gres=gpu:1")
    assert job.until(*FINISHED) == "COMPLETED"
    assert job.output in ("devices=0\n", "devices=1\n")


def test_gpu_jobs_that_run_at_the_same_time_see_different_devices(submit):
    pair = [submit("echo devices=$CUDA_VISIBLE_DEVICES; sleep 300", "--partition=gpu", "--gres=gpu:1") for _ in "ab"]
    for job in pair:
        job.until_it_says("devices=")
    assert {job.output for job in pair} == {"devices=0\n", "devices=1\n"}
    for job in pair:
        job.cancel()


def test_an_urgent_job_sends_another_back_to_the_queue(submit):
    usual = submit("echo devices=$CUDA_VISIBLE_DEVICES; sleep 300", "--partition=gpu", "--gres=gpu:2")
    usual.until_it_says("devices=0,1")
    urgent = submit("true", "--partition=gpu", "--gres=gpu:2", "--qos=urgent")
    assert urgent.until(*FINISHED) == "COMPLETED"
    assert usual.state in ("PREEMPTED", "PENDING")
    usual.cancel()


def test_a_failed_job_is_in_accounting_with_its_exit_code_and_comment(cluster, submit):
    job = submit("exit 7", "--comment=rule_train_policy")
    assert job.until(*FINISHED) == "FAILED"
    assert cluster("sacct", "-X", "-n", "-P", "-j", job.id, "-o", "ExitCode,Comment") == "7:0|rule_train_policy"


def test_a_job_over_its_memory_is_killed(submit):
    job = submit(f"srun -n1 {python('import time; held = bytearray(600 * 2**20); time.sleep(300)')}")
    assert job.until(*FINISHED) in ("FAILED", "OUT_OF_MEMORY")
    assert "exceeded memory limit" in job.output


def test_a_cancelled_job_ends_together_with_what_it_started(submit):
    job = submit(f"srun -n1 {python('print(1, flush=True); import time; time.sleep(300)')}")
    job.until_it_says("1")
    job.cancel()
    assert job.until(*FINISHED) == "CANCELLED"


def test_a_requeued_job_starts_again(cluster, submit):
    job = submit('echo start ${SLURM_RESTART_COUNT:-0}; [ -n "$SLURM_RESTART_COUNT" ] || sleep 300', "--requeue")
    job.until_it_says("start 0")
    cluster("scontrol", "requeue", job.id)
    job.until_it_says("start 1")
    assert job.until(*FINISHED) == "COMPLETED"


def test_a_job_over_its_time_ends_as_timeout(at_limit):
    assert at_limit["too long"].until(*FINISHED) == "TIMEOUT"


def test_usr1_reaches_the_processes_of_a_step_and_not_the_batch_shell(at_limit):
    assert at_limit["step"].until(*FINISHED) == "COMPLETED"
    assert "python got USR1" in at_limit["step"].output
    assert "shell got USR1" not in at_limit["step"].output


def test_usr1_fails_a_step_whose_first_process_does_not_expect_it(at_limit):
    assert at_limit["child"].until(*FINISHED) == "FAILED"
    assert "python got USR1" in at_limit["child"].output


def test_a_node_that_goes_down_fails_its_jobs_and_can_be_resumed(cluster, submit):
    job = submit("echo running; sleep 300", "--no-requeue")
    job.until_it_says("running")
    cluster("scontrol", "update", "NodeName=loopback", "State=down", "Reason=test")
    assert job.until(*FINISHED) == "NODE_FAIL"
    cluster("scontrol", "update", "NodeName=loopback", "State=resume")
    assert submit("true").until(*FINISHED) == "COMPLETED"
