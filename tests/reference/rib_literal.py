"""RIB a second time, slow and literal.

One image at a time on the plain network: weights loaded anew, a real optimiser, all features
computed in every step, one graph over all scales and companions, loops over rows and classes.
Every function computes in the type of the network's weights, so that `network.double()` gives
float64. Rules: dissertation 3.4.3, METHODS 5.
"""

import copy
import inspect
import math
from dataclasses import dataclass, field
from itertools import islice

import torch

from rayseg.attribution.classes.base import seeded
from rayseg.attribution.classes.views import ViewBatch
from tests.reference.attribution_literal import EPSILON, add_mirrored, on_image_grid, raw_maps


@dataclass
class Found:
    """What came of one image.

    Attributes:
        maps: of each class, one (h', w') a scale.
        network: on the weights reached.
        stopped: by what, before its last step; empty where by nothing.
        logits: of the classes, before each step, the mean of the first scale's own map.
        target_sums: of each step, what the margin is held against.
        shares: of each step but the first, what the explosion's share is held against.
    """

    maps: list
    network: torch.nn.Module
    steps: int = 0
    stopped: str = ""
    logits: list = field(default_factory=list)
    target_sums: list = field(default_factory=list)
    shares: list = field(default_factory=list)


def gndrp(row, tau, divide_by):
    """Pooling of one class's map in one row: what stands below tau of the top, gradients through.

    The code's: the sum of x * [x / max x < tau] over the number of all positions. The text's: the
    mean over {CAM <= tau}, where a class that is nowhere has a CAM of 0.
    """
    values = row.flatten()
    top = values.detach().max()
    if divide_by == "all":
        kept = [value for value in values if value.detach() / top < tau]
        return torch.stack([*kept, values[0] * 0]).sum() / len(values)
    kept = [value for value in values if top <= 0 or value.detach() / top <= tau]
    return torch.stack(kept).mean() if kept else values.sum() * 0


def pool(maps, labels, pooling, tau, divide_by):
    """Logits (n, c) of raw maps (n, c, h', w'): GNDRP where a row has the class, else GAP."""
    rows = []
    for row, tags in zip(maps, labels, strict=True):
        logits = []
        for one, tag in zip(row, tags, strict=True):
            if pooling == "gndrp" and tag:
                logits.append(gndrp(one, tau, divide_by))
            else:
                logits.append(one.mean())
        rows.append(torch.stack(logits))
    return torch.stack(rows)


def loss_of(logits, labels, kind, margin):
    """Added over rows and classes; a margin only where the loss has one."""
    total = 0
    for row, tags in zip(logits, labels, strict=True):
        for y, tag in zip(row, tags, strict=True):
            if kind == "rib":
                total = total - (min(y, margin) if tag else y * 0)
                continue
            if kind == "sigmoid":
                share = 1 / (1 + torch.exp(-y))
            elif kind == "tanh":
                share = (torch.tanh(y) + 1) / 2
            else:
                share = (y / (1 + y.abs()) + 1) / 2
            total = total - torch.log(share if tag else 1 - share)
    return total


def covered(merged, threshold):
    """Share of positions in which any class stands above the threshold of its own top."""
    union = torch.zeros_like(merged[0], dtype=torch.bool)
    for one in merged:
        union |= one / (one.max() + EPSILON) > threshold
    return union.double().mean().item()


def localization_map(raw, maps):
    """What one step adds for one class: raw maps of the views (v, h', w') to one (h', w')."""
    if maps == "rectified":
        return add_mirrored(raw.relu())
    merged = add_mirrored(raw)
    top = merged.max()
    return merged / (top + EPSILON) if top > 0 else merged * 0


def load(theta_0):
    """A plain network of these weights; the first three stages do not train."""
    network = copy.deepcopy(theta_0).eval().requires_grad_(False)
    network.load_state_dict(theta_0.state_dict())
    for part in [*list(network.trunk)[3:], network.head]:
        part.requires_grad_(True)
    return network


def sgd(network, learning_rate, head_factor, momentum, weight_decay):
    moving = [p for stage in list(network.trunk)[3:] for p in stage.parameters()]
    rates = [learning_rate, learning_rate * head_factor]
    groups = [
        {"params": params, "lr": rate, "first_rate": rate}
        for params, rate in zip([moving, [network.head.weight]], rates, strict=True)
    ]
    return torch.optim.SGD(groups, momentum=momentum, weight_decay=weight_decay)


def descend(optimiser, value, share):
    """One step at a share of the first learning rates."""
    for group in optimiser.param_groups:
        group["lr"] = group["first_rate"] * share
    optimiser.zero_grad()
    value.backward()
    optimiser.step()


def rib(
    network,
    views,
    classes,
    companions,
    scales=(1.0, 0.5, 1.5, 2.0),
    num_steps=10,
    learning_rate=8e-6,
    head_factor=10,
    weight_decay=1e-4,
    momentum=1e-4,
    power=0.9,
    loss="rib",
    margin=600.0,
    margin_role="stop",
    pooling="gndrp",
    tau=0.4,
    divide_by="all",
    unpooled_scales=(0.5,),
    explosion_threshold=0.3,
    explosion_share=0.7,
    maps="rectified",
    add_last=False,
):
    """One image.

    Args:
        network: theta_0, a plain CAM classifier; left as it is.
        views: the image at each scale, (v, 3, h, w).
        classes: those of the image.
        companions: of each step, images (b, 3, s, s) and labels (b, c), or None without any.
    """
    network = load(network)
    optimiser = sgd(network, learning_rate, head_factor, momentum, weight_decay)
    own_tags = torch.zeros(len(network.head.weight))
    own_tags[list(classes)] = 1

    found = Found([[0.0] * len(views) for _ in classes], network)
    for k in range(num_steps + 1):
        if k == num_steps and not (add_last or k == 0):
            break
        logits, labels = [], []
        for number, (scale, images) in enumerate(zip(scales, views, strict=True)):
            raw = raw_maps(network, images)
            for place, target in enumerate(classes):
                new = localization_map(raw[:, target].detach(), maps)
                found.maps[place][number] = found.maps[place][number] + new
            if number == 0:
                found.logits.append(raw[0, list(classes)].detach().mean((1, 2)))
            if k > 0 and number == 0:
                merged = torch.stack([add_mirrored(raw[:, c].detach().relu()) for c in classes])
                found.shares.append(covered(merged, explosion_threshold))
                if found.shares[-1] > explosion_share:
                    found.stopped = "explosion"
                    return found
            if scale not in unpooled_scales:
                tags = own_tags.expand(len(images), -1)
                logits.append(pool(raw, tags, pooling, tau, divide_by))
                labels.append(tags)
        if k == num_steps or found.stopped:
            break
        own_rows = sum(map(len, logits))
        if companions is not None:
            images, tags = companions[k]
            logits.append(pool(raw_maps(network, images), tags, pooling, tau, divide_by))
            labels.append(tags)
        logits, labels = torch.cat(logits), torch.cat(labels)
        cut = margin if margin_role == "loss" else math.inf
        value = loss_of(logits, labels, loss, logits.new_tensor(cut))

        descend(optimiser, value, (1 - k / num_steps) ** power)
        found.steps += 1
        target_sum = (logits.detach() * labels)[:own_rows].sum().item()
        found.target_sums.append(target_sum)
        if margin_role == "stop" and abs(target_sum) > margin:
            found.stopped = "margin"
            if not add_last:
                break
    return found


def draw_companions(bank, method, classes, image_id, like):
    """Images and labels of each step of a method, as `rib` takes them; None without any."""
    if bank is None or not method.num_companions:
        return None
    generator = seeded(method.seed, image_id)
    draws = bank.draws(classes, method.num_companions, generator, method.disjoint, image_id)
    drawn = [draw.indices for draw in islice(draws, method.num_steps)]
    return [(bank.images(i, like.device).to(like), bank.tags[i].to(like)) for i in drawn]


def adapt(network, image, classes, method, bank=None, image_id=""):
    """`rib` with a method's settings, on the views that the method sees, in the network's type."""
    like = network.head.weight.detach()
    planes = ViewBatch.of(torch.from_numpy(image)[None], [classes], [image_id], like.device)
    views = [planes.views(scale, method.flip)[0].to(like) for scale in method.scales]
    companions = draw_companions(bank, method, classes, image_id, like)
    names = list(inspect.signature(rib).parameters)[4:]
    settings = {name: getattr(method, name) for name in names}
    return rib(network, views, classes, companions, **settings)


def image_maps(found, size_hw):
    """Each class's maps of all scales on the image's grid, over their top; a text's map may be
    negative where the class is not."""
    return [
        on_image_grid([one.relu() for one in maps], size_hw, found.network.stride)
        for maps in found.maps
    ]
