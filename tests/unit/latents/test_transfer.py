"""What is moved arrives as it was, and nothing is fetched before the next work has been launched."""

import torch

from world_modality.latents import encoder as module
from world_modality.latents.transfer import Fetching, stack_to_device, to_device

CPU = torch.device("cpu")


def test_a_tensor_arrives_as_it_was():
    rows = [torch.full((2, 3), value, dtype=torch.uint8) for value in range(4)]
    assert torch.equal(stack_to_device(rows, CPU), torch.stack(rows))
    assert torch.equal(to_device(rows[1], CPU), rows[1])
    assert torch.equal(Fetching(rows[2]).result(), rows[2])


def test_a_batch_is_fetched_after_the_next_one_has_been_launched(monkeypatch):
    order = []

    class Noted(Fetching):
        def __init__(self, tensor):
            order.append(("launched", int(tensor)))
            super().__init__(tensor)

        def result(self):
            order.append(("fetched", int(self._host)))
            return super().result()

    class Encoder:
        model = torch.nn.Linear(1, 1)
        model.device = CPU

        def encode(self, windows):
            return windows.sum()

    monkeypatch.setattr(module, "Fetching", Noted)
    found = list(module._encode_batches(Encoder(), ([torch.tensor(number)] for number in range(3))))
    assert [int(latents) for latents in found] == [0, 1, 2]
    launched, fetched = "launched", "fetched"
    assert order == [(launched, 0), (launched, 1), (fetched, 0), (launched, 2), (fetched, 1), (fetched, 2)]
