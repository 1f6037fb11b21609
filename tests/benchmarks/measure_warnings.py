"""Signals about masks that need no truth, held against the true IoU of a finished run.

Run from the repository root, on a run whose images have true masks:

    python tests/benchmarks/measure_warnings.py RUN --masks advcam+label_crf --name voc-animals

Signals are of an image and one of its tags, and of a class by their mean over its images, but for
those that `rayseg` warns by, which are made of a class's summed counts. A class or an image is poor
where its true IoU is below 0.3. The images are split in two halves by their id: thresholds are
chosen on one, hit rate and false alarms are those of the other, for one fixed seed and as a mean of
a hundred more. Masks that are too wide are rare in such a run; they are made from its maps by ever
lower background thresholds.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from rayseg.labels import Truths, enlarge
from rayseg.records import IGNORE
from rayseg.records.palette import decode_labels
from rayseg.scores import TagCounts, qualities
from rayseg.scores.quality import WIDE
from rayseg.store import Folder, read_manifest, read_rows, unpack_seeds

RESULTS = Path(__file__).parent / "results"
LEAST, LEAST_OF_HALF = 5, 3
"""Images of a class, for it to be counted."""
POOR = 0.3
"""True IoU below which a mask is poor."""
AT = 0.3
"""Value of a map above which it is held to show its class."""
LOWERED = (0.3, 0.2, 0.1, 0.05, 0.02, 0.005)
"""Background thresholds that make masks ever wider."""
SPLITS = 100
"""Further random halves."""
WARNED_BY = ("unrecognised_share", "lacking_share")
OF_CLASSES = (*WARNED_BY, "logit", "agreement", "second", "rim")
OF_IMAGES = ("logit", "rim", "agreement", "second", "covered")
LOW_IS_POOR = ("logit", "agreement", "second", "covered")
SIGNALS = {
    "covered": "share of the image that the class covers",
    "covered_decided": "share of its decided pixels that the class covers",
    "foreground": "share of the image that any class covers",
    "undecided": "share of the image that is undecided",
    "lacking": "whether the mask lacks the tag",
    "rim": "share of the class's pixels on the rim, a tenth of the image wide, over the rim's own",
    "true_rim": "the same of the true mask: no signal, but what it is for a right mask",
    "rim_covered": "share of the rim that the class covers",
    "agreement": f"IoU of the map above {AT} and of the class in the mask",
    "second": "IoU of the class in these masks and in the second ones",
    "alike": "highest correlation of the map with the map of another tag",
    "map_covered": f"share of the image where the map is above {AT}",
    "concentration": f"share of the map's sum above {AT}",
    "map_mean": "mean of the map",
    "logit": "logit of the class",
    "gain": "logit that the method gained",
    "tags": "number of tags of the image",
}


def rim_of(size_hw):
    """True on a rim a tenth of the image's sides wide."""
    height, width = size_hw
    inside = np.zeros(size_hw, bool)
    dy, dx = max(1, height // 10), max(1, width // 10)
    inside[dy : height - dy, dx : width - dx] = True
    return ~inside


def rim_density(plane, rim):
    """Share of a plane's pixels that lie on the rim, over the rim's own share of the image."""
    return plane[rim].sum() / plane.sum() / rim.mean() if plane.any() else np.nan


def overlap(one, other):
    """IoU of two planes of booleans, nan where both are empty."""
    union = (one | other).sum()
    return (one & other).sum() / union if union else np.nan


def alike(maps, place):
    """The highest correlation of a map with another one; nan where there is no other."""
    flat = maps.reshape(len(maps), -1)
    others = [
        np.corrcoef(flat[place], one)[0, 1]
        for n, one in enumerate(flat)
        if n != place and one.std() > 0 and flat[place].std() > 0
    ]
    return max(others, default=np.nan)


def signals_of(labels, seeds, row, place, second):
    """The signals of one tag of one image; nan where it has none."""
    mine = labels == seeds.classes[place] + 1
    shown = enlarge(seeds)[place] > AT
    small, rim = seeds.maps[place], rim_of(labels.shape)
    decided = labels != IGNORE
    total = small.sum()
    return {
        "covered": mine.mean(),
        "covered_decided": mine.sum() / max(decided.sum(), 1),
        "foreground": (decided & (labels > 0)).mean(),
        "undecided": (~decided).mean(),
        "lacking": float(not mine.any()),
        "rim": rim_density(mine, rim),
        "rim_covered": mine[rim].mean(),
        "agreement": overlap(shown, mine),
        "second": np.nan if second is None else overlap(mine, second == seeds.classes[place] + 1),
        "alike": alike(seeds.maps, place),
        "map_covered": shown.mean(),
        "concentration": small[small > AT].sum() / total if total else np.nan,
        "map_mean": small.mean(),
        "logit": row["scores"][place],
        "gain": row["gains"][place] if row["gains"] else np.nan,
        "tags": float(len(seeds.classes)),
    }


def measured(run, masks, second, split):
    """One row an image and tag: class, counts of pixels against the truth, and the signals."""
    truths = Truths(run / "manifest", split)
    labels_of = {
        name: {row["id"]: row["labels"] for row in read_rows(run / "masks" / name) if row["labels"]}
        for name in filter(None, [masks, second])
    }
    for row in read_rows(run / "seeds" / masks.partition("+")[0]):
        if row["status"] != "ok" or row["id"] not in truths.ids & labels_of[masks].keys():
            continue
        truth, seeds = truths.of(row), unpack_seeds(row)
        labels = decode_labels(labels_of[masks][row["id"]])
        other = labels_of.get(second, {}).get(row["id"])
        other = None if other is None else decode_labels(other)
        for place, index in enumerate(seeds.classes):
            mine, true = (labels == index + 1) & (truth != IGNORE), truth == index + 1
            yield {
                "id": row["id"],
                "class": index,
                "both": int((mine & true).sum()),
                "either": int((mine | true).sum()),
                "counts": TagCounts.of(labels, [index], truths.num_classes),
                "true_rim": rim_density(true, rim_of(true.shape)),
                "true_counts": TagCounts.of(truth, [index], truths.num_classes),
                "lowered": lowered(truth, seeds, place),
                **signals_of(labels, seeds, row, place, other),
            }


def lowered(truth, seeds, place):
    """Pixels of a class in both, in either and in the mask, at each of LOWERED; on the map's grid.

    The mask has the class where its map is above the threshold and the highest.
    """
    true = truth[::4, ::4] == seeds.classes[place] + 1
    counted = truth[::4, ::4] != IGNORE
    best = (seeds.maps.argmax(0) == place) & counted
    planes = [best & (seeds.maps[place] > at) for at in LOWERED]
    return [[int((p & true).sum()), int((p | true).sum()), int(p.sum()), p.size] for p in planes]


def iou_of(rows):
    """IoU of the summed counts."""
    either = sum(row["either"] for row in rows)
    return sum(row["both"] for row in rows) / either if either else np.nan


def mean_of(rows, name):
    """Mean over the rows that have a value."""
    values = [row[name] for row in rows if not np.isnan(row[name])]
    return float(np.mean(values)) if values else np.nan


def quality_of(rows, counts="counts"):
    """What rayseg knows of the class that all these rows are of."""
    index, total = rows[0]["class"], sum((r[counts] for r in rows[1:]), rows[0][counts])
    size = len(total.images)
    asked, denied = [0] * size, [0] * size
    asked[index], denied[index] = len(rows), sum(row["logit"] < 0 for row in rows)
    (found,) = qualities([str(n) for n in range(size)], total, asked, denied)
    return found


def by_class(rows, least=LEAST):
    """Rows of each class that has enough images."""
    found = {}
    for row in rows:
        found.setdefault(row["class"], []).append(row)
    return {index: own for index, own in sorted(found.items()) if len(own) >= least}


def halves(rows, seed):
    """The rows of two halves of the images."""
    ids = sorted({row["id"] for row in rows})
    first = set(np.random.default_rng(seed).permutation(ids)[: len(ids) // 2])
    return [row for row in rows if row["id"] in first], [r for r in rows if r["id"] not in first]


def correlation(values, true):
    """Spearman's, over what is known; None where that is too little."""
    values, true = np.array(values, float), np.array(true)
    known = ~np.isnan(values)
    if known.sum() < 4 or np.ptp(values[known]) == 0:
        return None
    return rounded(spearmanr(values[known], true[known])[0])


def table_of(rows):
    """Each signal's rank correlation with the IoU of classes, and its AUC for poor images."""
    groups = by_class(rows)
    true = [iou_of(own) for own in groups.values()]
    kept = [row for own in groups.values() for row in own if row["either"]]
    table = {}
    for name, words in SIGNALS.items():
        table[name] = {"is": words}
        values = [mean_of(own, name) for own in groups.values()]
        table[name]["spearman_of_classes"] = correlation(values, true)
        pairs = [(r[name], r["both"] < POOR * r["either"]) for r in kept if not np.isnan(r[name])]
        if len({poor for _, poor in pairs}) == 2:
            scores, poor = zip(*pairs, strict=True)
            table[name] |= {
                "auc_of_poor_images": rounded(roc_auc_score(poor, scores)),
                "images": len(pairs),
            }
    for name in WARNED_BY:
        values = [value_of(own, name) for own in groups.values()]
        table[name] = {"is": "of summed counts", "spearman_of_classes": correlation(values, true)}
    return table


def cut_of(values, poor):
    """The threshold at or above which most are poor and fewest are not; amid the widest gap."""
    values, poor = np.array(values, float), np.array(poor)
    ranked = np.unique(values)
    if len(ranked) < 2 or poor.all() or not poor.any():
        return None
    middles, gaps = (ranked[1:] + ranked[:-1]) / 2, np.diff(ranked)
    gains = [(values[poor] >= cut).mean() - (values[~poor] >= cut).mean() for cut in middles]
    best = max(zip(gains, gaps, middles, strict=True))
    return float(best[2])


def rates(warned, poor):
    """How many poor ones were warned of, and how many of the others."""
    warned, poor = np.array(warned, bool), np.array(poor, bool)
    return {
        "poor": int(poor.sum()),
        "hits": int((warned & poor).sum()),
        "good": int((~poor).sum()),
        "false_alarms": int((warned & ~poor).sum()),
    }


def class_values(rows, name):
    """A signal's value of each class of a half that has one, and whether the class is poor."""
    groups = by_class(rows, LEAST_OF_HALF).values()
    side = -1 if name in LOW_IS_POOR else 1
    pairs = [(side * value_of(own, name), bool(iou_of(own) < POOR)) for own in groups]
    return [pair for pair in pairs if not np.isnan(pair[0])]


def value_of(rows, name):
    """A signal of the class that all these rows are of."""
    return getattr(quality_of(rows), name) if name in WARNED_BY else mean_of(rows, name)


def image_values(rows, name):
    """A signal's value of each image and tag, higher where it tells of poor ones."""
    side = -1 if name in LOW_IS_POOR else 1
    return [
        (side * row[name], row["both"] < POOR * row["either"])
        for row in rows
        if row["either"] and not np.isnan(row[name])
    ]


def held_out(rows, values, name, seed):
    """The threshold that one half gives, and its rates on the other."""
    first, second = halves(rows, seed)
    chosen = values(first, name)
    if len(chosen) < 2 or (cut := cut_of(*zip(*chosen, strict=True))) is None:
        return None
    found, poor = zip(*values(second, name), strict=True)
    return {"threshold": rounded(cut)} | rates(np.array(found) >= cut, poor)


def by_the_constants(rows, seed):
    """What rayseg warns of in the second half, by the thresholds that it has."""
    groups = by_class(halves(rows, seed)[1], LEAST_OF_HALF).values()
    return rates(
        [bool(quality_of(own).sign) for own in groups], [iou_of(own) < POOR for own in groups]
    )


def summed(several):
    """Rates over all splits, in shares, with the middle of the thresholds."""
    known = [one for one in several if one]
    if not known:
        return None
    total = {
        key: sum(one[key] for one in known) for key in ("poor", "hits", "good", "false_alarms")
    }
    found = {
        "splits": len(known),
        "hit_rate": rounded(total["hits"] / max(total["poor"], 1)),
        "false_alarm_rate": rounded(total["false_alarms"] / max(total["good"], 1)),
    }
    if "threshold" in known[0]:
        cuts = [one["threshold"] for one in known]
        found["thresholds"] = [rounded(one) for one in np.quantile(cuts, [0.1, 0.5, 0.9])]
    return found


def tried(rows, seed):
    """Each sign of classes and each signal of images: on one split, and over many."""
    found = {}
    for level, values, names in (
        ("classes", class_values, OF_CLASSES),
        ("images", image_values, OF_IMAGES),
    ):
        found[level] = {
            name: {
                "one_split": held_out(rows, values, name, seed),
                "many": summed([held_out(rows, values, name, 1000 + n) for n in range(SPLITS)]),
            }
            for name in names
        }
    found["classes"]["all_signs_as_rayseg_has_them"] = {
        "one_split": by_the_constants(rows, seed),
        "many": summed([by_the_constants(rows, 1000 + n) for n in range(SPLITS)]),
    }
    return found


def widened(rows, seed):
    """Classes whose masks are made ever wider: what share they cover when they become poor.

    Only classes that the classifier recognises, since masks of others are poor as they are.
    """

    def values(half, _):
        pairs = []
        for own in by_class(half, LEAST).values():
            if quality_of(own).sign == "unrecognised":
                continue
            for both, either, mine, pixels in np.sum([row["lowered"] for row in own], 0):
                pairs.append((mine / pixels, bool(both < POOR * either)))
        return pairs

    pairs = sorted(values(rows, ""))
    bins = [[low, low + 0.1] for low in np.arange(0, 1, 0.1).round(1).tolist()]
    within = [[poor for share, poor in pairs if low <= share < high] for low, high in bins]
    return {
        "thresholds": LOWERED,
        "poor_by_covered_share": [
            {"from": low, "masks": len(one), "poor": sum(one)}
            for (low, _), one in zip(bins, within, strict=True)
            if one
        ],
        "one_split": held_out(rows, values, "", seed),
        "many": summed([held_out(rows, values, "", 1000 + n) for n in range(SPLITS)]),
        "constant": WIDE,
        "by_the_constant": rates(
            [share >= WIDE for share, _ in pairs], [poor for _, poor in pairs]
        ),
    }


def classes_of(rows, names):
    """What is known of each class, worst first."""
    found = [
        {"class": names[index], "iou": rounded(iou_of(own))}
        | {name: rounded(getattr(quality_of(own), name)) for name in ("covered_share", *WARNED_BY)}
        | {
            "true_covered": rounded(quality_of(own, "true_counts").covered_share),
            "sign": quality_of(own).sign,
            "images": len(own),
        }
        | {name: rounded(mean_of(own, name)) for name in SIGNALS}
        for index, own in by_class(rows, 1).items()
    ]
    return sorted(found, key=lambda one: one["iou"])


def rounded(value):
    """Three decimals; None for nan and None."""
    return None if value is None or np.isnan(value) else round(float(value), 3)


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--masks", required=True, help="method and refiner")
    parser.add_argument("--second", default="", help="other masks of the run to compare with")
    parser.add_argument("--split", default="train")
    parser.add_argument("--seed", type=int, default=0, help="of the halves")
    parser.add_argument("--name", default="", help="of the file in results/; empty writes none")
    return parser.parse_args()


def main():
    given = options()
    run = Folder(given.run)
    names = read_manifest(run / "manifest").classes
    rows = list(measured(run, given.masks, given.second, given.split))
    found = {
        "masks": given.masks,
        "second": given.second,
        "images": len({row["id"] for row in rows}),
        "poor_below": POOR,
        "classes": classes_of(rows, names),
        "signals": table_of(rows),
        "held_out": tried(rows, given.seed),
        "widened": widened(rows, given.seed),
    }
    for one in found["classes"]:
        print(*(f"{key} {value}" for key, value in list(one.items())[:9]))
    for part in ("signals", "held_out", "widened"):
        for key, value in found[part].items():
            for line in value.items() if isinstance(value, dict) else [("", value)]:
                print(part, key, *line)
    if given.name:
        (RESULTS / f"warnings-{given.name}.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
