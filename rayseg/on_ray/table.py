"""The scores of a run as a person reads them."""

from __future__ import annotations

from typing import Any

KINDS = ("seeds", "masks", "predictions")


def score_table(scores: dict[str, dict[str, Any]]) -> list[str]:
    """A line each, in per cent: seeds, then masks, then predictions.

    ``over`` is the mIoU over the classes that the job was given, ``present`` the one over the
    labels that the truth holds, ``of full`` the share of full supervision: the mIoU (that over the
    chosen classes where some are) over that of the segmenter trained on true masks.
    """
    if not scores:
        return ["scores: none, no true mask in the split or no seeds and masks in the run"]
    names = sorted(scores, key=lambda name: (KINDS.index(name.partition("/")[0]), name))
    shown = [name for name in names if scores[name]["images"]]
    rows = [_cells(scores[name]) for name in shown]
    width = max(len(name) for name in names)
    titles = [title for title in (rows[0] if rows else {}) if any(row[title] for row in rows)]
    lines = [" " * width + "".join(f"  {title:>9}" for title in titles)] if rows else []
    for name, row in zip(shown, rows, strict=True):
        lines.append(f"{name:{width}}" + "".join(f"  {row[title]:>9}" for title in titles))
    none = [name for name in names if name not in shown]
    return lines + [f"{name}: no image has both a result and a usable true mask" for name in none]


def _cells(entry: dict[str, Any]) -> dict[str, str]:
    """The figures of an entry by the title of their column; empty where there is none."""
    ratios = entry.get("of_full_supervision") or {}
    figures = {
        "mIoU": entry["miou"],
        "over": entry["over"]["miou"],
        "present": entry["present"]["miou"],
        "of full": ratios.get("miou") if ratios.get("over") is None else ratios["over"],
        "precision": entry["precision"],
        "recall": entry["recall"],
        "F1": entry["f1"],
    }
    shown = {name: "" if share is None else f"{100 * share:.1f}" for name, share in figures.items()}
    threshold = entry["threshold"]
    return {
        "split": entry["split"] or "all",
        **shown,
        "threshold": "" if threshold is None else f"{threshold:.2f}",
    }
