"""The networks of a run: what they were trained on and how their training went."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rayseg.report.contents import Failure, number, reading_order
from rayseg.store import Folder, read_run

PAIR_NETWORKS = {"irnet": "IRNet", "affinity": "AffinityNet"}
"""Folders of networks that refiners work on, to what people call these."""
_Points = tuple[list[float], list[float]]


@dataclass(frozen=True)
class TrainedFolder:
    """A folder with a network that was trained on single images or objects.

    Attributes:
        name: such as ``segmenters/truth``.
        facts: its run.json; any of it may be missing.
    """

    name: str
    facts: Mapping[str, Any]

    @property
    def trained_on(self) -> str:
        """The labels that it was trained on: truth, or a folder of masks; boxes for a detector."""
        return self.name.partition("/")[2] or "boxes"

    @property
    def noun(self) -> str:
        """What it is, to people."""
        kinds = {"segmenters": "segmenter", "mask_rcnn": "Mask R-CNN", **PAIR_NETWORKS}
        return kinds.get(self.name.partition("/")[0], "detector")

    @property
    def done(self) -> bool:
        """Whether its training went to the end."""
        return bool(self.facts.get("done"))

    @property
    def images(self) -> float | None:
        """How many images it was trained on."""
        return number(self.facts.get("images"))

    @property
    def seconds(self) -> float | None:
        """Seconds of training."""
        return number(self.facts.get("seconds"))

    @property
    def left_out(self) -> int:
        """How many images, or boxes of an object network, were left out of training."""
        return int(number((self.facts.get("left_out") or {}).get("count")) or 0)

    @property
    def left_out_noun(self) -> str:
        """What was left out, to people."""
        return "image" if self.left_out == 1 else "images"

    @property
    def losses(self) -> _Points:
        """Iterations, and the mean loss since the entry before."""
        return self._points("curve", "loss")

    @property
    def iterations(self) -> int | None:
        """Iterations of training so far; None where that is not known."""
        return int(max(self.losses[0])) if self.losses[0] else None

    def _points(self, table: str, key: str) -> _Points:
        found = [
            (number(entry.get("iteration")), number(entry.get(key)))
            for entry in self.facts.get(table) or []
        ]
        known = [(x, y) for x, y in found if x is not None and y is not None]
        return [x for x, _ in known], [y for _, y in known]

    def failures(self) -> list[Failure]:
        """The first of what was left out of training, by its image, with the reason."""
        examples = (self.facts.get("left_out") or {}).get("examples") or []
        return [Failure(item["id"], "left out", item["reason"], (self.name,)) for item in examples]


class TrainedSegmenter(TrainedFolder):
    """A folder with a segmenter."""

    @property
    def predictions(self) -> str:
        """The folder of its predictions."""
        return f"predictions/{self.trained_on}"

    @property
    def mious(self) -> _Points:
        """Iterations at which it was judged, and the mean IoU."""
        return self._points("judged", "miou")


class PairNetwork(TrainedFolder):
    """A folder with an IRNet or an AffinityNet."""

    @property
    def accuracies(self) -> _Points:
        """Iterations at which it was judged, and the share of correctly classified pairs."""
        return self._points("judged", "accuracy")


class ObjectNetwork(TrainedFolder):
    """A folder with a detector or a Mask R-CNN."""

    @property
    def left_out_noun(self) -> str:
        """What was left out, to people."""
        return "box" if self.left_out == 1 else "boxes"

    @property
    def precisions(self) -> _Points:
        """Iterations at which it was judged, and AP50.

        A detector's is of boxes, a Mask R-CNN's of masks; of boxes where no true mask is known.
        """
        found = self._points("judged", "ap50")
        return found if found[0] else self._points("judged", "box_ap50")

    @property
    def last_judged(self) -> dict[str, float]:
        """Its figures when it was judged last, by their names, and the number of images."""
        entries = [entry for entry in self.facts.get("judged") or [] if entry]
        found = {key: number(value) for key, value in (entries[-1] if entries else {}).items()}
        return {key: value for key, value in found.items() if value is not None}


def read_detector(run: Folder) -> ObjectNetwork | None:
    """The run's own detector; None where it has none."""
    facts = read_run(run / "detector")
    return ObjectNetwork("detector", facts) if facts else None


def read_mask_rcnns(run: Folder) -> list[ObjectNetwork]:
    """All Mask R-CNNs, the one trained on truth first."""
    names = [f"mask_rcnn/{name}" for name in (run / "mask_rcnn").folders()]
    return [ObjectNetwork(name, read_run(run / name)) for name in sorted(names, key=reading_order)]


def read_pair_networks(run: Folder) -> list[PairNetwork]:
    """All networks that refiners work on."""
    names = [f"{kind}/{name}" for kind in PAIR_NETWORKS for name in sorted((run / kind).folders())]
    return [PairNetwork(one, read_run(run / one)) for one in names]


def read_segmenters(run: Folder) -> list[TrainedSegmenter]:
    """All segmenters, the one trained on truth first."""
    names = [f"segmenters/{name}" for name in (run / "segmenters").folders()]
    return [TrainedSegmenter(one, read_run(run / one)) for one in sorted(names, key=reading_order)]


def judged_images(trainings: Iterable[TrainedFolder]) -> int:
    """The most images that any network was judged on during training."""
    entries = (entry for one in trainings for entry in one.facts.get("judged") or [])
    return int(max((number(entry.get("images")) or 0 for entry in entries), default=0))
