"""The true objects of images, as networks are judged by them."""

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from rayseg.labels.masks import Truths
from rayseg.records import Sample
from rayseg.records.rle import encode_mask
from rayseg.scores import ObjectTruths
from rayseg.store import Manifest

logger = logging.getLogger(__name__)


def true_instances(manifest: Manifest) -> dict[str, ObjectTruths]:
    """The true objects of a manifest's images, with their masks where it has them.

    An image whose labels cannot be read has no masks: which pixels they ignore is not known.
    """
    labels = Truths(manifest)
    with ThreadPoolExecutor(max_workers=8) as pool:  # a remote store answers slowly
        found = pool.map(partial(_true_of, labels), manifest.samples())
        return dict(zip(manifest.table.column("id").to_pylist(), found, strict=True))


def _true_of(labels: Truths, sample: Sample) -> ObjectTruths:
    masks, counted = sample.true_masks, b""
    try:
        counted = _counted(labels, sample) if any(masks) else b""
    except (ValueError, OSError) as error:
        logger.warning("no true masks of %s: %s", sample.id, error)
        masks = ()
    return ObjectTruths(
        size_hw=(sample.height, sample.width),
        boxes_xyxy=sample.boxes_xyxy,
        classes=sample.box_classes,
        ignored=_marked((*sample.difficult, *sample.crowds), len(sample.box_classes)),
        crowd=_marked(sample.crowds, len(sample.box_classes)),
        masks=masks,
        counted=counted,
    )


def _counted(labels: Truths, sample: Sample) -> bytes:
    """Counts of the pixels that masks are judged by; empty where that is all."""
    counted = labels.counted(sample.id, (sample.height, sample.width), sample.crowds)
    return b"" if counted.all() else encode_mask(counted)


def _marked(places: tuple[int, ...], number: int) -> np.ndarray:
    marks = np.zeros(number, bool)
    marks[list(places)] = True
    return marks
