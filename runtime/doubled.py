"""A torch model in float64, also where it was written for float32 alone."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def doubled(model: nn.Module) -> nn.Module:
    """Return a copy of a model in float64.

    Models name float32 in their forward: snnTorch's neurons send their spikes with `.float()`, whatever they got. In
    the copy's forward `.float()` and `.to(torch.float32)` give float64, and so do new tensors of no stated format.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class Wide(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.Tensor.float:
                function = torch.Tensor.double
            if function is torch.Tensor.to:
                args = tuple(torch.float64 if a is torch.float32 else a for a in args)
            return function(*args, **(kwargs or {}))

    wide = copy.deepcopy(model).double()
    entered: list[tuple[ExitStack, torch.dtype]] = []

    def enter(module: nn.Module, arguments: Any) -> None:
        entered.append((ExitStack(), torch.get_default_dtype()))
        entered[-1][0].enter_context(Wide())
        torch.set_default_dtype(torch.float64)

    def leave(module: nn.Module, arguments: Any, output: Any) -> None:
        mode, before = entered.pop()
        torch.set_default_dtype(before)
        mode.close()

    wide.register_forward_pre_hook(enter)
    wide.register_forward_hook(leave, always_call=True)
    return wide
