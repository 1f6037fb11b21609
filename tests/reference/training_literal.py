"""The steps of each training once more, written out: no loop, order or schedule of rayseg's."""

import numpy as np
import pydensecrf.densecrf as dcrf
import torch
from torch.nn import functional

from rayseg.labels import GivenBoxes, TrueInstances, Truths
from rayseg.learn import LabelledCrops, ObjectImages, TaggedCrops
from rayseg.nets.losses import segmentation_loss
from tests.reference import dsrg_literal, growing_literal, seam_literal


def literal_losses(training, manifest, samples):
    """The loss of each of five steps on ten images in batches of four, by one worker."""
    network = training.build(("green", "red")).train()
    optimizer = training.schedule.optimizer(network)
    steps = {
        "classifier": _tagged,
        "ficklenet": _tagged,
        "seam": _looked_at_twice,
        "segmenter": _labelled,
        "irnet": _pairs,
        "affinity": _pairs,
        "detector": _objects,
        "mask_rcnn": _objects,
        "dsrg": _growing,
    }[training.makes]
    return [steps(training, network, optimizer, manifest, samples, step) for step in range(5)]


def _finish(optimizer, factor):
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    optimizer.step()
    optimizer.zero_grad()


def _permutation(epoch, seed=0):
    return np.random.default_rng([seed, epoch]).permutation(10).tolist()


def _draws(first, last):
    """Places in the endless row of permutations, and the images there."""
    return [(draw, _permutation(draw // 10)[draw % 10]) for draw in range(first, last)]


def _crops(training, samples, step):
    """Images and targets: two batches an epoch; two images are left out."""
    epoch, place = divmod(step, 2)
    crops = TaggedCrops(samples, 2, training.crops, training.seed)
    items = [
        crops[(epoch, i)] for i in _permutation(epoch, training.seed)[4 * place : 4 * place + 4]
    ]
    images, targets = (torch.stack([item[n] for item in items]) for n in range(2))
    return images.contiguous(memory_format=torch.channels_last), targets


def _looked_at_twice(training, network, optimizer, manifest, samples, step):
    """The second time at images of half the size."""
    images, targets = _crops(training, samples, step)
    smaller = torch.stack([seam_literal.by_corners(image, (64, 64)) for image in images])
    network.reseed(training.seed, step)
    looks = [network.look(seen, place) for place, seen in enumerate((images, smaller))]
    pairs = [list(zip(*look, strict=True)) for look in looks]
    loss = sum(seam_literal.losses(*pairs, targets).values())
    loss.backward()
    _finish(optimizer, (1 - step / 5) ** 0.9)
    return loss.item()


def _tagged(training, network, optimizer, manifest, samples, step):
    epoch = step // 2
    images, targets = _crops(training, samples, step)
    if training.makes == "ficklenet":
        network.reseed(0, step)
    loss = functional.multilabel_soft_margin_loss(network(images), targets)
    loss.backward()
    # 0.01 * (1 - t) ** 0.9 over all five steps; Adam is halved after each epoch
    _finish(optimizer, 0.5**epoch if training.makes == "ficklenet" else (1 - step / 5) ** 0.9)
    return loss.item()


def _labelled(training, network, optimizer, manifest, samples, step):
    """Two halves a step, whose losses are averaged."""
    crops = LabelledCrops(samples, Truths(manifest, "train"), training.crops, 0)
    torch.manual_seed(step)
    total = 0.0
    for first in (4 * step, 4 * step + 2):
        items = [crops[key] for key in _draws(first, first + 2)]
        images, labels = (torch.stack([item[n] for item in items]) for n in range(2))
        outputs = network(images.contiguous(memory_format=torch.channels_last))
        pairs = [segmentation_loss(logits, labels) for logits in outputs]
        loss = sum(added / number for added, number in pairs) / 2
        loss.backward()
        total += loss.item()
    _finish(optimizer, 1.0)  # the rate changes every ten steps
    return total


def _pairs(training, network, optimizer, manifest, samples, step):
    """Four draws a step; five or three means over the pairs of each kind."""
    crops = LabelledCrops(samples, Truths(manifest, "train"), training.crops, 0)
    state = np.random.SeedSequence([0, step, 0]).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0]))
    items = [crops[key] for key in _draws(4 * step, 4 * step + 4)]
    images, labels = (torch.stack([item[n] for item in items]) for n in range(2))
    outputs = network(images.contiguous(memory_format=torch.channels_last))
    terms = training.terms(outputs, labels).values()
    loss = sum(added / max(int(number), 1) for added, number in terms)
    loss.backward()
    _finish(optimizer, (1 - step / 5) ** 0.9)
    return loss.item()


def _growing(training, network, optimizer, manifest, samples, step, kept={}):  # noqa: B006
    """Seeds stay grown; images are kept as they lie, whether they came mirrored or not."""
    if not step:
        kept.clear()
    crops = LabelledCrops(samples, Truths(manifest, "train"), training.crops, 0)
    draws = _draws(4 * step, 4 * step + 4)
    images, labels, _ = zip(*(crops[key] for key in draws), strict=True)
    torch.manual_seed(step)
    network.head.reseed(0, step)
    (logits,) = network(torch.stack(images).contiguous(memory_format=torch.channels_last))
    total, found = 0.0, {}
    for (draw, index), image, cues, own in zip(draws, images, labels, logits, strict=True):
        turned = np.random.default_rng([0, draw]).random() < 0.5
        grid = cues.numpy()[8::16, 8::16]
        if index in kept:
            grid = kept[index][:, ::-1] if turned else kept[index]
        h = (own.softmax(0) + 1e-4) / 1.0003
        q = _crf(image.numpy(), h.detach().numpy())
        one_hot = np.stack([grid == label for label in range(3)])
        present = [True, *(one in samples[index].tags for one in range(2))]
        grown = grid.copy()
        for label, y, x in growing_literal.grow(q, one_hot, present, 0.4, 0.4):
            grown[y, x] = label
        found[index] = grown[:, ::-1] if turned else grown
        sides = [torch.from_numpy(side) for side in (grown == 0, (grown > 0) & (grown < 255))]
        picked = h.gather(0, torch.from_numpy(np.where(grown == 255, 0, grown)).long()[None])[0]
        for side in sides:
            total = total - picked[side].log().sum() / max(int(side.sum()), 1) / 4
        # the boundary's value by loops; its gradient by the authors' formula, put in by hand
        held = h.detach().double().numpy()
        value = dsrg_literal.boundary_loss(held, q)
        slope = torch.from_numpy(dsrg_literal.boundary_gradient(held, q, True)).float()
        total = total + ((h - h.detach()) * slope).sum() / 4 + value / 4
    kept.update(found)
    total.backward()
    _finish(optimizer, 0.5 ** (step // 3))
    return total.item()


def _crf(image, h):
    """Q of an image of three cells a side, by a field of its own."""
    corners = [0, 23.5, 47]  # of the large image's 48 pixels, on a grid whose corners are its own
    rows = np.array([[1 - abs(c - i) if abs(c - i) < 1 else 0 for i in range(48)] for c in corners])
    mean, deviation = ([[[v]] for v in values] for values in
                       ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))  # fmt: skip
    levels = (rows @ image @ rows.T * np.array(deviation) + np.array(mean)) * 255
    pixels = np.rint(levels).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
    field = dcrf.DenseCRF2D(3, 3, 3)
    field.setUnaryEnergy(np.ascontiguousarray(-np.log(h).reshape(3, -1)))
    field.addPairwiseGaussian(sxy=0.25, compat=3)
    field.addPairwiseBilateral(sxy=80 / 12, srgb=13, rgbim=pixels.copy(order="C"), compat=10)
    return np.array(field.inference(10)).reshape(3, 3, 3)


def _objects(training, network, optimizer, manifest, samples, step):
    truths = TrueInstances if training.makes == "mask_rcnn" else GivenBoxes
    images = ObjectImages(samples, truths(manifest, "train"), True, 0)
    state = np.random.SeedSequence([0, step, 0]).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0]))
    planes, targets, _ = zip(*(images[key] for key in _draws(4 * step, 4 * step + 4)), strict=True)
    losses = network([one.float() / 255 for one in planes], list(targets))
    loss = sum(losses.values())
    loss.backward()
    warm = (1 / 3, 2 / 3, 1.0)[min(step, 2)]
    # of five steps, two thirds are three and eight ninths four
    _finish(optimizer, warm * (1, 1, 1, 0.1, 0.01)[step])
    return loss.item()
