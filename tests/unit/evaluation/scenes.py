"""What stands where the simulator does, in this process or in one of its own."""

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from world_modality.errors import InputError
from world_modality.evaluation import simulators
from world_modality.simulation import libero
from world_modality.simulation.pickup import PickupState

SIZE = 32
CAMERAS = ("front", "wrist")


class Scene:
    """Stands where the simulator does: images are noise drawn from the step, and are all that cost is counted by."""

    task_id, task_description = 0, "pick up the bowl"
    placement = ("on", "bowl", "plate")

    def __init__(self, *_, show_all=False, success_at=None):
        self.show_all, self.success_at = show_all, success_at
        self.rendered, self.actions = [], []

    def reset(self, seed, init_state, cameras):
        self.actions, self.rendered, self.place = [], [], int(init_state[0])
        return self._observe(cameras)

    def step(self, action, cameras):
        self.actions.append(action)
        return self._observe(cameras), len(self.actions) == self.success_at

    def pickup_state(self):
        """The gripper comes 1 cm nearer on every step, and touches nothing."""
        distance = max(0.2 - 0.01 * len(self.actions), 0.05)
        return PickupState(distance, False, False, 0.08, False, 0.9, 0.2, placed=False)

    def _observe(self, cameras):
        self.rendered.append(tuple(cameras))
        shown = CAMERAS if self.show_all else cameras
        images = {c: self._image(c) for c in shown}
        return SimpleNamespace(state=np.full(8, len(self.actions), np.float32), images=images)

    def _image(self, camera):
        draw = np.random.default_rng([self.place, len(self.actions), CAMERAS.index(camera)])
        return draw.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)

    def render(self, camera, size):
        return self._image(camera)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class FaultyScene(Scene):
    """A scene in a simulator's process: at the third step of an episode, $FAULT happens, as often as $FAULTS says.

    An episode succeeds after as many steps as its initial state says, so neighbours end at different times.
    """

    def reset(self, seed, init_state, cameras):
        self.success_at = int(init_state[0]) or None
        return super().reset(seed, init_state, cameras)

    def step(self, action, cameras):
        if len(self.actions) == 3:
            self._fault()
        return super().step(action, cameras)

    def _fault(self):
        left = Path(os.environ["FAULTS"])
        if not left.read_text():
            return
        left.write_text(left.read_text()[1:])
        if os.environ["FAULT"] == "crash":
            raise RuntimeError("the simulator crashed")
        if os.environ["FAULT"] == "refuse":
            raise InputError("the encoder is another")
        if os.environ["FAULT"] == "torch" and "torch" not in sys.modules:
            raise InputError("there is no torch here")
        if os.environ["FAULT"] == "die":
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    libero.LiberoSimulation = FaultyScene
    simulators.main()
