"""Kinds of networks that a run holds: the one list of them, which loads none.

What each is trained by is in `rayseg.learn.TRAININGS` under the same name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any


@dataclass(frozen=True)
class NetworkKind:
    """One kind of network.

    Attributes:
        kind: its name, which is that of its file and of the command that trains it.
        loader: module and function that open such a file, as ``module:function``; imported only
            when it is called.
        noun: what a user calls it.
        folder: of the run that holds it; empty is its name.
        by_labels: the run has one for each of the labels that are learnt from, in a folder each.
        job_in_words: what the command that trains it does.
        as_kind: the kind that it is once it is trained; empty is its own.
        ending: of the names of its folders, behind that of the labels.
    """

    kind: str
    loader: str
    noun: str
    job_in_words: str
    folder: str = ""
    by_labels: bool = False
    as_kind: str = ""
    ending: str = ""

    @property
    def file(self) -> str:
        """Name of the file of weights in its folder."""
        return f"{self.as_kind or self.kind}.safetensors"

    @property
    def place(self) -> str:
        """The folder of the run that holds it, or folders of it."""
        return self.folder or self.kind

    @property
    def job(self) -> str:
        """The command that trains it."""
        return f"train-{self.kind.replace('_', '-')}"

    @property
    def given_as(self) -> str:
        """The field of a job's configuration that names another file."""
        return "weights" if self.kind == "classifier" else f"{self.kind}_weights"

    def load(self, path: str, classes: Sequence[str] | None = None) -> Any:
        """The network of a local file, in eval mode."""
        return resolve_name(self.loader)(path, classes)


NETWORKS: dict[str, NetworkKind] = {
    network.kind: network
    for network in (
        NetworkKind(
            "classifier",
            "rayseg.nets.classifier:load_classifier",
            "classifier",
            "Trains the classifier on the tags of one split.",
        ),
        NetworkKind(
            "ficklenet",
            "rayseg.nets.ficklenet:load_ficklenet",
            "FickleNet",
            "Trains FickleNet's network on the tags of one split.",
        ),
        NetworkKind(
            "irnet",
            "rayseg.nets.irnet:load_irnet",
            "IRNet",
            "Trains IRNet, which finds class boundaries, on masks of one split.",
            by_labels=True,
        ),
        NetworkKind(
            "affinity",
            "rayseg.nets.affinity:load_affinity",
            "AffinityNet",
            "Trains AffinityNet, PSA's network, on masks of one split.",
            by_labels=True,
        ),
        NetworkKind(
            "seam", "rayseg.nets.seam:load_seam", "SEAM", "Trains SEAM on the tags of one split."
        ),
        NetworkKind(
            "detector",
            "rayseg.nets.detectors:load_detector",
            "detector",
            "Trains the detector on the boxes of one split.",
        ),
        NetworkKind(
            "segmenter",
            "rayseg.nets.deeplab:load_segmenter",
            "segmenter",
            "Trains a segmenter on masks of one split, pseudo or true.",
            "segmenters",
            by_labels=True,
        ),
        NetworkKind(
            "dsrg",
            "rayseg.nets.deeplab:load_segmenter",
            "segmenter",
            "Trains a segmenter by DSRG: its labels grow from seeds, or from masks of few pixels.",
            "segmenters",
            by_labels=True,
            as_kind="segmenter",
            ending="+dsrg",
        ),
        NetworkKind(
            "mask_rcnn",
            "rayseg.nets.detectors.mask_rcnn:load_mask_rcnn",
            "Mask R-CNN",
            "Trains a Mask R-CNN on masks of objects of one split, pseudo or true.",
            by_labels=True,
        ),
    )
}
"""By name, each after what it may start from."""
