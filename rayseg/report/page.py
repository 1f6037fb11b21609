"""The report of a run: one HTML page that needs nothing but itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rayseg.report import figures
from rayseg.report.contents import (
    MAX_FAILURES,
    Score,
    Stage,
    bad_truths,
    final_score,
    merge_failures,
    merge_notes,
    number,
    read_scores,
    read_stages,
)
from rayseg.report.examples import Chip, Example, choose_ids, load_examples
from rayseg.store import Folder, Manifest, read_manifest, read_run

MAX_PICTURE_CHARACTERS = 4_500_000
"""Pictures beyond it are left out, so that the page stays under 6 MB and opens on a phone."""
HEADLINE = {
    "mIoU": ("miou",),
    "mIoU, chosen": ("over", "miou"),
    "mIoU, present": ("present", "miou"),
    "precision": ("precision",),
    "recall": ("recall",),
    "F1": ("f1",),
}
"""Columns of the first table by where their figure stands in scores.json."""
_DASH = "\N{EN DASH}"


def write_report(run: Folder, split: str = "train", max_images: int = 12) -> str:
    """Writes ``report.html`` into the run folder and returns its address.

    Whatever the folder lacks is named on the page instead.

    Args:
        run: the run folder.
        split: images shown are of it; empty means all.
        max_images: how many images to show, besides the best and the worst.

    Raises:
        OSError: the folder cannot be written to.
    """
    page = _environment().get_template("page.html").render(_context(run, split, max_images))
    run.write("report.html", page.encode())
    return run.path("report.html")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "fixed": fixed, "amount": amount, "span": span}
    return environment


def percent(value: object) -> str:
    """A share as percent with one decimal."""
    found = number(value)
    return _DASH if found is None else f"{100 * found:.1f}"


def fixed(value: object, decimals: int = 2) -> str:
    """A number with that many decimals."""
    found = number(value)
    return _DASH if found is None else f"{found:.{decimals}f}"


def amount(value: object) -> str:
    """Bytes as a person reads them."""
    found = number(value)
    if found is None:
        return _DASH
    for unit in ("B", "kB", "MB"):
        if found < 1000:
            return f"{found:.3g} {unit}"
        found /= 1000
    return f"{found:.3g} GB"


def span(value: object) -> str:
    """Seconds as a person reads them."""
    found = number(value)
    if found is None:
        return _DASH
    if found < 60:
        return f"{found:.2g} s" if found < 10 else f"{found:.0f} s"
    minutes, seconds = divmod(round(found), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


@dataclass(frozen=True)
class Gallery:
    """The images of the page.

    Attributes:
        chosen: a draw that takes the classes in turn.
        best: the images of the highest mIoU with it, the highest first.
        worst: those of the lowest, the lowest first.
        left_out: how many did not fit on the page.
    """

    chosen: tuple[Example, ...] = ()
    best: tuple[tuple[Example, float], ...] = ()
    worst: tuple[tuple[Example, float], ...] = ()
    left_out: int = 0

    @property
    def legend(self) -> list[Chip]:
        """The classes of all images shown."""
        return sorted(
            {chip for example in self._all for chip in example.chips}, key=lambda chip: chip.name
        )

    @property
    def ignored(self) -> bool:
        """Whether any picture has pixels to ignore."""
        return any(example.ignored for example in self._all)

    @property
    def _all(self) -> Iterable[Example]:
        return (*self.chosen, *(example for example, _ in (*self.best, *self.worst)))


def _context(run: Folder, split: str, max_images: int) -> dict[str, Any]:
    scores, stages = read_scores(run), read_stages(run)
    manifest = _manifest(run)
    final = final_score(scores)
    classifier = read_run(run / "classifier")
    return {
        "title": run.location.rstrip("/").rpartition("/")[2],
        "split": split,
        "manifest": manifest,
        "total": _count_split(manifest, split),
        "scores": scores,
        "final": final,
        "sentence": summarize(scores, final),
        "columns": _columns(scores),
        "chosen": next((names for s in scores if (names := s.part("over").get("names"))), []),
        "lists": sorted({ids for score in scores if (ids := score.facts.get("ids"))}),
        "unscored": max((int(score.number("skipped_count") or 0) for score in scores), default=0),
        "gallery": _gallery(run, manifest, split, max_images, scores, stages),
        "drawings": _drawings(scores, final, classifier),
        "labels": list(final.part("per_class")) if final else [],
        "stages": stages,
        "failed": len(frozenset().union(*(stage.failed_ids for stage in stages))),
        "failures": merge_failures(
            [
                *(failure for stage in stages for failure in stage.failures),
                *(failure for score in scores for failure in bad_truths(score)),
            ]
        ),
        "max_failures": MAX_FAILURES,
        "notes": merge_notes(stages),
        "classifier_seconds": _classifier_seconds(classifier),
        "configurations": _configurations(run, classifier, stages),
        "versions": _versions(classifier, stages),
        "figures": figures,
    }


def _manifest(run: Folder) -> Manifest | None:
    try:
        return read_manifest(run / "manifest")
    except FileNotFoundError:
        return None


def _count_split(manifest: Manifest | None, split: str) -> int:
    if manifest is None:
        return 0
    splits = manifest.table.column("split").to_pylist()
    return splits.count(split) if split else len(splits)


def summarize(scores: Sequence[Score], final: Score | None) -> str:
    """The run in one sentence."""
    miou = final.number("miou") if final else None
    if final is None or miou is None:
        return "Nothing is scored yet."
    sentence = f"{final.method} reaches {percent(miou)} % mIoU"
    others = [score for score in scores if score is not final and score.number("miou") is not None]
    if not others:
        return f"{sentence}."
    base = others[0]
    gain = miou - (base.number("miou") or 0)
    side = "above" if gain >= 0 else "below"
    return f"{sentence}, {100 * abs(gain):.1f} points {side} {base.method} ({base.kind})."


@dataclass(frozen=True)
class Column:
    """A column of the first table.

    Attributes:
        title: what stands above it.
        values: a figure for each score; None where it has none.
    """

    title: str
    values: tuple[float | None, ...]

    @property
    def highest(self) -> float | None:
        """The highest of its figures."""
        return max((value for value in self.values if value is not None), default=None)


def _columns(scores: Sequence[Score]) -> list[Column]:
    """The columns of the first table; a mean that no score has is left out."""
    columns = [
        Column(title, tuple(s.number(*keys) for s in scores)) for title, keys in HEADLINE.items()
    ]
    return [column for column in columns if column.highest is not None or "," not in column.title]


def _gallery(
    run: Folder,
    manifest: Manifest | None,
    split: str,
    max_images: int,
    scores: Sequence[Score],
    stages: Sequence[Stage],
) -> Gallery:
    if manifest is None:
        return Gallery()
    final = final_score(scores)
    count = max(1, max_images // 3)
    best = final.extremes("best", count) if final else []
    worst = final.extremes("worst", count) if final else []
    usable = next((stage.usable for stage in reversed(stages) if stage.usable), frozenset())
    chosen = choose_ids(manifest, split, usable, max_images)
    loaded = load_examples(
        run,
        manifest,
        [*chosen, *(name for name, _ in (*best, *worst))],
        [stage.name for stage in stages],
        {score.name: cut for score in scores if (cut := score.number("threshold")) is not None},
    )
    return _fit(loaded, chosen, best, worst)


def _fit(
    loaded: dict[str, Example],
    chosen: Sequence[str],
    best: Sequence[tuple[str, float]],
    worst: Sequence[tuple[str, float]],
) -> Gallery:
    """Takes what the page can hold: the worst first, they teach the most, the chosen last."""
    room = MAX_PICTURE_CHARACTERS
    kept: set[tuple[str, str]] = set()
    asked = 0
    lists = {"worst": [n for n, _ in worst], "best": [n for n, _ in best], "chosen": chosen}
    for kind, names in lists.items():
        for name in (name for name in names if name in loaded):
            asked += 1
            if loaded[name].weight <= room:
                room -= loaded[name].weight
                kept.add((kind, name))
    return Gallery(
        tuple(loaded[name] for name in chosen if ("chosen", name) in kept),
        tuple((loaded[name], miou) for name, miou in best if ("best", name) in kept),
        tuple((loaded[name], miou) for name, miou in worst if ("worst", name) in kept),
        asked - len(kept),
    )


@dataclass(frozen=True)
class Drawings:
    """The page's figures as inline SVG; empty where there is nothing to draw."""

    classes: str = ""
    classes_left_out: tuple[str, ...] = ()
    thresholds: str = ""
    sizes: str = ""
    epochs: str = ""


def _drawings(scores: Sequence[Score], final: Score | None, classifier: dict[str, Any]) -> Drawings:
    drawn: dict[str, Any] = {}
    if final and final.part("per_class"):
        drawn["classes"], left_out = figures.class_bars(scores, final)
        drawn["classes_left_out"] = tuple(left_out)
    if any(score.part("sweep") for score in scores):
        drawn["thresholds"] = figures.threshold_curve(scores)
    if figures.known_sizes(scores):
        drawn["sizes"] = figures.size_bars(scores)
    if classifier.get("epochs"):
        drawn["epochs"] = figures.epoch_curves(classifier["epochs"])
    return Drawings(**drawn)


def _classifier_seconds(classifier: dict[str, Any]) -> float | None:
    seconds = [number(epoch.get("seconds")) for epoch in classifier.get("epochs", [])]
    return sum(value or 0.0 for value in seconds) if seconds else None


def _configurations(
    run: Folder, classifier: dict[str, Any], stages: Iterable[Stage]
) -> dict[str, str]:
    """The text of each configuration by what it configures."""
    texts = {"run.toml": run.read("run.toml").decode()} if run.exists("run.toml") else {}
    facts = {"classifier": classifier} | {stage.name: stage.facts for stage in stages}
    return texts | {
        name: json.dumps(fact["config"], indent=2, ensure_ascii=False)
        for name, fact in facts.items()
        if fact.get("config")
    }


def _versions(classifier: dict[str, Any], stages: Iterable[Stage]) -> dict[str, str]:
    """Each package's versions; more than one where the parts were made at different times."""
    found: dict[str, dict[str, None]] = {}
    for facts in (classifier, *(stage.facts for stage in stages)):
        for package, version in (facts.get("versions") or {}).items():
            found.setdefault(package, {})[str(version)] = None
    return {package: ", ".join(versions) for package, versions in found.items()}
