"""The scores of a run as a person reads them."""

from typing import Any

SCORED = ("seeds", "masks", "predictions")
OBJECTS, INSTANCES = "objects/", "instances/"
"""Entries about single objects begin so."""


def score_table(scores: dict[str, dict[str, Any]]) -> list[str]:
    """A line each, in per cent: seeds, masks, predictions, then single objects and instances."""
    pixels = {n: one for n, one in scores.items() if not n.startswith((OBJECTS, INSTANCES))}
    objects = {n: _object_cells(one) for n, one in scores.items() if n.startswith(OBJECTS)}
    found = {n: _instance_cells(one) for n, one in scores.items() if n.startswith(INSTANCES)}
    lines = _pixel_table(pixels) if pixels or not scores else []
    return lines + table(objects) + table(found)


def _pixel_table(scores: dict[str, dict[str, Any]]) -> list[str]:
    """The figures of pixels.

    ``undecided`` is the share of scored pixels that masks leave open, which count as background;
    ``over`` is the mIoU over the classes that the job was given, ``present`` the one over the
    labels that the truth holds, ``of full`` the share of full supervision: the mIoU (that over the
    chosen classes where some are) over that of the segmenter trained on true masks.
    """
    if not scores:
        return ["scores: none, no true mask in the split or no seeds and masks in the run"]
    names = sorted(scores, key=lambda name: (SCORED.index(name.partition("/")[0]), name))
    shown = [name for name in names if scores[name]["images"]]
    lines = table({name: _cells(scores[name]) for name in shown})
    none = [name for name in names if name not in shown]
    return lines + [f"{name}: no image has both a result and a usable true mask" for name in none]


def table(rows: dict[str, dict[str, str]]) -> list[str]:
    """A line of titles and one for each name, columns that are empty throughout left out."""
    width = max(map(len, rows), default=0)
    titles = list(dict.fromkeys(title for row in rows.values() for title in row if row[title]))
    cells = [("", dict(zip(titles, titles, strict=True))), *rows.items()] if rows else []
    return [
        f"{name:{width}}" + "".join(f"  {row.get(t, ''):>{max(len(t), 9)}}" for t in titles)
        for name, row in cells
    ]


def _object_cells(entry: dict[str, Any]) -> dict[str, str]:
    """Overlaps of masks from boxes with the true ones; average precisions of those from tags."""
    figures = ("mean_iou", "iou_over_50", "small", "medium", "large")
    titles = ("mask IoU", "over 0.5", "small", "medium", "large")
    shown = {t: _percent(entry.get(name)) for t, name in zip(titles, figures, strict=True)}
    found = entry.get("found", {})
    shown |= {title: _percent(found.get(title.lower())) for title in ("AP", "AP50", "ABO")}
    shown["box AP50"] = _percent(found.get("boxes", {}).get("ap50"))
    return {"split": entry["split"] or "all", "objects": str(entry["objects"]), **shown}


def _instance_cells(entry: dict[str, Any]) -> dict[str, str]:
    """Average precisions of predicted masks, their best overlap, and the box AP50."""
    ratios = entry.get("of_full_supervision") or {}
    titles = {"AP": "ap", "AP25": "ap25", "AP50": "ap50", "AP70": "ap70", "AP75": "ap75"}
    titles |= {"APs": "small", "APm": "medium", "APl": "large", "ABO": "abo"}
    return {
        **{title: _percent(entry.get(name)) for title, name in titles.items()},
        "AP50 of full": _percent(ratios.get("ap50")),
        "ABO of full": _percent(ratios.get("abo")),
        "box AP50": _percent(entry["boxes"]["ap50"]),
    }


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _cells(entry: dict[str, Any]) -> dict[str, str]:
    """The figures of an entry by the title of their column; empty where there is none."""
    ratios = entry.get("of_full_supervision") or {}
    figures = {
        "mIoU": entry["miou"],
        "undecided": entry.get("undecided"),
        "over": entry["over"]["miou"],
        "present": entry["present"]["miou"],
        "of full": ratios.get("miou") if ratios.get("over") is None else ratios["over"],
        "precision": entry["precision"],
        "recall": entry["recall"],
        "F1": entry["f1"],
    }
    shown = {name: _percent(share) for name, share in figures.items()}
    threshold = entry["threshold"]
    return {
        "split": entry["split"] or "all",
        **shown,
        "threshold": "" if threshold is None else f"{threshold:.2f}",
    }
