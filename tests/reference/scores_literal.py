"""Scores a second time, one pixel at a time and with fractions instead of arrays."""

from fractions import Fraction

import numpy as np


def confusion(truth, predicted, num_classes):
    counts = [[0] * (num_classes + 1) for _ in range(num_classes + 1)]
    for row in range(truth.shape[0]):
        for column in range(truth.shape[1]):
            true, found = int(truth[row, column]), int(predicted[row, column])
            if true == 255:
                continue
            counts[true][0 if found == 255 else found] += 1
    return counts


def ratios(counts, label):
    """IoU, precision, recall and F1 of a label as fractions, None where it was never seen."""
    side = range(len(counts))
    hit = counts[label][label]
    missed = sum(counts[label][other] for other in side if other != label)
    false = sum(counts[other][label] for other in side if other != label)
    if hit + missed + false == 0:
        return None
    precision = Fraction(hit, hit + false) if hit + false else Fraction(0)
    recall = Fraction(hit, hit + missed) if hit + missed else Fraction(0)
    total = precision + recall
    f1 = 2 * precision * recall / total if total else Fraction(0)
    return Fraction(hit, hit + missed + false), precision, recall, f1


def mean_iou(counts, labels):
    known = [ratios(counts, label)[0] for label in labels if ratios(counts, label) is not None]
    return float(sum(known) / len(known)) if known else None


def predict(maps, classes, threshold):
    """IRN's eval_cam: pad with the threshold, argmax, look the label up."""
    padded = np.pad(maps, ((1, 0), (0, 0), (0, 0)), constant_values=threshold)
    keys = np.pad(np.array(classes, int) + 1, (1, 0))
    return keys[np.argmax(padded, axis=0)]


def region_sizes(truths, label):
    """Pixels of the label in each image that holds it."""
    sizes = [int((truth == label).sum()) for truth in truths]
    return [size for size in sizes if size]


def band(size, small, medium):
    if size < small:
        return "small"
    return "medium" if size < medium else "large"
