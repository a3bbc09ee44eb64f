"""Updates whose values nobody reads: the host launches the next one while a GPU still computes the last.

LeRobot's update reads the loss and the gradients' norm, and SmolVLA's forward reads four more values for its log.
SmolVLM's vision tower reads its mask three times for each camera, only to find that no patch is masked. Each read waits
until the GPU has done everything before it, and then the GPU waits for the host. Here the loss stays where it is until
a line is printed or a state is saved, and the mask is known to hold all patches.

Non-obvious behaviours:
* `SmolVLAPolicy` calls `self.model.forward`, so no hook of the model fires. That of `action_out_proj` does, and all its
  losses are made from the output of that layer.
* What is computed from a subclass of Tensor is of the subclass too, so one hook reaches every value of the log.
* LeRobot's meters sum whatever they are given. Tensors are summed on the GPU, and only floats are taken from the log.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
from accelerate import Accelerator
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from torch import Tensor, nn


class Unread(Tensor):
    """A tensor whose `item` is a tensor as well: whoever only keeps the number does not wait for it."""

    def item(self) -> Tensor:
        return self.detach().as_subclass(Tensor)


class Whole(Tensor):
    """A mask of which every element is known to be true, so nobody has to look at it; make one with `Whole.of_shape`.

    What it selects from a tensor of its shape is all of that tensor, in one dimension, as with any other mask.
    """

    @classmethod
    def of_shape(cls, shape: Sequence[int], device: torch.device) -> Whole:
        return torch.ones(shape, dtype=torch.bool, device=device).as_subclass(cls)

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), keywords=None):
        if function is Tensor.all:
            return True
        if function is Tensor.__getitem__ and type(arguments[0]) is Tensor:
            return arguments[0].flatten()
        if function is Tensor.__setitem__ and type(arguments[0]) is Tensor:
            return arguments[0].copy_(arguments[2].view_as(arguments[0]))
        found = super().__torch_function__(function, types, arguments, keywords or {})
        still_whole = function in (Tensor.view, Tensor.to)
        return found if still_whole or not isinstance(found, Whole) else found.as_subclass(Tensor)


class UnreadAccelerator(Accelerator):
    """An Accelerator that leaves the gradients' norm unread."""

    def clip_grad_norm_(self, *arguments, **keywords) -> Tensor:
        return super().clip_grad_norm_(*arguments, **keywords).as_subclass(Unread)


@contextlib.contextmanager
def unread(policy: SmolVLAPolicy) -> Iterator[None]:
    """Within the block the policy's loss is `Unread`, and so is what it logs; their values do not change."""
    vision = policy.model.vlm_with_expert.get_vlm_model().vision_model
    hooks = [
        policy.model.action_out_proj.register_forward_hook(lambda _layer, _input, output: output.as_subclass(Unread)),
        vision.register_forward_pre_hook(_show_all_patches, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _show_all_patches(vision: nn.Module, arguments: tuple, keywords: dict) -> tuple[tuple, dict]:
    """Give SmolVLM's vision tower the mask that it would make itself: of all patches of every image (B, 3, H, W)."""
    if keywords.get("patch_attention_mask") is not None:
        return arguments, keywords
    images = keywords["pixel_values"]
    size = vision.patch_size
    shape = (len(images), images.shape[2] // size, images.shape[3] // size)
    return arguments, keywords | {"patch_attention_mask": Whole.of_shape(shape, images.device)}


class Losses:
    """The losses of a training from some step on, on its device until `last` is asked for.

    Args:
        name: of the training, for the error.
        step: the step after which the losses begin.
    """

    def __init__(self, name: str, step: int):
        self._name, self._step, self._unread, self._last = name, step, [], math.nan

    def add(self, loss: Tensor) -> None:
        """Keep the loss of the next step, a scalar."""
        self._unread.append(loss)

    def last(self) -> float:
        """Read all losses that were added since the last call, in one copy, and return the last.

        Raises:
            FloatingPointError: one is not finite; names the first such step.
        """
        read = torch.stack(self._unread).tolist() if self._unread else []
        for step, loss in enumerate(read, start=self._step + 1):
            if not math.isfinite(loss):
                raise FloatingPointError(f"{self._name}: the loss of step {step} is {loss}")
        self._step, self._unread = self._step + len(read), []
        self._last = read[-1] if read else self._last
        return self._last
