"""What LIBERO's suites say to a policy, and demonstrations whose instructions are not theirs."""

import subprocess
import sys
from pathlib import Path

import pytest

from world_modality.errors import InputError
from world_modality.experiment.suites import SUITE_SIZES, check_demonstrated, check_language, suite_instructions
from world_modality.simulation.benchmark import libero_task

SPATIAL = suite_instructions("libero_spatial")


@pytest.mark.parametrize("suite", SUITE_SIZES)
def test_tasks_are_those_of_libero(suite):
    from libero.libero import get_libero_path  # only now: `simulation` sets its environment up
    from libero.libero.benchmark import task_maps

    theirs = list(task_maps[suite].values())
    assert suite_instructions(suite) == tuple(task.language for task in theirs)
    assert len(theirs) == SUITE_SIZES[suite]
    for number, task in enumerate(theirs):
        ours = libero_task(suite, number)
        assert ours.language == task.language
        assert ours.bddl_file == Path(get_libero_path("bddl_files"), task.problem_folder, task.bddl_file)
        assert ours.init_states_file == Path(get_libero_path("init_states"), task.problem_folder, task.init_states_file)
        assert ours.bddl_file.is_file()
        assert ours.init_states_file.is_file()


def test_reading_the_instructions_imports_no_libero(tmp_path):
    """LIBERO asks a question on stdin where it is not set up."""
    program = (
        "import sys; from world_modality.experiment.suites import suite_instructions as said; "
        "said('libero_10'); sys.exit('libero' in sys.modules)"
    )
    environment = {"LIBERO_CONFIG_PATH": str(tmp_path / "nowhere"), "PYTHONPATH": ":".join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", program], check=True, stdin=subprocess.DEVNULL, env=environment)


def test_one_instruction_of_any_suite_is_enough_to_speak_the_language():
    check_language("data", ["stack the cubes", suite_instructions("libero_10")[4]])


@pytest.mark.parametrize(
    "spell",
    [str.capitalize, lambda said: f"{said}.", lambda said: said.replace(" ", "_")],
    ids=["another case", "a trailing period", "underscores"],
)
def test_instructions_that_are_nearly_the_simulators_are_refused_and_the_closest_is_named(spell):
    near = [spell(said) for said in SPATIAL]
    with pytest.raises(InputError) as refused:
        check_language("data", near)
    first, second, third = map(repr, near[:3])
    assert str(refused.value) == (
        f"data: its instructions, {first}, {second}, {third}, …, are none of LIBERO's, to the letter; "
        f"the one closest to {first} is {SPATIAL[0]!r}"
    )


def test_evaluated_tasks_must_have_been_demonstrated():
    check_demonstrated("data", SPATIAL[:2], "libero_spatial", [0, 1])
    with pytest.raises(InputError) as refused:
        check_demonstrated("data", [SPATIAL[0], f"{SPATIAL[1]}."], "libero_spatial", [0, 1])
    assert str(refused.value) == (
        f"data: no demonstration of libero_spatial task 1, {SPATIAL[1]!r} to the letter; the closest of its 2 "
        f"instructions, {SPATIAL[0]!r}, '{SPATIAL[1]}.', is '{SPATIAL[1]}.'"
    )


def test_the_instructions_of_another_suite_are_not_those_of_the_evaluated_one():
    with pytest.raises(InputError, match="data: no demonstration of libero_object task 0"):
        check_demonstrated("data", SPATIAL, "libero_object", [0])
