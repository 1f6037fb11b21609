"""CAM, Grad-CAM and AdvCAM a second time, slow and literal.

One image, one class and one scale at a time, on the plain network with all its gradients. Every
function computes in the type of the network's weights, so that `network.double()` gives float64.
"""

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

EPSILON = 1e-5


def pillow(image, size_hw):
    return np.asarray(Image.fromarray(image).resize(size_hw[::-1], Image.Resampling.BICUBIC))


def look(image, scale, flip, like, resize=pillow):
    """The image in one size, normalised, with its mirror image behind it: (v, 3, h, w)."""
    height, width = image.shape[:2]
    if scale != 1:
        image = resize(image, (round(height * scale), round(width * scale)))
    normalised = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    views = [normalised, normalised[:, ::-1]] if flip else [normalised]
    planes = np.stack([view.transpose(2, 0, 1) for view in views])
    return torch.tensor(planes, dtype=like.dtype, device=like.device)


def interpolation(cells, pixels):
    """The matrix (pixels, cells) of linear interpolation between the centres of cells."""
    matrix = np.zeros((pixels, cells))
    for pixel in range(pixels):
        place = min(max((pixel + 0.5) * cells / pixels - 0.5, 0), cells - 1)
        below = int(place)
        above = min(below + 1, cells - 1)
        matrix[pixel, below] += 1 - (place - below)
        matrix[pixel, above] += place - below
    return matrix


def on_image_grid(maps, size_hw, stride):
    """IRN's high_res: each scale's map bilinear to whole cells, cropped, summed, over its top."""
    total = np.zeros(size_hw)
    for one in maps:
        cells = one.detach().cpu().double().numpy()
        canvas = [stride * int(np.ceil(side / stride)) for side in size_hw]
        rows, columns = (interpolation(a, b) for a, b in zip(cells.shape, canvas, strict=True))
        total += (rows @ cells @ columns.T)[: size_hw[0], : size_hw[1]]
    return total / (total.max() + EPSILON)


def raw_maps(network, views):
    """w_k . f for every class k: (v, c, h', w')."""
    return torch.einsum("ndhw,cd->nchw", network.features(views), network.head.weight[:, :, 0, 0])


def add_mirrored(maps):
    """The image's own map and the mirror image's, turned back."""
    total = maps[0]
    for mirrored in maps[1:]:
        total = total + mirrored.flip(-1)
    return total


def cam_one_scale(network, views, target):
    with torch.no_grad():
        return add_mirrored(raw_maps(network, views)[:, target].relu())


def cam(network, image, target, scales=(1.0, 0.5, 1.5, 2.0), flip=True, resize=pillow):
    """IRN's make_cam.py; one scale and no mirror image is Eq. 2.1."""
    maps = [
        cam_one_scale(network, look(image, scale, flip, network.head.weight, resize), target)
        for scale in scales
    ]
    return on_image_grid(maps, image.shape[:2], network.stride)


def gradcam_one_scale(network, views, target, pooled):
    """A hook keeps the trunk's output, a real backward pass gives its gradient."""
    maps = []
    for view in views:
        kept = []
        hook = network.trunk.register_forward_hook(lambda *call, kept=kept: kept.append(call[2]))
        logits = network(view[None])
        hook.remove()
        kept[0].retain_grad()
        logits[0, target].backward()
        features, gradient = kept[0].detach()[0], kept[0].grad[0] * kept[0][0, 0].numel()
        if pooled:
            gradient = gradient.mean((1, 2), keepdim=True).expand_as(gradient)
        maps.append((features * gradient).sum(0).relu())
    network.zero_grad(set_to_none=True)
    return add_mirrored(maps)


def gradcam(
    network, image, target, scales=(1.0, 0.5, 1.5, 2.0), flip=True, pooled=True, resize=pillow
):
    maps = [
        gradcam_one_scale(
            network, look(image, scale, flip, network.head.weight, resize), target, pooled
        )
        for scale in scales
    ]
    return on_image_grid(maps, image.shape[:2], network.stride)


def autograd_gradcam(features, maps, target):
    """AdvCAM's Grad-CAM of a pair: a full backward of the summed rectified maps of the class.

    The weight of a channel is its gradient, summed over the map and divided by the number of
    positive entries in the whole gradient of the pair. Leaves gradients behind.
    """
    features.retain_grad()
    maps[:, target].relu().sum().backward(retain_graph=True)
    gradient = features.grad
    weights = gradient.sum((2, 3), keepdim=True) / (gradient > 0).sum().clamp_min(1)
    return (features * weights.detach()).sum(1).relu()


def advcam_one_scale(
    network, pair, target, num_maps, step_size=0.08, restrict=7.0, threshold=0.5, suppress=1.0
):
    """The public code's climb of one pair: two full backward passes a step, weights included."""
    images = pair.clone()
    total = first = None
    for _ in range(num_maps):
        images = images.detach().requires_grad_()
        network.zero_grad(set_to_none=True)
        features = network.features(images)
        maps = functional.conv2d(features, network.head.weight)
        current = add_mirrored(autograd_gradcam(features, maps, target))
        if first is None:
            first, total = current.detach(), torch.zeros_like(current)
        total += current.detach()

        logits = maps.relu().mean((2, 3))  # (v, c)
        largest = current.detach().max().clamp_min(1e-30)
        mask = (current.detach() / largest > threshold).to(current.dtype)
        objective = (1 + suppress) * logits[:, target].sum() - suppress * logits.sum()
        objective = objective - restrict * ((current - first).abs() * mask).sum()

        network.zero_grad(set_to_none=True)
        images.grad = None
        objective.backward()
        step = step_size * images.grad / (images.grad.abs().max() + 1e-12)
        images = (images.detach() + step).clamp(images.min().item(), images.max().item())
    network.zero_grad(set_to_none=True)
    return total


def num_official_maps(num_steps, scale):
    if scale != 0.5:
        return num_steps
    return 5 if 6 <= num_steps <= 10 else num_steps // 2


def advcam(
    network, image, target, scales=(1.0, 0.5, 1.5, 2.0), num_steps=27, resize=pillow, **terms
):
    """The authors' public procedure for one image and one class."""
    maps = []
    for scale in scales:
        pair = look(image, scale, True, network.head.weight, resize)
        num_maps = num_official_maps(num_steps, scale)
        maps.append(advcam_one_scale(network, pair, target, num_maps, **terms))
    return on_image_grid(maps, image.shape[:2], network.stride)


def advcam_as_written(
    network, image, target, num_steps=27, step_size=0.008, restrict=7.0, threshold=0.5, suppress=1.0
):
    """Eq. 3.3 to 3.6 on the image alone."""

    def attribute(x):
        raw = raw_maps(network, x)[0]  # (c, h', w')
        top = raw[target].max()
        if top <= 0:  # nowhere: Eq. 2.1 would divide by a negative maximum
            return raw[target] * 0, raw.mean((1, 2))
        return raw[target] / (top + EPSILON), raw.mean((1, 2))

    x = look(image, 1, False, network.head.weight)
    first = attribute(x)[0].detach()
    total = torch.zeros_like(first)
    for t in range(num_steps + 1):
        x = x.detach().requires_grad_()
        current, logits = attribute(x)
        total += current.detach()
        if t < num_steps:
            others = sum(logits[k] for k in range(len(logits)) if k != target)
            mask = (current > threshold).detach()
            penalty = (mask * (current - first).abs()).sum()
            objective = logits[target] - suppress * others - restrict * penalty
            x = x + step_size * torch.autograd.grad(objective, x)[0]
    return on_image_grid([total.relu()], image.shape[:2], network.stride)
