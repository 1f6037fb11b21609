"""The weights that the trunk of a training starts from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from rayseg.learn import ClassifierTraining, Training
from rayseg.steps.sources import digest
from rayseg.store import Folder

T = TypeVar("T", bound=Training)


def start_of(run_folder: Folder, training: T) -> T:
    """The training with the path of the run's own classifier where it is to start from that.

    Raises:
        FileNotFoundError: the run has none.
    """
    if training.weights != "classifier":
        return training
    own, file = run_folder / ClassifierTraining.place, f"{ClassifierTraining.makes}.safetensors"
    if not own.exists(file):
        raise FileNotFoundError(f"{own} holds no {file}; run train-classifier first")
    return replace(training, weights=own.path(file))


def absolute_weights(weights: str) -> str:
    """The same weights for workers, which start in another folder."""
    return str(Path(weights).absolute()) if Path(weights).is_file() else weights


def weights_identity(weights: str) -> dict[str, str]:
    """What a training follows from besides its settings: the digest of a file of weights.

    Empty for none and torchvision's names. A file has a suffix, whether it is local or remote.
    """
    return {"weights": digest(weights)} if Path(weights).suffix else {}
