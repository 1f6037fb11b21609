"""Which weights a job works with: those that are given, or the run's own."""

from collections.abc import Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from rayseg.config import AskDetectorConfig, MakeSeedsConfig
from rayseg.learn import Training, fingerprint
from rayseg.networks import NETWORKS
from rayseg.steps.sources import digest
from rayseg.store import Folder, Manifest, read_run

T = TypeVar("T", bound=Any)


def own_weights(
    run_folder: Folder, kind: str, given: str = "", flag: str = "", labels: str = ""
) -> str:
    """The weights of that kind of network: those given, else the run's own.

    Args:
        kind: a key of NETWORKS, of which a run has one.
        given: an address, or empty.
        flag: that gives one, for the error.
        labels: that it was trained on, where the run has one for each.
    """
    network = NETWORKS[kind]
    own, trained_on = run_folder / network.place, f" --labels {labels}" if labels else ""
    own = own / labels if labels else own
    if not given and not own.exists(network.file):
        otherwise = f", or name one by {flag}" if flag else ""
        raise FileNotFoundError(
            f"{own} holds no {network.file}; make it with "
            f"`rayseg {network.job} --run {run_folder}{trained_on}`{otherwise}"
        )
    address = given or own.path(network.file)
    return address if "://" in address else str(Path(address).absolute())


def find_weights(config: MakeSeedsConfig, kind: str) -> str:
    """The weights of a kind of network that methods work on; see `own_weights`."""
    given = config.given_weights.get(kind, "")
    return own_weights(Folder(config.run), kind, given)


@dataclass(frozen=True)
class ChosenDetector:
    """The detector of a job.

    Attributes:
        address: of its weights.
        classes: its class names; empty where they are the run's.
    """

    address: str
    classes: tuple[str, ...]


def choose_detector(config: AskDetectorConfig) -> ChosenDetector:
    """The detector that is asked for, else the run's own."""
    given = config.detector_weights
    address = own_weights(Folder(config.run), "detector", given, "--detector-weights")
    return ChosenDetector(address, config.classes_of_detector(address))


def start_of(run_folder: Folder, training: T) -> T:
    """The training with the path of the run's own classifier where it is to start from that."""
    if training.weights != "classifier":
        return training
    return replace(training, weights=own_weights(run_folder, "classifier"))


def refuse_failing(label: str, training: Training, folder: Folder) -> None:
    """Refuses a network that has learnt nothing, before hours are spent on what it says.

    Raises:
        ValueError: the text says what it reached, what to change, and how to go on all the same.
    """
    network = NETWORKS[training.makes]
    if failing := training.failing(read_run(folder)):
        raise ValueError(
            f"{label}: {failing}, once {folder} is deleted; to go on with it all the same, "
            f"--{network.given_as.replace('_', '-')} {folder.path(network.file)}"
        )


def absolute_weights(weights: str) -> str:
    """The same weights for workers, which start in another folder."""
    return str(Path(weights).absolute()) if Path(weights).is_file() else weights


def weights_identity(weights: str) -> dict[str, str]:
    """What a training follows from besides its settings: the digest of a file of weights.

    Empty for none and torchvision's names. A file has a suffix, whether it is local or remote.
    """
    return {"weights": digest(weights)} if Path(weights).suffix else {}


def images_identity(images: Manifest, labelled: Set[str]) -> dict[str, Any]:
    """What a training follows from besides settings and what made its labels: its images.

    A folder that was trained before this was recorded is refused, not trained anew: the hours that
    it took are not thrown away unasked.

    Args:
        images: of the split that is trained on.
        labelled: ids of the images that have labels, of whatever split.
    """
    ids = [id_ for id_ in images.table.column("id").to_pylist() if id_ in labelled]
    return {"trained_on": {"images": len(ids), "list": fingerprint(ids)}}
