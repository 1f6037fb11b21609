"""Parts of a network in low precision while the rest stays in float32."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def lower_precision(modules: Sequence[nn.Module], dtype: torch.dtype) -> Iterator[None]:
    """Modules compute in that type within, and answer in float32; float32 changes nothing.

    Anchors take the type of the features that they are laid over, and bf16 knows no odd number of
    pixels above 256: what leaves these modules must be float32 again.
    """
    if dtype == torch.float32:
        yield
        return
    entered: list[torch.autocast] = []

    def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        device = next(module.parameters()).device.type
        entered.append(torch.autocast(device, dtype))
        entered[-1].__enter__()

    def leave(module: nn.Module, inputs: tuple[Any, ...], outputs: Any) -> Any:
        entered.pop().__exit__(None, None, None)
        return _float(outputs)

    with ExitStack() as hooks:
        for module in modules:
            hooks.callback(module.register_forward_pre_hook(enter).remove)
            hooks.callback(module.register_forward_hook(leave, always_call=True).remove)
        yield


def _float(outputs: Any) -> Any:
    if isinstance(outputs, Tensor):
        return outputs.float() if outputs.is_floating_point() else outputs
    if isinstance(outputs, dict):
        return type(outputs)((name, _float(one)) for name, one in outputs.items())
    if isinstance(outputs, list | tuple):
        return type(outputs)(_float(one) for one in outputs)
    return outputs
