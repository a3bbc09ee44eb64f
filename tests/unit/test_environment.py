"""The set-up's files agree with each other, and what they prepare is there."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
LOCK = (REPOSITORY / "envs" / "requirements.lock").read_text()


def locked_entries():
    """Name -> text of its entry (version, marker, hashes)."""
    entries = re.split(r"^(?=[a-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    return {entry.split("==")[0]: entry for entry in entries}


def pin(entry):
    return entry.splitlines()[0].removesuffix("\\").strip()


def requirement_name(requirement):
    return re.split(r"[\[<>=~ ;]", requirement)[0].lower()


def test_the_conda_environment_has_exactly_the_locks_pins():
    conda = yaml.safe_load((REPOSITORY / "envs" / "pipeline.yaml").read_text())
    assert conda["dependencies"][-1]["pip"] == [pin(entry) for entry in locked_entries().values()]


def test_everything_locked_has_a_hash():
    assert [name for name, entry in locked_entries().items() if "--hash=sha256:" not in entry] == []


def test_the_lock_names_no_registry():
    assert re.findall(r"https?://|--(?:extra-)?index-url|--find-links", LOCK) == []


def test_every_requirement_of_the_project_is_locked():
    wanted = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["dev"]]
    assert [name for name in map(requirement_name, wanted) if name not in locked_entries()] == []


def test_only_one_distribution_provides_cv2():
    assert "opencv-python-headless" in locked_entries()
    assert "opencv-python" not in locked_entries()


def test_the_module_order_names_every_module():
    contract = PROJECT["tool"]["importlinter"]["contracts"][0]
    names = [name for layer in contract["layers"] for name in layer.strip("()").split(" | ")]
    ordered = {name.removeprefix("world_modality.") for name in names}
    modules = {path.stem for path in (REPOSITORY / "world_modality").glob("*.py")} - {"__init__"}
    assert modules - ordered == set()


def test_the_default_profile_sets_nothing_that_belongs_in_another_profile():
    profile = yaml.safe_load((REPOSITORY / "profiles" / "default" / "config.yaml").read_text())
    assert not {"executor", "default-resources", "set-resources", "jobs"} & profile.keys()


def test_continuous_integration_runs_the_tests_and_nothing_else():
    lines = (REPOSITORY / ".ci" / "run").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == ["make test"]


def test_libero_loads_without_a_question_and_finds_its_assets():
    code = "import os, libero.libero as l; print(os.listdir(l.get_libero_path('assets')))"
    environment = os.environ | {"LIBERO_CONFIG_PATH": str(Path(sys.prefix) / "libero")}
    loaded = subprocess.run(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment
    )
    assert loaded.returncode == 0, loaded.stderr
    assert "scenes" in loaded.stdout


def run_skipping_test(folder, ci):
    (folder / "conftest.py").write_text((REPOSITORY / "tests" / "conftest.py").read_text())
    (folder / "test_one.py").write_text("import pytest\ndef test_one():\n    pytest.skip('no reason')\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"CI": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=folder,
    )


@pytest.mark.parametrize(("ci", "status"), [("true", 1), ("", 0)])
def test_a_skip_is_a_failure_in_continuous_integration(tmp_path, ci, status):
    run = run_skipping_test(tmp_path, ci)
    assert run.returncode == status, run.stdout


@pytest.fixture
def osmesa(tmp_path):
    """osmesa(MUJOCO_GL, EXIT STATUS of apt-get install) -> the step of the set-up that installs OSMesa, run as root."""
    (tmp_path / "envs").mkdir()
    (tmp_path / "logs").mkdir()
    *steps, last = (REPOSITORY / "envs" / "setup.sh").read_text().splitlines()
    assert last == "main"
    script = tmp_path / "envs" / "setup.sh"
    script.write_text("\n".join([*steps, "install_osmesa"]))

    def osmesa(renderer, status):
        programs = {"dpkg-query": "exit 1", "sudo": 'exec "$@"', "env": 'shift; exec "$@"'}
        programs["apt-get"] = f'echo "$@" >>{tmp_path}/asked; [ "$1" = update ] || exit {status}'
        for name, command in programs.items():
            path = tmp_path / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f'#!/bin/sh\n[ "$1" != -v ] || exit 0\n{command}\n')
            path.chmod(0o755)
        environment = os.environ | {"MUJOCO_GL": renderer, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
        return subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=False)

    return osmesa


@pytest.mark.parametrize(("renderer", "asked"), [("osmesa", True), ("egl", False)])
def test_the_set_up_installs_osmesa_where_it_is_asked_for(osmesa, tmp_path, renderer, asked):
    ended = osmesa(renderer, 0)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (tmp_path / "asked").exists() == asked
    assert not asked or (tmp_path / "asked").read_text().endswith("install -y --no-install-recommends libosmesa6\n")


def test_a_system_that_no_longer_has_osmesa_is_told_what_renders_instead(osmesa):
    ended = osmesa("osmesa", 100)
    assert ended.returncode == 0  # it may have come from elsewhere; at its end the set-up renders with it
    said = ended.stdout.splitlines()[-1]
    assert said.startswith("setup: warning: no libosmesa6, which newer releases of Debian and Ubuntu do not have; ")
    assert said.endswith("MUJOCO_GL=egl renders on the processor too")
