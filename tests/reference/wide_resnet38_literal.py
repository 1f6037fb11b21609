"""Wide ResNet A1 (Wu et al., 2016, stride 8) a second time: its table read row by row.

In the type of the state it is given. Normalisation is written out with the stored statistics.
"""

import torch
from torch.nn import functional

# level, blocks, stride of the first, dilation of the very first convolution, of all others
TABLE = [
    (2, 3, 2, 1, 1),
    (3, 3, 2, 1, 1),
    (4, 6, 2, 1, 1),
    (5, 3, 1, 1, 2),
    (6, 1, 1, None, 4),
    (7, 1, 1, None, 4),
]


def features(state, images):
    def convolve(planes, name, stride=1, dilation=1):
        weight = state[f"{name}.weight"]
        reach = dilation * (weight.shape[-1] // 2)
        return functional.conv2d(planes, weight, None, stride, reach, dilation)

    def rectify(planes, name):
        mean, var, scale, shift = (
            state[f"{name}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        normal = (planes - mean) / torch.sqrt(var + 1e-5)
        return torch.maximum(normal * scale + shift, torch.zeros_like(normal))

    planes = convolve(images, "conv1a")
    for level, blocks, first_stride, first_dilation, dilation in TABLE:
        for block in range(blocks):
            name = f"b{level}" if block == 0 else f"b{level}_{block}"
            stride = first_stride if block == 0 else 1
            ready = rectify(planes, f"{name}.bn_branch2a")
            if level < 6:
                early = first_dilation if block == 0 else dilation
                inner = convolve(ready, f"{name}.conv_branch2a", stride, early)
                inner = rectify(inner, f"{name}.bn_branch2b1")
                inner = convolve(inner, f"{name}.conv_branch2b1", 1, dilation)
            else:
                inner = convolve(ready, f"{name}.conv_branch2a")
                inner = rectify(inner, f"{name}.bn_branch2b1")
                inner = convolve(inner, f"{name}.conv_branch2b1", 1, dilation)
                inner = rectify(inner, f"{name}.bn_branch2b2")
                inner = convolve(inner, f"{name}.conv_branch2b2")
            if block == 0:
                planes = convolve(ready, f"{name}.conv_branch1", stride)
            planes = planes + inner
    return rectify(planes, "bn7")
