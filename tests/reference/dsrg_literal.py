"""DSRG's losses a second time, cell by cell in float64, and the gradient of the authors' layers."""

import numpy as np


def probabilities(logits):
    """H of one image: softmax, plus 1e-4, divided by the sum; (l, h, w)."""
    found = np.zeros(logits.shape)
    number, height, width = logits.shape
    for y in range(height):
        for x in range(width):
            powers = [np.exp(logits[c, y, x]) for c in range(number)]
            raised = [one / sum(powers) + 1e-4 for one in powers]
            for c in range(number):
                found[c, y, x] = raised[c] / sum(raised)
    return found


def seed_loss(h, seeds):
    """Eq. 2.3 for one image; 255 is no seed."""
    total = 0.0
    for is_side in (lambda label: label == 0, lambda label: 0 < label < 255):
        cells = [cell for cell in np.ndindex(*seeds.shape) if is_side(seeds[cell])]
        total += -sum(np.log(h[(seeds[cell], *cell)]) for cell in cells) / max(len(cells), 1)
    return total


def boundary_loss(h, q, seeds=None):
    """Mean over the cells, or Eq. 2.4 over the seeds of foreground, for one image."""
    total = 0.0
    for cell in np.ndindex(*h.shape[1:]):
        for c in range(len(h)):
            if seeds is not None and not 0 < seeds[cell] == c:
                continue
            ratio = min(max(q[(c, *cell)] / h[(c, *cell)], 0.05), 20.0)
            total += q[(c, *cell)] * np.log(ratio)
    return total / h[0].size if seeds is None else total


def boundary_gradient(h, q, through_crf):
    """Of the mean over the cells with regard to H.

    As the authors' two layers pass it on: the loss gives a gradient to H and one to log Q; the CRF
    multiplies that by 1 - Q and divides it by H.
    """
    found = np.zeros(h.shape)
    for place in np.ndindex(*h.shape):
        ratio = q[place] / h[place]
        inside = 0.05 <= ratio <= 20.0
        of_h = -ratio if inside else 0.0
        of_log_q = q[place] * (np.log(min(max(ratio, 0.05), 20.0)) + (1.0 if inside else 0.0))
        found[place] = of_h + ((1 - q[place]) * of_log_q / h[place] if through_crf else 0.0)
    return found / h[0].size
