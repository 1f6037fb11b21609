"""What comes of a sweep: table, picture and the best setting as a file that every job takes."""

import json
from typing import Any

from rayseg.config import as_plain, as_toml, threshold_field
from rayseg.report.sensitivity import draw_sensitivity
from rayseg.steps.outcome import Outcome
from rayseg.steps.spaces import Space
from rayseg.steps.trials import Plan, stored_trials
from rayseg.store import Folder, write_run

BEST_THRESHOLD = "background_threshold"
"""Figure of trials of maps: the threshold that was best."""


def best_entry(trial: dict[str, Any], space: Space) -> dict[str, Any]:
    """The best entry of those that were read off a trial."""
    return max(trial["figures"], key=lambda one: one[space.metric])


def write_sweep(plan: Plan, folder: Folder, left_out: dict[str, str]) -> Outcome:
    """Table, picture and best setting of all trials that the folder holds."""
    space = plan.space
    trials = [one for one in stored_trials(folder) if one["left_out"] == sorted(left_out)]
    whole = [one for one in trials if one["done"]]
    if not whole:
        raise ValueError(f"{folder} holds no trial that counted all images")
    entries = [one["setting"] | entry for one in whole for entry in one["figures"]]
    names = _searched(space, whole)
    # what fails on some images is not held against what does not
    fewest = min(len(one["failed"]) for one in whole)
    sound = [one for one in whole if len(one["failed"]) == fewest]
    candidates = [one["setting"] | entry for one in sound for entry in one["figures"]]
    best = choose_best(candidates, plan.known, names, space.metric)
    entries.sort(key=lambda entry: (entry != best, -entry[space.metric]))
    folder.write("sensitivity.png", draw_sensitivity(entries, best, names, space.metric))
    folder.write("trials.json", json.dumps(trials, indent=1).encode())
    folder.write("table.csv", _table(entries).encode())
    folder.write("best.toml", _toml(plan, best).encode())
    write_run(
        folder,
        {
            "done": True,
            "best": best,
            "trials": len(trials),
            "trajectories": len(whole),
            "settings": len(entries),
            "images": max(one["images"] for one in whole),
            "seconds": sum(one["seconds"] for one in trials),
            "left_out": left_out,
        },
    )
    failed = {id_: why for one in whole for id_, why in one["failed"].items()}
    setting = ", ".join(
        f"{name} {_shown(best[name])}"
        for name in dict.fromkeys([*names, BEST_THRESHOLD])
        if name in best
    )
    lines = [
        f"tuning {space.name}: best {space.metric} {100 * best[space.metric]:.1f} at {setting}",
        f"{len(entries)} settings from {len(whole)} whole trials of {len(trials)}; "
        f"picture, table and best.toml in {folder}",
        *_without("failed in a trial", failed),
        *_without("left out", left_out),
    ]
    return Outcome(lines, left_out=len(left_out) + len(failed))


def _without(label: str, images: dict[str, str]) -> list[str]:
    """How many images, and why the first of them."""
    first = next(iter(images.items()), None)
    return [f"{label}: {len(images)} images, such as {': '.join(first)}"] if first else []


def _searched(space: Space, trials: list[dict[str, Any]]) -> list[str]:
    """The fields that differ between trials, and what is read off each."""
    used = {name: {str(one["setting"][name]) for one in trials} for name in sorted(space.domains)}
    searched = [name for name in used if len(used[name]) > 1] or list(used)
    return [*searched, *(name for name, values in space.read_off.items() if len(values) > 1)]


def choose_best(
    candidates: list[dict[str, Any]], known: dict[str, Any], names: list[str], metric: str
) -> dict[str, Any]:
    """The candidate of the highest metric; of equals what changes least of what is known."""

    def rank(entry: dict[str, Any]) -> tuple[float, int]:
        return entry[metric], sum(entry[name] == known.get(name) for name in names)

    return max(candidates, key=rank)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _table(entries: list[dict[str, Any]]) -> str:
    """The entries as CSV."""
    names = list(dict.fromkeys(name for entry in entries for name in entry))
    rows = [",".join(_cell(entry.get(name, "")) for name in names) for entry in entries]
    return "\n".join([",".join(names), *rows]) + "\n"


def _cell(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f'"{text}"' if "," in text else text


def _toml(plan: Plan, best: dict[str, Any]) -> str:
    """The best setting as a file that every job takes."""
    config, space = plan.config, plan.space
    parts: dict[str, Any] = {}
    if space.kind == "objects":  # what the maps were judged by
        parts["box_crf"] = as_plain(config.box_crf)
    values: dict[str, Any] = {}
    for name in best.keys() & {*space.domains, *space.read_off}:
        part, dot, own = name.rpartition(".")
        (parts[part] if dot else values)[own] = best[name]
    made = space.setting(plan.base, values)
    parts[space.name] = as_plain(made)
    if space.name in ("label_crf", "threshold"):  # thresholds belong with the maps' method
        parts["thresholds"] = {threshold_field(config.seeds_of): _pair(parts[space.name], plan)}
    if names := getattr(made, "from_walks", ()):  # and so do these
        pair = [parts[space.name].pop(name) for name in names]
        parts["walks"] = {threshold_field(config.seeds_of): pair}
    head = f"# {space.metric} {100 * best[space.metric]:.2f}"
    if BEST_THRESHOLD in best:
        head += f" at background threshold {best[BEST_THRESHOLD]:g}"
    return f"{head}\n{as_toml(parts)}"


def _pair(refiner: dict[str, Any], plan: Plan) -> list[float]:
    """The thresholds of sure foreground and sure background, taken out of a refiner's fields."""
    if "threshold" not in refiner:
        return [refiner.pop("fg_threshold"), refiner.pop("bg_threshold")]
    sure = refiner.pop("threshold")
    _, background = getattr(plan.config.thresholds, threshold_field(plan.config.seeds_of))
    return [sure, min(sure, background)]
