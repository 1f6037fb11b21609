"""The CRFs a second time, slow and literal.

IRN's steps with a field of its own for each call, and mean field over all pairs of pixels in
float64.
"""

import numpy as np
import pydensecrf.densecrf as dcrf
from pydensecrf.utils import unary_from_labels


def crf_inference_label(image, labels, n_labels, iterations=10, gt_prob=0.7):
    h, w = image.shape[:2]
    field = dcrf.DenseCRF2D(w, h, n_labels)
    field.setUnaryEnergy(unary_from_labels(labels, n_labels, gt_prob, zero_unsure=False))
    field.addPairwiseGaussian(sxy=3, compat=3)
    field.addPairwiseBilateral(sxy=50, srgb=5, rgbim=image.copy(order="C"), compat=10)
    return np.argmax(np.array(field.inference(iterations)), axis=0).reshape(h, w)


def cam_to_ir_label(image, maps, classes, fg_threshold, bg_threshold):
    keys = np.pad(np.array(classes, int) + 1, (1, 0))
    confident = []
    for threshold in (fg_threshold, bg_threshold):
        padded = np.pad(maps, ((1, 0), (0, 0), (0, 0)), constant_values=threshold)
        refined = crf_inference_label(image, np.argmax(padded, axis=0), len(keys))
        confident.append(keys[refined])
    strict, lax = confident
    out = strict.copy()
    out[strict == 0] = 255
    out[lax + strict == 0] = 0
    return out.astype(np.uint8)


def psa_label(image, maps, classes, low_alpha, high_alpha):
    """infer_cls.py's two CRFs, each with a field of its own, and data.py's label of both."""
    h, w = image.shape[:2]
    keys = np.pad(np.array(classes, int) + 1, (1, 0))
    winners = []
    for alpha in (low_alpha, high_alpha):
        scores = np.concatenate([((1 - maps.max(0)) ** alpha)[None], maps])
        field = dcrf.DenseCRF2D(w, h, len(keys))
        energies = -np.log(np.clip(scores / scores.sum(0), 1e-5, 1)).reshape(len(keys), -1)
        field.setUnaryEnergy(np.ascontiguousarray(energies, np.float32))
        field.addPairwiseGaussian(sxy=3, compat=3)
        field.addPairwiseBilateral(sxy=80, srgb=13, rgbim=image.copy(order="C"), compat=10)
        winners.append(np.argmax(np.array(field.inference(10)), 0).reshape(h, w))
    low, high = winners
    out = keys[low]
    out[low == 0] = 255
    out[high == 0] = 0
    return out.astype(np.uint8)


def kernel(features):
    """exp(-|f_i - f_j|^2 / 2) over all pairs, normalised from both sides as pydensecrf does."""
    distance = ((features[:, None] - features[None]) ** 2).sum(-1)
    weights = np.exp(-distance / 2)
    norm = 1 / np.sqrt(weights.sum(1))
    return norm[:, None] * weights * norm[None]


def mean_field(image, unary, iterations, sxy, compat, bi_sxy, bi_srgb, bi_compat):
    """Krähenbühl and Koltun's algorithm 1 without any lattice; unary (l, h*w) -> the same shape."""
    h, w = image.shape[:2]
    rows, columns = np.mgrid[:h, :w].astype(float)
    position = np.stack([columns.ravel(), rows.ravel()], 1)
    colour = image.reshape(-1, 3).astype(float)
    smooth = kernel(position / sxy)
    look = kernel(np.concatenate([position / bi_sxy, colour / bi_srgb], 1))
    q = np.exp(-unary.astype(float))
    q /= q.sum(0)
    for _ in range(iterations):
        energy = -unary + compat * q @ smooth + bi_compat * q @ look
        q = np.exp(energy - energy.max(0))
        q /= q.sum(0)
    return q
