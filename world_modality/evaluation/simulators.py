"""Simulators in processes of their own: both ends of the pipe between a policy and what it controls.

One policy serves several simulators. They hold neither torch nor a policy, which would be most of what a process holds
at full size, and a simulator that dies takes nothing with it.

Non-obvious behaviours:
* A simulator is started as a program (`python -m`), not as `multiprocessing` starts one: that would import the main
  program of its parent again, and torch with it. Nor is it forked: it would share its parent's OpenGL and CUDA.
* An episode that crashes says nothing about the policy, so it is tried once more in a fresh process. If it crashes
  again, the job fails and writes nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from world_modality.errors import InputError
from world_modality.evaluation.rollout import Ask, Rollout, View, rolling_out
from world_modality.experiment.specs import RolloutSpec
from world_modality.program import die_with

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Job:
    """What all episodes of a simulator have in common."""

    spec: RolloutSpec
    task_id: int
    train_seed: int
    view: View


@dataclass(frozen=True)
class Failure:
    """Why a simulator gave an episode up; `refused`: it would again."""

    reason: str
    refused: bool


class Simulator:
    """A simulation in a process of its own, which rolls out one episode after the other."""

    program = __name__  # what that process runs

    def __init__(self, job: Job):
        self._job = job
        self._episode: tuple[int, np.ndarray] | None = None
        self._crashes = 0
        self._start()

    def begin(self, init_state_id: int, init_state: np.ndarray) -> None:
        """Begin the episode of an initial state (S,); `receive` gives what comes of it."""
        self._episode, self._crashes = (init_state_id, init_state), 0
        self._connection.send(self._episode)

    def answer(self, actions: np.ndarray) -> None:
        """Give the actions (n_action_steps, 7) that were asked for."""
        self._connection.send(actions)

    def receive(self) -> Ask | Rollout:
        """Wait for what comes next of the episode: actions to be given, or its end.

        Raises:
            InputError: it is refused; another try would end in the same way.
            RuntimeError: it crashed twice.
        """
        while isinstance(message := self._message(), Failure):
            if message.refused:
                raise InputError(message.reason)
            self._crashes += 1
            where = f"task {self._job.task_id}, init state {self._episode[0]}"
            if self._crashes > 1:
                raise RuntimeError(f"{where} crashed twice ({message.reason})")
            print(f"{where} crashed ({message.reason}); once more in a fresh simulation")
            self.close()
            self._start()
            self._connection.send(self._episode)
        return message

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def _start(self) -> None:
        ours, theirs = Pipe()
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", self.program, str(theirs.fileno()), str(os.getpid())],
            env=os.environ | {"PYTHONPATH": path},
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self._connection = ours
        self._connection.send(self._job)

    def _message(self) -> Ask | Rollout | Failure:
        try:
            return self._connection.recv()
        except (EOFError, ConnectionResetError):
            return Failure(f"the simulator's process ended with status {self._process.wait()}", refused=False)


# ---- the simulator's end --------------------------------------------------------------------------------------------


def serve(connection: Connection) -> None:
    """Roll out episodes as they are asked for, until nobody does any more."""
    from world_modality.simulation.libero import LiberoSimulation

    job: Job = connection.recv()
    try:
        with LiberoSimulation(job.spec.protocol.simulation, job.task_id) as simulation:
            while True:
                init_state_id, init_state = connection.recv()
                rolling = rolling_out(simulation, job.spec, job.view, job.train_seed, init_state_id, init_state)
                try:
                    connection.send(next(rolling))
                    while True:
                        connection.send(rolling.send(connection.recv()))
                except StopIteration as end:
                    connection.send(end.value)
    except EOFError:  # the policy's process wants no more
        return
    except InputError as error:
        connection.send(Failure(str(error), refused=True))
    except Exception as error:
        connection.send(Failure(repr(error), refused=False))


def main() -> None:
    descriptor, parent = sys.argv[1:]
    die_with(parent)
    serve(Connection(int(descriptor)))


if __name__ == "__main__":
    # What is sent is named by its module, so this file must be known by that name, and not as `__main__`.
    from world_modality.evaluation import simulators

    simulators.main()
