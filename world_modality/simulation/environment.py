"""The environment variables that LIBERO, robosuite and MuJoCo read when they are imported; import this module first.

LIBERO asks a question on stdin if it finds no config, and robosuite and MuJoCo choose their OpenGL at import.
"""

import logging
import os
import sys
from pathlib import Path
from typing import NoReturn


def _refuse(problem: str) -> NoReturn:
    """Raise ImportError; a program that does not catch it ends in this one line.

    Programs import the simulator before `program.run` could turn an error into one line.
    """
    refusal = ImportError(problem)

    def report(kind, error, traceback) -> None:
        if error is refusal:
            print(f"error: {problem}", file=sys.stderr)
        else:
            sys.__excepthook__(kind, error, traceback)

    sys.excepthook = report
    raise refusal


def _check_opengl() -> None:
    name = os.environ["MUJOCO_GL"]
    if name not in ("egl", "osmesa", "glfw"):
        _refuse(f"MUJOCO_GL is {name!r}; valid: egl, osmesa, glfw")
    device = os.environ.get("MUJOCO_EGL_DEVICE_ID", "0")
    if not device.isdecimal():
        _refuse(f"MUJOCO_EGL_DEVICE_ID is {device!r}, expected the number of a device")
    try:
        import mujoco.gl_context  # noqa: F401
    except Exception as error:  # each OpenGL binding fails in its own way
        reason = str(error).strip().partition("\n")[0]
        _refuse(f"MuJoCo cannot load the OpenGL that MUJOCO_GL names, {name}: is its library installed? ({reason})")


os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("LP_NUM_THREADS", "1")  # two simulations share two cores; pixels do not depend on it
os.environ.setdefault("LIBERO_CONFIG_PATH", str(Path(sys.prefix) / "libero"))

LIBERO_CONFIG = Path(os.environ["LIBERO_CONFIG_PATH"]) / "config.yaml"
if not LIBERO_CONFIG.is_file():
    _refuse(f"LIBERO is not set up: {LIBERO_CONFIG} is missing; `make setup` writes it, to LIBERO_CONFIG_PATH if set")
_check_opengl()

logging.getLogger("robosuite_logs").addFilter(lambda record: record.levelno >= logging.ERROR)  # no setup hints
