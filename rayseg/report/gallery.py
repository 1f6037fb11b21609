"""Which images the page shows, and how many of them it can hold."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rayseg.report.contents import FolderSummary
from rayseg.report.examples import Example, choose_ids, load_examples
from rayseg.report.headline import ScoreTable
from rayseg.report.panels import Chip
from rayseg.store import Folder, Manifest


@dataclass(frozen=True)
class Gallery:
    """Images shown on the page, of one split.

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
    def of_walks(self) -> bool:
        """Whether any picture is of what a random walk went by."""
        return any(panel.of_walk for example in self._all for panel in example.panels)

    @property
    def weight(self) -> int:
        """Characters of the page that it takes."""
        return sum(example.weight for example in self._all)

    @property
    def _all(self) -> Iterable[Example]:
        return (*self.chosen, *(example for example, _ in (*self.best, *self.worst)))


def load_gallery(
    run: Folder,
    manifest: Manifest | None,
    split: str,
    max_images: int,
    scores: ScoreTable,
    stages: Sequence[FolderSummary],
    room: int,
) -> Gallery:
    """Images of a split with the results of the stages.

    Args:
        manifest: where the images lie; without it there is nothing to show.
        split: images of the draw are of it; empty means all.
        scores: thresholds of seeds, and the score by which images are best and worst.
        stages: what is shown, in this order.
        room: characters of the page that pictures may take.
    """
    if manifest is None:
        return Gallery()
    count, final = max(1, max_images // 3), scores.final
    best = final.extremes("best", count) if final else []
    worst = final.extremes("worst", count) if final else []
    usable = next((stage.usable for stage in reversed(stages) if stage.usable), frozenset())
    chosen = choose_ids(manifest, split, usable, max_images)
    loaded = load_examples(
        run,
        manifest,
        [*chosen, *(name for name, _ in (*best, *worst))],
        [stage.name for stage in stages],
        {
            score.name: cut
            for score in scores.scores
            if (cut := score.number("threshold")) is not None
        },
    )
    return _fit(loaded, chosen, best, worst, room)


def _fit(
    loaded: dict[str, Example],
    chosen: Sequence[str],
    best: Sequence[tuple[str, float]],
    worst: Sequence[tuple[str, float]],
    room: int,
) -> Gallery:
    """Takes what there is room for: the worst first, they teach the most, the chosen last."""
    kept: set[tuple[str, str]] = set()
    listed = 0
    lists = {"worst": [n for n, _ in worst], "best": [n for n, _ in best], "chosen": chosen}
    for kind, names in lists.items():
        for name in (name for name in names if name in loaded):
            listed += 1
            if loaded[name].weight <= room:
                room -= loaded[name].weight
                kept.add((kind, name))
    return Gallery(
        tuple(loaded[name] for name in chosen if ("chosen", name) in kept),
        tuple((loaded[name], miou) for name, miou in best if ("best", name) in kept),
        tuple((loaded[name], miou) for name, miou in worst if ("worst", name) in kept),
        listed - len(kept),
    )
