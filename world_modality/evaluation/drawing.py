"""Drawing initial states from wider regions than LIBERO's own; those that the scripted expert solves are kept."""

from __future__ import annotations

from pathlib import Path

from world_modality.errors import InputError
from world_modality.evaluation.init_states import write_init_states
from world_modality.experiment.sections import Simulation
from world_modality.experiment.seeds import env_seed, init_state_seed
from world_modality.experiment.specs import InitStatesSpec
from world_modality.progress import Progress
from world_modality.simulation.expert import solve
from world_modality.simulation.libero import LiberoSimulation

MAX_DRAWS = 20  # the expert solves nine states of ten, or more


def draw_init_states(spec: InitStatesSpec, task_id: int, block: range, output: Path) -> None:
    """Write the initial states of a block, each solved by the expert under the seed it will be evaluated with.

    Raises:
        InputError: there is nothing to draw (`spread` is 0), or `MAX_DRAWS` states in a row were not solvable.
    """
    if not spec.spread:
        raise InputError("simulation.spread is 0: the initial states are those of LIBERO's benchmark")
    rows, progress = [], Progress(f"draw initial states of task {task_id}", len(block), every=0)
    unseen = Simulation(**spec.model_dump(), camera_size=64, render="fast")  # no one looks at the images
    with LiberoSimulation(unseen, task_id) as simulation:
        for count, number in enumerate(block, start=1):
            rows.append(_draw(simulation, number))
            progress.update(count, f"init state {number}: the expert took {rows[-1]['expert_steps']} steps")
    write_init_states(output, spec, task_id, rows)


def _draw(simulation: LiberoSimulation, number: int) -> dict:
    for draw in range(MAX_DRAWS):
        seed = init_state_seed(simulation.task_id, number, draw)
        simulation.reset(seed)
        state = simulation.init_state
        simulation.reset(env_seed(simulation.task_id, number), state)
        steps = solve(simulation)
        if steps is not None:
            return {
                "init_state_id": number,
                "reset_seed": seed,
                "draws": draw + 1,
                "expert_steps": steps,
                "state": state,
            }
    raise InputError(
        f"task {simulation.task_id}: of {MAX_DRAWS} states drawn for initial state {number} the expert solves none; "
        f"simulation.spread {simulation.spec.spread} is too wide"
    )
