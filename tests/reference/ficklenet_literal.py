"""FickleNet a second time, slow and literal, as the dissertation words it (3.2.1).

`windows` is the selection m[u, o] in the window at each position u: bool (h, w, s, s), one image.
Every function computes in the type of its arguments.
"""

import torch
from torch.nn import functional


def windows_of(selection, side):
    """m[u, o] from selections by cell, (s * s, h, w): n[o, v] says what the window v - o keeps."""
    _, height, width = selection.shape
    windows = torch.zeros(height, width, side, side, dtype=torch.bool)
    for y in range(height):
        for x in range(width):
            for row in range(side):
                for column in range(side):
                    at = y + row - side // 2, x + column - side // 2
                    if 0 <= at[0] < height and 0 <= at[1] < width:
                        windows[y, x, row, column] = selection[row * side + column, *at]
    return windows


def logits_by_position(features, kernel, windows):
    """Figure 3.2a: a dropout and a dot product at each position; (d, h, w) gives (c,)."""
    side = kernel.shape[-1]
    _, height, width = features.shape
    padded = functional.pad(features, [side // 2] * 4)
    scores = []
    for y in range(height):
        for x in range(width):
            window = padded[:, y : y + side, x : x + side] * windows[y, x]
            scores.append((kernel * window).sum((1, 2, 3)))
    return torch.stack(scores).mean(0)


def logits_by_expansion(features, kernel, windows):
    """Figure 3.2b: windows side by side, dropped, and a convolution whose stride is the kernel."""
    side = kernel.shape[-1]
    depth, height, width = features.shape
    padded = functional.pad(features, [side // 2] * 4)
    rows = []
    for y in range(height):
        row = [padded[:, y : y + side, x : x + side] * windows[y, x] for x in range(width)]
        rows.append(torch.cat(row, 2))
    expanded = torch.cat(rows, 1)
    assert expanded.shape == (depth, height * side, width * side)
    return functional.conv2d(expanded[None], kernel, stride=side)[0].mean((1, 2))


def map_of_pass(features, kernel, windows, target, logits=logits_by_expansion):
    """ReLU(sum_k x_k dS_c/dx_k) by a backward pass to the features; (h, w)."""
    features = features.detach().requires_grad_()
    score = logits(features, kernel, windows)[target]
    (gradient,) = torch.autograd.grad(score, features)
    return (features * gradient).sum(0).relu().detach()


def aggregate(maps, rule, threshold):
    """One map from those of all passes, (t, h, w), each over its maximum first."""
    shares = [one / one.max() if one.max() > 0 else one for one in maps]
    found = torch.zeros_like(maps[0])
    mean = sum(shares) / len(shares)
    if rule == "mean":
        return mean
    for share in shares:
        found = torch.where(share > found, share, found)
    if rule == "max":
        return found
    certain = torch.zeros_like(found)
    for share in shares:
        certain[share > threshold] = 0.5
    return certain + 0.5 * mean / mean.max()
