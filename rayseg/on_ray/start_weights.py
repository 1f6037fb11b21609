"""The weights that the trunk of a training starts from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from rayseg.config import DetectorConfig, MaskRCNNConfig, SegmenterConfig
from rayseg.nets.registry import NETWORKS
from rayseg.on_ray.bookkeeping import digest
from rayseg.store import Folder

T = TypeVar("T", DetectorConfig, MaskRCNNConfig, SegmenterConfig)


def start_of(run_folder: Folder, training: T) -> T:
    """The training with the path of the run's own classifier where it is to start from that.

    Raises:
        FileNotFoundError: the run has none.
    """
    if training.weights != "classifier":
        return training
    own, file = run_folder / "classifier", NETWORKS["classifier"].file
    if not own.exists(file):
        raise FileNotFoundError(f"{own} holds no {file}; run train-classifier first")
    return replace(training, weights=own.path(file))


def weights_identity(weights: str) -> dict[str, str]:
    """What a training follows from besides its settings: the digest of a file of weights.

    Empty for none and torchvision's names. A file has a suffix, whether it is local or remote.
    """
    return {"weights": digest(weights)} if Path(weights).suffix else {}
