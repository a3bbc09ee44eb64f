"""Moving tensors between the host and a GPU without making either wait for the other.

Non-obvious behaviours of CUDA:
* A copy from or to ordinary host memory waits for all work that was queued before it. Only a copy of pinned memory is
  queued itself.
* A copy waits for everything queued before it, whether it needs it or not. So results are queued for fetching when they
  are launched, and read when the next ones have been launched.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A host's tensor on `device`; a GPU does not have to finish its work for it first."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def stack_to_device(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    """Tensors of one shape and dtype stacked on `device`, as `to_device` would move them, with one copy fewer."""
    if device.type != "cuda":
        return torch.stack(list(tensors)).to(device)
    shape = (len(tensors), *tensors[0].shape)
    return torch.stack(list(tensors), out=torch.empty(shape, dtype=tensors[0].dtype, pin_memory=True)).to(
        device, non_blocking=True
    )


class Fetching:
    """A tensor on its way to the host: queued when this is made, and there when `result` returns."""

    def __init__(self, tensor: Tensor):
        self._host, self._done = tensor, None
        if tensor.device.type == "cuda":
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._done = torch.cuda.Event()
            self._done.record(torch.cuda.current_stream(tensor.device))

    def result(self) -> Tensor:
        """The tensor in the host's memory, once it is there."""
        if self._done is not None:
            self._done.synchronize()
        return self._host
