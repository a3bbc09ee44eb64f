"""Check that this environment can do everything the pipeline needs; the last step of the set-up.

Writes nothing; prints one line for each check that fails, and exits with 1 if any does.
"""

import importlib
import shutil
import sys
import warnings
from pathlib import Path

IMPORTS = ("torch", "lerobot.policies.smolvla.modeling_smolvla", "libero.libero", "snakemake")
PROGRAMS = ("ffmpeg", "dot")


def check_import(module: str) -> None:
    importlib.import_module(module)


def check_program(name: str) -> None:
    if shutil.which(name) is None:
        raise FileNotFoundError(f"no {name} on PATH; install it with the system's packages")


def check_libero_assets() -> None:
    import libero.libero

    scenes = Path(libero.libero.get_libero_path("benchmark_root")) / "assets" / "scenes"
    if not scenes.is_dir():
        raise FileNotFoundError(f"no LIBERO scenes in {scenes}")


def check_rendering() -> None:
    import mujoco

    model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1' rgba='1 0 0 1'/></worldbody></mujoco>")
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with mujoco.Renderer(model, height=16, width=16) as renderer:
        renderer.update_scene(data)
        if not renderer.render().any():
            raise RuntimeError("a red sphere was rendered black")


def main() -> int:
    warnings.filterwarnings("ignore")
    checks = [(f"import {module}", check_import, (module,)) for module in IMPORTS]
    checks += [(f"program {name}", check_program, (name,)) for name in PROGRAMS]
    checks += [("LIBERO's assets", check_libero_assets, ()), ("off-screen rendering", check_rendering, ())]
    failures = 0
    for name, check, arguments in checks:
        try:
            check(*arguments)
        except Exception as error:
            failures += 1
            print(f"setup: error: {name}: {summary(error)}", file=sys.stderr)
    try:
        check_import("torchcodec.decoders")
    except Exception as error:
        print(f"setup: note: LeRobot decodes videos with PyAV, since torchcodec does not load: {summary(error)}")
    return int(failures > 0)


def summary(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


if __name__ == "__main__":
    sys.exit(main())
