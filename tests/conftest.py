"""What every test runs under: one thread a process, no hub, no display; in CI a skipped test has failed."""

import os

import pytest

# Before torch or MuJoCo is imported; a spinning OpenMP thread would take the core of the process beside it.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "MUJOCO_GL": "egl", "HF_HUB_OFFLINE": "1"}
for name, value in ENVIRONMENT.items():
    os.environ.setdefault(name, value)


def _fail_in_ci(report):
    if os.environ.get("CI", "").lower() == "true" and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which counts as a failure where CI=true: {report.longrepr[-1]}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return _fail_in_ci((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return _fail_in_ci((yield))
