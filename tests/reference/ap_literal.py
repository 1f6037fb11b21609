"""Average precision a second time: sets of pixels, one threshold, class and size after another."""

import numpy as np

# Not i / 100: a recall of 7 / 10 does not reach the .7000000000000001 of pycocotools.
RECALLS = np.linspace(0, 1, 101).tolist()


def pixels(mask):
    return {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}


def overlap(found, true, crowd):
    """Of two sets of pixels: shared over union, or over the found one where a crowd is true."""
    shared = len(found & true)
    whole = len(found) if crowd else len(found | true)
    return shared / whole if whole else 0.0


def hits(truths, guesses, threshold, low, high):
    """What becomes of each guess of an image and a class: 'hit', 'false' or 'out'; and how many
    truths count.

    Args:
        truths: dicts of pixels (set), area, ignored, crowd.
        guesses: dicts of pixels, area, score.
    """
    out = [t["ignored"] or t["crowd"] or not low <= t["area"] <= high for t in truths]
    taken = [False] * len(truths)
    verdicts = []
    for guess in sorted(guesses, key=lambda g: -g["score"]):
        ious = [overlap(guess["pixels"], t["pixels"], t["crowd"]) for t in truths]
        free = [i for i, iou in enumerate(ious) if iou >= threshold and not taken[i]]
        counted = [i for i in free if not out[i]]
        choice = max(counted or free, key=lambda i: (ious[i], i), default=None)
        if choice is None:
            verdict = "false" if low <= guess["area"] <= high else "out"
        else:
            verdict = "out" if out[choice] else "hit"
            taken[choice] = not (truths[choice]["ignored"] or truths[choice]["crowd"])
        verdicts.append((guess["score"], verdict))
    return verdicts, out.count(False)


def precision(images, threshold, low=0, high=10**10):
    """AP of one class, None where no truth counts; images are pairs of truths and guesses."""
    verdicts, number = [], 0
    for truths, guesses in images:
        own, counted = hits(truths, guesses, threshold, low, high)
        verdicts += own
        number += counted
    if not number:
        return None
    curve, true, false = [], 0, 0
    for _, verdict in sorted(verdicts, key=lambda v: -v[0]):
        true += verdict == "hit"
        false += verdict == "false"
        curve.append((true / number, true / (true + false) if true + false else 0.0))
    return sum(
        max((p for recall, p in curve if recall >= wanted), default=0.0) for wanted in RECALLS
    ) / len(RECALLS)


def best_overlap(images_by_class):
    """Mean over classes of the mean over objects of the best overlap with any guess."""
    means = []
    for images in images_by_class:
        best = [
            max((overlap(g["pixels"], t["pixels"], False) for g in guesses), default=0.0)
            for truths, guesses in images
            for t in truths
            if not (t["ignored"] or t["crowd"])
        ]
        if best:
            means.append(sum(best) / len(best))
    return sum(means) / len(means) if means else None
