"""A run to look at from Python: its images, maps, masks and scores, read when they are asked for.

Nothing is written to the run, and no job on it is disturbed. What is held of an image is its row of
the manifest; pixels are held by whoever asked for them.
"""

import os
from collections.abc import Mapping
from typing import Any

from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from rayseg.api.opened import Opened
from rayseg.api.views import Masks, RunImages, SeedMaps
from rayseg.config.job_list import JOBS
from rayseg.records.images import decode_image
from rayseg.records.painting import painted
from rayseg.report.contents import read_scores
from rayseg.store import Folder, read_file


class Run(Opened):
    """A run's folder, finished or not; see `open_run`."""

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {len(self.places)} images, classes {self.classes})"

    @property
    def images(self) -> RunImages:
        """The images as `Sample` records, by id or place, in the order of the manifest."""
        return RunImages(self)

    def masks(self, name: str = "") -> Masks:
        """The masks of a folder, by id or place.

        Args:
            name: such as ``advcam+label_crf``, or ``predictions/advcam+label_crf``; where the run
                has one folder of masks only, it may be left out.

        Raises:
            ValueError: there is no such folder; the text lists those that there are.
        """
        return Masks(self, self._place("masks", name))

    def seeds(self, name: str = "") -> SeedMaps:
        """The localization maps of a method, by id or place.

        Raises:
            ValueError: there are none of that name; the text lists those that there are.
        """
        return SeedMaps(self, self._place("seeds", name))

    @property
    def scores(self) -> dict[str, Mapping[str, Any]]:
        """Figures by folder, such as ``masks/advcam+label_crf``; empty where none are scored.

        They are those of scores.json: ``miou`` is the mean intersection over union, in [0, 1].
        """
        return {one.name: one.facts for one in read_scores(self.folder)}

    def status(self) -> str:
        """How far each folder of the run is and why images failed, a line each."""
        job = JOBS["status"]
        return "\n".join(job.run(job.config(run=self.folder.location)).lines)

    def photo(self, id_: str) -> UInt8[ndarray, "h w 3"]:
        """The photograph as a viewer shows it, RGB.

        Raises:
            ValueError: it cannot be read.
        """
        sample = self.sample(id_)
        side = max(sample.photo_hw) if sample.seen_side else 0
        return decode_image(read_file(sample.path), side, min_side=1).pixels

    def overlay(self, id_: str, masks: Masks) -> Image.Image:
        """The photograph with its mask on it: classes in VOC's colours, undecided pixels hatched.

        Raises:
            NoResultError: the image has no mask.
            ValueError: its file cannot be read.
        """
        return Image.fromarray(painted(self.photo(id_), masks[id_]))

    def _place(self, kind: str, name: str) -> str:
        if "/" in name:
            return name
        if name:
            return f"{kind}/{name}"
        there = self.names(kind)
        if len(there) != 1:
            known = ", ".join(there) or "none"
            raise ValueError(f"name must be one of the run's {kind}, which are: {known}")
        return f"{kind}/{there[0]}"


def open_run(path: str | os.PathLike[str]) -> Run:
    """Opens a run to look at; nothing is written to it, and a job at work on it goes on.

    Args:
        path: the run's folder, as ``rayseg run --run`` had it: a local path or a URI.

    Raises:
        ValueError: there is no run.
    """
    run = Run(Folder(os.fspath(path)))
    try:
        _ = run.places
    except FileNotFoundError:
        raise ValueError(
            f"{run.folder} holds no run; `rayseg run --run {os.fspath(path)}` makes one"
        ) from None
    return run
