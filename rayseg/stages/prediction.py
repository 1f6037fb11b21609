"""Labels of whole images by a segmenter, with a CRF after it or not."""

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from rayseg.nets.prediction import Prediction
from rayseg.networks import NETWORKS
from rayseg.records.palette import encode_labels
from rayseg.stages.rows import Row, Rows, choose_device, one_by_one, outcome, stack_pixels
from rayseg.store import local_copy

CRFOfImage = Callable[[UInt8[ndarray, "h w 3"], Float[ndarray, "l h w"]], UInt8[ndarray, "h w"]]

logger = logging.getLogger(__name__)


class PredictLabels:
    """Decoded rows to rows of MASKS_SCHEMA, by a segmenter.

    Args:
        for_crf: rows of PLANES_SCHEMA in place of masks: the probabilities of the labels that come
            to `min_probability` at some pixel, for `SmoothLabels`.
        min_probability: see above; a label that is nowhere likelier has next to no chance of a
            pixel, and each one left out saves the CRF its share of the time. 0 keeps all.

    Raises:
        ValueError: the weights are of another network or other classes.
    """

    def __init__(
        self,
        prediction: Prediction,
        weights: str,
        classes: Sequence[str],
        device: str = "auto",
        threads: int = 0,
        for_crf: bool = False,
        min_probability: float = 0.0,
    ):
        if threads:
            torch.set_num_threads(threads)
        self.prediction = prediction
        self.device = choose_device(device)
        network = NETWORKS[prediction.network_kind].load(local_copy(weights), classes)
        self.network = prediction.prepare(network, self.device)
        self.for_crf = for_crf
        self.min_probability = min_probability

    def __call__(self, rows: Rows) -> Rows:
        """Predicts the images one by one, since the planes of several would fill the memory.

        Raises:
            torch.AcceleratorError: the device is lost; no image is to blame.
        """
        return one_by_one(rows, self._predict, "prediction")

    def _predict(self, row: Row) -> Row:
        probabilities = self.prediction(self.network, stack_pixels([row]).to(self.device))[0]
        if not torch.isfinite(probabilities).all():
            raise FloatingPointError("probabilities must be finite, got nan or infinity")
        return self._planes(row, probabilities) if self.for_crf else _mask(probabilities)

    def _planes(self, row: Row, probabilities: Float[Tensor, "l h w"]) -> Row:
        peaks = probabilities.amax((1, 2))
        kept = (peaks >= min(self.min_probability, float(peaks.max()))).nonzero().flatten()
        chosen = probabilities[kept]
        planes = (chosen / chosen.sum(0)).half().cpu().numpy()
        return {"kept": kept.tolist(), "planes": planes.tobytes(), "pixels": row["pixels"]}


def _mask(probabilities: Float[Tensor, "l h w"]) -> Row:
    labels = probabilities.argmax(0).to(torch.uint8).cpu().numpy()
    return {"status": "ok", "labels": encode_labels(labels)}


class SmoothLabels:
    """Rows of PLANES_SCHEMA to rows of MASKS_SCHEMA, by a CRF."""

    def __init__(self, crf: CRFOfImage):
        self.crf = crf

    def __call__(self, rows: Rows) -> Rows:
        """One mask a row; a row without planes keeps its status and reason."""
        return [outcome(row) if row["status"] else self._smooth(row) for row in rows]

    def _smooth(self, row: Row) -> Row:
        start = time.perf_counter()
        size_hw = (row["height"], row["width"])
        image = np.frombuffer(row["pixels"], np.uint8).reshape(*size_hw, 3)
        planes = np.frombuffer(row["planes"], np.float16).reshape(-1, *size_hw)
        try:
            places = self.crf(image, planes.astype(np.float32))
        except Exception as error:
            logger.warning("no CRF for %s: %s", row["id"], error)
            return outcome(row, f"{type(error).__name__}: {error}")
        labels = np.array(row["kept"], np.uint8)[places]
        seconds = row["seconds"] + time.perf_counter() - start
        made = {"status": "ok", "labels": encode_labels(labels), "seconds": seconds}
        return outcome(row) | made
