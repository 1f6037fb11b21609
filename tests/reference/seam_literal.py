"""SEAM and AdvCAM on it a second time, slow and literal: loops over cells, resizing by matrices.

Wang et al., CVPR 2020, in the order of the authors' resnet38_SEAM.py, train_SEAM.py and
infer_SEAM.py (METHODS 2). In the type of the network's weights, with all gradients.
"""

import numpy as np
import torch

from tests.reference import attribution_literal as plain

TINY = 1e-5


def corner_matrix(cells, pixels):
    """(pixels, cells) of linear interpolation whose ends lie over ends."""
    matrix = np.zeros((pixels, cells))
    for pixel in range(pixels):
        place = pixel * (cells - 1) / (pixels - 1) if pixels > 1 else 0.0
        below = min(int(place), cells - 1)
        above = min(below + 1, cells - 1)
        matrix[pixel, below] += 1 - (place - below)
        matrix[pixel, above] += place - below
    return matrix


def by_corners(planes, size_hw):
    """Planes (p, h, w) in another size."""
    rows, columns = (
        torch.tensor(corner_matrix(a, b), dtype=planes.dtype)
        for a, b in zip(planes.shape[1:], size_hw, strict=True)
    )
    return rows @ planes @ columns.T


def background_and_strongest(maps):
    """Planes (1 + c, h, w) out of class maps (c, h, w), cell by cell."""
    maps = maps.detach().clamp(min=0)
    tops = [one.max() + TINY for one in maps]
    planes = torch.zeros(len(maps) + 1, *maps.shape[1:], dtype=maps.dtype)
    for y in range(maps.shape[1]):
        for x in range(maps.shape[2]):
            shares = [
                max(float(one[y, x]) - TINY, 0.0) / float(top)
                for one, top in zip(maps, tops, strict=True)
            ]
            planes[0, y, x] = 1 - max(shares)
            for c, share in enumerate(shares):
                planes[1 + c, y, x] = share if share == max(shares) else 0.0
    return planes


def correlate(planes, vectors):
    """Each cell's weighted mean over all cells: planes (p, v), vectors (e, v)."""
    cells = planes.shape[1]
    columns = []
    for i in range(cells):
        alike = [(vectors[:, j] * vectors[:, i]).sum().clamp(min=0) for j in range(cells)]
        total = sum(alike) + TINY
        columns.append(sum(planes[:, j] * (alike[j] / total) for j in range(cells)))
    return torch.stack(columns, 1)


def refine(network, maps, image, low, middle):
    """Planes of one image after the module: maps (c, h, w), image (3, y, x)."""
    module, size_hw = network.correlation_head, maps.shape[1:]

    def mix(layer, planes):
        return torch.einsum("dhw,ed->ehw", planes, layer.weight[:, :, 0, 0])

    joined = torch.cat([
        by_corners(image, size_hw),
        by_corners(mix(module.low, low.detach()).clamp(min=0), size_hw),
        by_corners(mix(module.middle, middle.detach()).clamp(min=0), size_hw),
    ])  # fmt: skip
    vectors = mix(module.joined, joined).flatten(1)
    vectors = vectors / (torch.sqrt((vectors**2).sum(0)) + TINY)
    return correlate(background_and_strongest(maps).flatten(1), vectors).unflatten(1, size_hw)


def look(network, image):
    """Class maps and refined planes of one image (3, y, x), on the features' grid."""
    low, middle, features = (level[0] for level in network.levels(image[None]))
    maps = torch.einsum("dhw,cd->chw", features, network.head.weight[:, :, 0, 0])
    return maps, refine(network, maps, image, low, middle)


def enlarged_look(network, image):
    return [by_corners(planes, image.shape[1:]) for planes in look(network, image)]


# Losses


def stretched(planes):
    """Each plane from its minimum and maximum to [0, 1]."""
    found = []
    for plane in planes.clamp(min=0):
        low, high = plane.min(), plane.max()
        found.append((plane - low - TINY).clamp(min=0) / (high - low + TINY))
    return torch.stack(found)


def value(number):
    return float(number.detach())


def lowest_quarter(planes):
    """Sum of the lowest quarter of the pixels by their strongest plane, and their number."""
    pixels = sorted(planes.max(0).values.flatten(), key=value)
    count = len(pixels) // 4
    return sum(one.clamp(min=0) for one in pixels[:count]), count


def one_hot(planes):
    """A plane of background ahead; of the classes the strongest of each pixel stays."""
    top = planes.max(0).values
    return torch.cat([1 - top[None], torch.where(planes == top, planes, 0.0)]).detach()


def losses(first, second, targets, share=0.2):
    """The four losses; first and second hold (maps, refined) of every image."""
    found = dict.fromkeys(("classes", "pooled", "equivariance", "cross"), 0.0)
    number, count = targets.shape
    for (maps1, refined1), (maps2, refined2), target in zip(first, second, targets, strict=True):
        size_hw = maps2.shape[1:]
        wanted = torch.cat([torch.ones(1, dtype=target.dtype), target])[:, None, None]
        small1 = by_corners(stretched(maps1), size_hw) * wanted[1:]
        small2 = stretched(maps2) * wanted[1:]
        fine1 = by_corners(stretched(refined1), size_hw) * wanted
        fine2 = stretched(refined2) * wanted
        for maps, refined in ((maps1, refined1), (maps2, refined2)):
            for c in range(count):
                chance = 1 / (1 + torch.exp(-maps[c].mean()))
                likely = target[c] * torch.log(chance) + (1 - target[c]) * torch.log(1 - chance)
                found["classes"] -= likely / count / number / 2
            total, pixels = lowest_quarter(refined[1:] * wanted[1:])
            found["pooled"] += total / (pixels * number) / 2
        found["equivariance"] += (small1 - small2).abs().sum() / small1.numel() / number
        for theirs, ours in ((small2, fine1), (small1, fine2)):
            off = sorted((one_hot(theirs) - ours).abs().flatten(), key=value, reverse=True)
            hardest = off[: int(len(off) * share)]
            found["cross"] += sum(hardest) / len(hardest) / number
    return found


# Seeds


def on_image(maps, scales, size_hw):
    """Maps of each scale, brought to its size, to the image's, added and stretched."""
    total = np.zeros(size_hw)
    for one, scale in zip(maps, scales, strict=True):
        looked_at = by_corners(one[None], [round(side * scale) for side in size_hw])[0]
        rows, columns = (
            plain.interpolation(a, b) for a, b in zip(looked_at.shape, size_hw, strict=True)
        )
        total += rows @ looked_at.detach().double().numpy() @ columns.T
    low, high = total.min(), total.max()
    return (total - low - TINY).clip(min=0) / (high - low + TINY)


def seam_one_scale(network, views, target):
    with torch.no_grad():
        return plain.add_mirrored([look(network, view)[1][1 + target] for view in views])


def seam(network, image, target, scales=(1.0, 0.5, 1.5, 2.0), flip=True, resize=plain.pillow):
    """The authors' infer_SEAM.py of one image and class."""
    like = network.head.weight
    maps = [
        seam_one_scale(network, plain.look(image, scale, flip, like, resize), target)
        for scale in scales
    ]
    return on_image(maps, scales, image.shape[:2])


def advcam_one_scale(
    network, pair, target, num_maps, step_size=0.08, restrict=2.0, threshold=0.5, suppress=1.0
):
    """AdvCAM's climb on GAP of the rectified maps; what is added are the maps after the module."""
    images = pair.clone()
    total = first = 0.0
    for t in range(num_maps):
        images = images.detach().requires_grad_()
        network.zero_grad(set_to_none=True)
        features = network.features(images)
        maps = torch.einsum("ndhw,cd->nchw", features, network.head.weight[:, :, 0, 0])
        current = plain.add_mirrored(plain.autograd_gradcam(features, maps, target))
        if t == 0:
            first = current.detach()
        total = total + seam_one_scale(network, images.detach(), target)

        logits = maps.relu().mean((2, 3))
        mask = (current.detach() / current.detach().max().clamp_min(1e-30) > threshold).double()
        objective = (1 + suppress) * logits[:, target].sum() - suppress * logits.sum()
        objective = objective - restrict * ((current - first).abs() * mask).sum()
        network.zero_grad(set_to_none=True)
        images.grad = None
        objective.backward()
        step = step_size * images.grad / (images.grad.abs().max() + 1e-12)
        images = (images.detach() + step).clamp(images.min().item(), images.max().item())
    network.zero_grad(set_to_none=True)
    return total


def advcam_on_seam(
    network, image, target, scales=(1.0, 0.5, 1.5, 2.0), num_steps=8, resize=plain.pillow, **terms
):
    """The whole of one image and class."""
    maps = []
    for scale in scales:
        pair = plain.look(image, scale, True, network.head.weight, resize)
        number = plain.num_official_maps(num_steps, scale)
        maps.append(advcam_one_scale(network, pair, target, number, **terms))
    return on_image(maps, scales, image.shape[:2])
