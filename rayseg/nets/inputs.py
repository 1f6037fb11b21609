"""What networks are fed: ImageNet's normalisation, and the numbers that they compute in."""

from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

MEAN_RGB = (0.485, 0.456, 0.406)
"""Of ImageNet's pixels in [0, 1]; torchvision's weights were trained with it."""
DEVIATION_RGB = (0.229, 0.224, 0.225)

Precision = Literal["auto", "fp32", "bf16"]


def normalise(planes: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """RGB levels as networks take them."""
    mean, deviation = (
        torch.tensor(part, device=planes.device).view(1, 3, 1, 1)
        for part in (MEAN_RGB, DEVIATION_RGB)
    )
    return (planes.float() / 255 - mean) / deviation


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The type to compute in: bf16 under ``auto`` where the device multiplies it faster."""
    if precision == "auto":
        return torch.bfloat16 if _has_fast_bf16(device) else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]


def _has_fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16", False))
