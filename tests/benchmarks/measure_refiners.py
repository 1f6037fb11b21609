"""Seeds, masks and predictions of a finished run beside each other: mIoU, precision and recall.

Run from the repository root:

    python tests/benchmarks/measure_refiners.py RUN --scored IDS --chosen IDS --over cat dog

Seeds are taken at the background threshold that is best on the images of `--chosen`, which are not
scored. Segmenters are scored on the whole val split, each beside the one that learnt from true
masks; the share of it that they reach is drawn with paired images. Undecided pixels (255) of a mask
count as background; a second row leaves them out, where there are any. Intervals are of 500
bootstrap draws of images; the gain over the seeds is drawn with them. Settings of refiners are the
run's own: choose them on images that are not scored.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from rayseg.labels import Truths, enlarge
from rayseg.records import IGNORE
from rayseg.records.palette import decode_labels
from rayseg.scores import Confusion, ThresholdSweep, thresholds_every
from rayseg.store import Folder, read_rows, unpack_seeds

RESULTS = Path(__file__).parent / "results"
THRESHOLDS = thresholds_every(0.01)
DRAWS = 500


def seeds_of(folder, truths, chosen, scored):
    """Counts of seeds at every threshold, of the images that it is chosen on and of those scored.

    Args:
        chosen: ids of the images that the threshold is chosen on.
        scored: ids of the images that are counted.

    Returns:
        The sum over the images to choose on, and the ThresholdSweep of each scored one by its id.
    """
    sweeps = {}
    for row in read_rows(folder):
        if row["status"] == "ok" and row["id"] in (chosen | scored) & truths.ids:
            truth, seeds = truths.of(row), unpack_seeds(row)
            sweeps[row["id"]] = ThresholdSweep.of(
                truth, enlarge(seeds), seeds.classes, truths.num_classes, THRESHOLDS
            )
    total = ThresholdSweep.zeros(truths.num_classes, THRESHOLDS)
    for id_ in sorted(chosen & sweeps.keys()):
        total = total + sweeps[id_]
    return total, {id_: sweep for id_, sweep in sweeps.items() if id_ in scored}


def masks_of(folder, truths, scored):
    """Counts of masks image by image: all pixels, decided pixels alone, and the undecided share."""
    whole, decided, undecided, pixels = {}, {}, 0, 0
    for row in read_rows(folder):
        if row["status"] != "ok" or row["id"] not in scored & truths.ids:
            continue
        truth, labels = truths.of(row), decode_labels(row["labels"])
        whole[row["id"]] = Confusion.of(truth, labels, truths.num_classes)
        seen = np.where(labels == IGNORE, np.uint8(IGNORE), truth)
        decided[row["id"]] = Confusion.of(seen, labels, truths.num_classes)
        undecided += int((labels[truth != IGNORE] == IGNORE).sum())
        pixels += int((truth != IGNORE).sum())
    return whole, decided, undecided / max(pixels, 1)


def drawn(counts, ids, over):
    """Mean IoU of each bootstrap draw of images, the same draws whatever is counted."""
    stack = np.stack([counts[id_].counts for id_ in ids])
    random = np.random.default_rng(0)
    sums = (stack[random.integers(0, len(ids), len(ids))].sum(0) for _ in range(DRAWS))
    return np.array([Confusion(one).mean_iou(over) for one in sums])


def figures(counts, ids, over, base):
    """What is said of a row: percent, with intervals, and the gain over the base's counts."""
    means = sum((counts[id_] for id_ in ids[1:]), counts[ids[0]]).over(over)
    draws = drawn(counts, ids, over)
    found = {name: _percent(value) for name, value in means.as_dict().items()}
    found["interval"] = _interval(draws)
    if base is not counts:
        before = sum((base[id_] for id_ in ids[1:]), base[ids[0]]).mean_iou(over)
        found["gain"] = _percent(means.iou - before)
        found["gain_interval"] = _interval(draws - drawn(base, ids, over))
    return found


def _interval(draws):
    return [_percent(value) for value in np.quantile(draws, [0.025, 0.975])]


def _percent(value):
    return round(100 * float(value), 1)


def measure(run, method, chosen, scored, over, split):
    """All rows of a run that start from the seeds of a method."""
    truths = Truths(run / "manifest", split)
    labels = [0, *(truths.classes.index(name) + 1 for name in over)]
    sweep, seeds = seeds_of(run / "seeds" / method, truths, chosen, scored)
    place = THRESHOLDS.index(sweep.best(labels))
    base = {id_: one.confusion(place) for id_, one in seeds.items()}
    ids = sorted(base)
    rows = {f"seeds at {THRESHOLDS[place]:.2f}": figures(base, ids, labels, base)}
    for kind in ("masks", "predictions"):
        for name in (run / kind).folders():
            if not name.startswith(f"{method}+"):
                continue
            whole, decided, undecided = masks_of(run / kind / name, truths, scored)
            if not set(ids) <= whole.keys():
                print(f"{kind}/{name} lacks {len(set(ids) - whole.keys())} of the scored images")
                continue
            said = name if kind == "masks" else f"prediction of {name}"
            rows[said] = figures(whole, ids, labels, base) | {"undecided": _percent(undecided)}
            if undecided:
                rows[f"{said}, undecided left out"] = figures(decided, ids, labels, base)
    return {"images": len(ids), "chosen_on": len(chosen & truths.ids), "rows": rows}


def segmenters(run, method, over, split):
    """Segmenters on masks of a method beside the one on true masks; empty without that one."""
    folder = run / "predictions"
    if "truth" not in folder.folders():
        return {}
    truths = Truths(run / "manifest", split)
    labels = [0, *(truths.classes.index(name) + 1 for name in over)]
    base, _, _ = masks_of(folder / "truth", truths, truths.ids)
    ids = sorted(base)
    rows = {"truth": figures(base, ids, labels, base)}
    for name in folder.folders():
        if name.startswith(f"{method}+"):
            counts, _, _ = masks_of(folder / name, truths, truths.ids)
            rows[name] = figures(counts, ids, labels, base)
            draws = drawn(counts, ids, labels) / drawn(base, ids, labels)
            rows[name] |= {
                "share": round(100 * rows[name]["iou"] / rows["truth"]["iou"], 1),
                "share_interval": _interval(draws),
            }
    return {"images": len(ids), "rows": rows}


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--method", default="advcam", help="of the seeds")
    parser.add_argument("--chosen", type=Path, required=True, help="ids, one a line; not scored")
    parser.add_argument("--scored", type=Path, help="ids, one a line; all others where left out")
    parser.add_argument("--over", nargs="+", required=True, help="classes beside background")
    parser.add_argument("--split", default="train")
    parser.add_argument("--val-split", default="val", help="on which segmenters are scored")
    parser.add_argument("--name", default="refiners", help="of the file in results/")
    parser.add_argument("--note", default="", help="what the file says of the run, such as times")
    return parser.parse_args()


def main():
    given = options()
    run = Folder(given.run)
    chosen = set(given.chosen.read_text().split())
    listed = given.scored and set(given.scored.read_text().split())
    scored = (listed or set(Truths(run / "manifest", given.split).ids)) - chosen
    found = measure(run, given.method, chosen, scored, given.over, given.split)
    print("| masks | mIoU | gain | precision | recall | undecided |\n|---|---|---|---|---|---|")
    for name, one in found["rows"].items():
        gain = f"{one['gain']} {one['gain_interval']}" if "gain" in one else ""
        print(
            f"| {name} | {one['iou']} {one['interval']} | {gain} | {one['precision']} | "
            f"{one['recall']} | {one.get('undecided', '')} |"
        )
    judged = segmenters(run, given.method, given.over, given.val_split)
    for name, one in judged.get("rows", {}).items():
        share = f", {one['share']} % {one['share_interval']} of truth" if "share" in one else ""
        print(f"segmenter on {name}: {one['iou']} {one['interval']}{share}")
    if judged:
        found["segmenters"] = judged
    facts = {"over": ["background", *given.over], "note": given.note}
    (RESULTS / f"{given.name}.json").write_text(json.dumps(facts | found, indent=1) + "\n")


if __name__ == "__main__":
    main()
