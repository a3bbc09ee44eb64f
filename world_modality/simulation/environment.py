"""The environment variables that LIBERO, robosuite and MuJoCo read when they are imported; import this module first.

LIBERO asks a question on stdin if it finds no config, and robosuite and MuJoCo choose their OpenGL at import.
"""

import logging
import os
import sys
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("LP_NUM_THREADS", "1")  # two simulations share two cores; pixels do not depend on it
os.environ.setdefault("LIBERO_CONFIG_PATH", str(Path(sys.prefix) / "libero"))

if os.environ["MUJOCO_GL"] not in ("egl", "osmesa", "glfw"):
    raise ImportError(f"MUJOCO_GL is {os.environ['MUJOCO_GL']!r}; valid: egl, osmesa, glfw")
LIBERO_CONFIG = Path(os.environ["LIBERO_CONFIG_PATH"]) / "config.yaml"
if not LIBERO_CONFIG.is_file():
    raise ImportError(f"LIBERO is not set up: {LIBERO_CONFIG} is missing; `make setup` writes it")

logging.getLogger("robosuite_logs").addFilter(lambda record: record.levelno >= logging.ERROR)  # no setup hints
