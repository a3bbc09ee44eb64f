"""A machine that cannot run the simulator is reported in one line by every program that needs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
RENDER = """
from world_modality import program
from world_modality.experiment.config import default_config, load_experiment
from world_modality.preflight import check_rendering
from world_modality.simulation.libero import LiberoSimulation

def main():
    with LiberoSimulation(load_experiment(default_config()).simulation, 0) as simulation:
        simulation.reset(seed=0, cameras=("front",))

program.run(main)
"""
REFUSED = {
    "MUJOCO_GL=opengl": "error: MUJOCO_GL is 'opengl'; valid: egl, osmesa, glfw",
    "MUJOCO_EGL_DEVICE_ID=first": "error: MUJOCO_EGL_DEVICE_ID is 'first', expected the number of a device",
    "MUJOCO_EGL_DEVICE_ID=77": "error: MUJOCO_GL is egl, but gives no OpenGL here: ",
    "LIBERO_CONFIG_PATH=/nowhere": "error: LIBERO is not set up: /nowhere/config.yaml is missing; `make setup` writes",
}


@pytest.mark.parametrize("setting", REFUSED)
def test_an_environment_that_cannot_simulate_is_one_line(setting):
    name, value = setting.split("=")
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "MUJOCO_GL": "egl", name: value}
    done = subprocess.run([sys.executable, "-c", RENDER], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    *before, last = done.stderr.splitlines()
    assert last.startswith(REFUSED[setting])
    assert not before or "GLContext.__del__" in before[0]  # MuJoCo's own finalizer speaks up first
