"""Kinds of networks that a run holds: where each lies, what opens it, what makes it."""

from __future__ import annotations

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
        folder: of the run that holds it, or one folder for each source of labels.
        by_labels: whether a run has one for each source of labels.
        given_as: the field of a job's configuration that names another file; empty without one.
    """

    kind: str
    loader: str
    folder: str
    by_labels: bool = False
    given_as: str = ""

    @property
    def file(self) -> str:
        """Name of the file of weights in its folder."""
        return f"{self.kind}.safetensors"

    @property
    def job(self) -> str:
        """The command that trains it."""
        return f"train-{self.kind.replace('_', '-')}"

    def load(self, path: str, classes: Sequence[str] | None = None) -> Any:
        """The network of a local file, in eval mode.

        Args:
            path: the file.
            classes: names that it must have been trained on; None takes any.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file holds another network, or one of other classes.
        """
        return resolve_name(self.loader)(path, classes)


def _kind(kind: str, loader: str, folder: str = "", **known: Any) -> dict[str, NetworkKind]:
    return {kind: NetworkKind(kind, f"rayseg.nets.{loader}", folder or kind, **known)}


NETWORKS: dict[str, NetworkKind] = {
    **_kind("classifier", "classifier:load_classifier", given_as="weights"),
    **_kind("ficklenet", "ficklenet:load_ficklenet", given_as="ficklenet_weights"),
    **_kind("detector", "detectors:load_detector", given_as="detector_weights"),
    **_kind("segmenter", "deeplab:load_segmenter", "segmenters", by_labels=True),
    **_kind("mask_rcnn", "detectors.mask_rcnn:load_mask_rcnn", by_labels=True),
}
"""The only list of kinds of networks."""
