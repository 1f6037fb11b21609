"""The report of a run: one HTML page that needs nothing but itself."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rayseg.records.progress import read_progress
from rayseg.report import figures, wording
from rayseg.report.contents import (
    MAX_FAILURES,
    PREDICTED,
    FolderSummary,
    Score,
    bad_truths,
    final_instances,
    final_objects,
    final_prediction,
    final_score,
    merge_failures,
    merge_notes,
    number,
    read_scores,
    read_stages,
)
from rayseg.report.gallery import Gallery, load_gallery
from rayseg.report.headline import INSTANCE_MEANS, OBJECT_MEANS, ScoreTable
from rayseg.report.instances import MIN_SCORE
from rayseg.report.segmenters import (
    ObjectNetwork,
    PairNetwork,
    TrainedFolder,
    TrainedSegmenter,
    judged_images,
    read_detector,
    read_mask_rcnns,
    read_pair_networks,
    read_segmenters,
)
from rayseg.report.suspects import read_suspects
from rayseg.store import Folder, Manifest, read_manifest, read_run

MAX_PICTURE_CHARACTERS = 4_500_000
"""Pictures beyond it are left out, so that the page stays under 6 MB and opens on a phone."""
PREDICTED_SHARE = 0.4
"""Of the room for pictures, what predictions may take; what they leave goes to seeds and masks."""


def write_report(
    run: Folder, split: str = "train", max_images: int = 12, val_split: str = "val"
) -> str:
    """Writes ``report.html`` into the run folder and returns its address.

    Whatever the folder lacks is named on the page instead.

    Args:
        split: images shown with seeds and masks are of it; empty means all.
        max_images: how many images to show of each split, besides the best and the worst.
        val_split: images shown with the segmenters' predictions are of it; empty means all.

    Raises:
        OSError: the folder cannot be written to.
    """
    context = _Contents.of(run).context(split, val_split, max_images)
    page = _environment().get_template("page.html").render(context)
    run.write("report.html", page.encode())
    return run.path("report.html")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("percent", "fixed", "amount", "span"):
        environment.filters[name] = getattr(wording, name)
    return environment


@dataclass(frozen=True)
class _Contents:
    """All of a run folder that the page is made of."""

    run: Folder
    manifest: Manifest | None
    classifier: dict[str, Any]
    scores: list[Score]
    stages: list[FolderSummary]
    segmenters: list[TrainedSegmenter]
    detector: ObjectNetwork | None
    mask_rcnns: list[ObjectNetwork]
    pair_networks: list[PairNetwork]

    @classmethod
    def of(cls, run: Folder) -> Self:
        """Reads the folder."""
        manifest = (
            read_manifest(run / "manifest") if run.exists("manifest/manifest.parquet") else None
        )
        classifier = read_run(run / "classifier")
        return cls(
            run,
            manifest,
            classifier,
            read_scores(run),
            read_stages(run),
            read_segmenters(run),
            read_detector(run),
            read_mask_rcnns(run),
            read_pair_networks(run),
        )

    def context(self, split: str, val_split: str, max_images: int) -> dict[str, Any]:
        """What the page's template is filled with."""
        labels, predictions = _tables(self.scores)
        return {
            "title": self.run.location.rstrip("/").rpartition("/")[2],
            "manifest": self.manifest,
            "split": split,
            "total": _count_split(self.manifest, split),
            "val_split": val_split,
            "val_total": _count_split(self.manifest, val_split),
            "sentence": wording.summarize(self.scores),
            "labels": labels,
            "suspects": read_suspects(self.run),
            "predictions": predictions,
            **self._galleries(labels, predictions, split, val_split, max_images),
            "drawings": _drawings(labels, predictions, self.classifier, self.segmenters),
            "stages": self._made,
            "predicted": self._predicted,
            "pair_networks": self.pair_networks,
            "pair_curves": _pair_curves(self.pair_networks),
            "segmenters": self.segmenters,
            "series": _series(predictions, self.segmenters),
            "judged_images": judged_images(self.segmenters),
            **self._of_objects(),
            "trainings": self._trainings,
            "failed": len(frozenset().union(*(stage.failed_ids for stage in self.stages))),
            "failures": merge_failures(
                [
                    *(failure for stage in self.stages for failure in stage.failures),
                    *(failure for score in self.scores for failure in bad_truths(score)),
                    *(failure for one in self._trainings for failure in one.failures()),
                ]
            ),
            "max_failures": MAX_FAILURES,
            "notes": merge_notes(self.stages),
            "classifier_seconds": number(read_progress(self.classifier).seconds),
            "configurations": self._configurations(),
            "versions": _versions(self._facts().values()),
            "figures": figures,
        }

    def _of_objects(self) -> dict[str, Any]:
        """What the page says of boxes and single objects."""
        objects = _chosen(self.scores, "objects", final_objects, OBJECT_MEANS)
        instances = _chosen(self.scores, "instances", final_instances, INSTANCE_MEANS)
        counted = [stage for stage in self.stages if stage.kind == "box_maps" or stage.objects]
        parts = (objects.scores, instances.scores, counted, self.detector, self.mask_rcnns)
        return {
            "from_boxes": any(parts) or any(stage.kind == "instances" for stage in self.stages),
            "objects": objects,
            "instances": instances,
            "min_score": MIN_SCORE,
            "object_stages": counted,
            "detector": self.detector,
            "mask_rcnns": self.mask_rcnns,
            "mask_rcnn_series": {one.name: i for i, one in enumerate(self.mask_rcnns)},
            "mask_rcnn_images": judged_images(self.mask_rcnns),
            "object_drawings": _object_drawings(self.detector, self.mask_rcnns),
        }

    @property
    def _trainings(self) -> list[TrainedFolder]:
        """Whatever was trained on single images or objects, in the order of training."""
        first = [self.detector] if self.detector else []
        return [*first, *self.pair_networks, *self.segmenters, *self.mask_rcnns]

    def _galleries(
        self,
        labels: ScoreTable,
        predictions: ScoreTable,
        split: str,
        val_split: str,
        max_images: int,
    ) -> dict[str, Gallery]:
        """Predictions have a gallery of their own, as they are of other images."""
        val_gallery, room = Gallery(), MAX_PICTURE_CHARACTERS
        if self._predicted:
            val_gallery = load_gallery(
                self.run,
                self.manifest,
                val_split,
                max_images,
                predictions,
                self._predicted,
                int(PREDICTED_SHARE * room),
            )
            room -= val_gallery.weight
        gallery = load_gallery(self.run, self.manifest, split, max_images, labels, self._made, room)
        return {"gallery": gallery, "val_gallery": val_gallery}

    def _facts(self) -> dict[str, Mapping[str, Any]]:
        """Every run.json, in the order in which the parts are made."""
        return {
            "classifier": self.classifier,
            **({"detector": self.detector.facts} if self.detector else {}),
            **{one.name: one.facts for one in self.pair_networks},
            **{stage.name: stage.facts for stage in self._made},
            **{one.name: one.facts for one in (*self.segmenters, *self.mask_rcnns)},
            **{stage.name: stage.facts for stage in self._predicted},
        }

    @property
    def _made(self) -> list[FolderSummary]:
        return [stage for stage in self.stages if stage.kind not in PREDICTED]

    @property
    def _predicted(self) -> list[FolderSummary]:
        return [stage for stage in self.stages if stage.kind in PREDICTED]

    def _configurations(self) -> dict[str, str]:
        """The text of each configuration by what it configures."""
        run = self.run
        texts = {"run.toml": run.read("run.toml").decode()} if run.exists("run.toml") else {}
        return texts | {
            name: json.dumps(facts["config"], indent=2, ensure_ascii=False)
            for name, facts in self._facts().items()
            if facts.get("config")
        }


def _tables(scores: Sequence[Score]) -> tuple[ScoreTable, ScoreTable]:
    """The scores of seeds and masks, and those of predictions.

    The series of predictions begin at an even place: the page's colours come in pairs, and a
    segmenter has up to two entries, without and with CRF.
    """
    labels = tuple(score for score in scores if score.kind in ("seeds", "masks"))
    predictions = tuple(score for score in scores if score.kind == "predictions")
    start = len(labels) + len(labels) % 2
    return (
        ScoreTable(labels, final_score(scores)),
        ScoreTable(predictions, final_prediction(scores), start),
    )


def _chosen(
    scores: Sequence[Score],
    kind: str,
    final: Callable[[Sequence[Score]], Score | None],
    means: Mapping[str, tuple[str, ...]],
) -> ScoreTable:
    chosen = tuple(score for score in scores if score.kind == kind)
    return ScoreTable(chosen, final(chosen), means=means)


def _object_drawings(
    detector: ObjectNetwork | None, mask_rcnns: Sequence[ObjectNetwork]
) -> dict[str, str]:
    """Curves as inline SVG; empty where there is nothing to draw."""
    trained = [(i, one) for i, one in enumerate(mask_rcnns) if one.losses[0]]
    places, drawn = [i for i, _ in trained], [one for _, one in trained]
    own = [detector] if detector and detector.losses[0] else []
    return {
        "detector": figures.object_curves(own, [1], "the detector") if own else "",
        "mask_rcnns": figures.object_curves(drawn, places, "the Mask R-CNNs") if drawn else "",
    }


def _pair_curves(networks: Sequence[PairNetwork]) -> str:
    return figures.pair_curves(networks) if any(one.losses[0] for one in networks) else ""


def _series(predictions: ScoreTable, segmenters: Sequence[TrainedSegmenter]) -> dict[str, int]:
    """Each segmenter's place in the series: that of its predictions, or one after them all."""
    names = [score.name for score in predictions.scores]
    names += [one.predictions for one in segmenters if one.predictions not in names]
    return {one.name: predictions.start + names.index(one.predictions) for one in segmenters}


def _count_split(manifest: Manifest | None, split: str) -> int:
    if manifest is None:
        return 0
    splits = manifest.table.column("split").to_pylist()
    return splits.count(split) if split else len(splits)


@dataclass(frozen=True)
class Drawings:
    """The page's figures as inline SVG; empty where there is nothing to draw."""

    classes: str = ""
    classes_left_out: tuple[str, ...] = ()
    predicted_classes: str = ""
    predicted_left_out: tuple[str, ...] = ()
    thresholds: str = ""
    sizes: str = ""
    classifier: str = ""
    training: str = ""

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return any(value for name, value in vars(self).items() if not name.endswith("left_out"))


def _drawings(
    labels: ScoreTable,
    predictions: ScoreTable,
    classifier: dict[str, Any],
    segmenters: Sequence[TrainedSegmenter],
) -> Drawings:
    drawn: dict[str, Any] = {}
    if labels.final and labels.labels:
        drawn["classes"], left_out = figures.class_bars(labels.scores, labels.final)
        drawn["classes_left_out"] = tuple(left_out)
    if predictions.final and predictions.labels:
        drawn["predicted_classes"], left_out = figures.class_bars(
            predictions.scores,
            predictions.final,
            predictions.start,
            "IoU of each class by what the segmenter was trained on",
        )
        drawn["predicted_left_out"] = tuple(left_out)
    if any(score.part("sweep") for score in labels.scores):
        drawn["thresholds"] = figures.threshold_curve(labels.scores)
    if figures.known_sizes(labels.scores):
        drawn["sizes"] = figures.size_bars(labels.scores)
    progress = read_progress(classifier)
    if progress.curve:
        drawn["classifier"] = figures.classifier_curves(progress)
    trained = [one for one in segmenters if one.losses[0] or one.mious[0]]
    if trained:
        places = _series(predictions, segmenters)
        drawn["training"] = figures.training_curves(trained, [places[one.name] for one in trained])
    return Drawings(**drawn)


def _versions(parts: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Each package's versions; more than one where the parts were made at different times."""
    found: dict[str, dict[str, None]] = {}
    for facts in parts:
        for package, version in (facts.get("versions") or {}).items():
            found.setdefault(package, {})[str(version)] = None
    return {package: ", ".join(versions) for package, versions in found.items()}
