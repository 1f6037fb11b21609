"""The job that sweeps settings: trials side by side on one fixed list of images.

What a trial has counted is stored (trials.py). So a job that is killed and started again repeats no
slice of images, whatever the search; and a later search with other values adds to the same folder.
Ray Tune draws the settings, starts trials and ends those that lag behind.
"""

from __future__ import annotations

import importlib.util
import json
import os
from typing import Any

import numpy as np
from ray import tune as ray_tune
from ray.tune.error import TuneError
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch
from tqdm import tqdm

from rayseg.config import TuneConfig, as_plain, as_toml, threshold_field
from rayseg.on_ray.data import pool_size
from rayseg.on_ray.session import gpus_each, one_line_errors, preflight, session, threads_each
from rayseg.on_ray.spaces import Space, load_space
from rayseg.on_ray.trials import Plan, load_images, mark_stopped, run_trial, stored_trials
from rayseg.report import draw_sensitivity
from rayseg.steps.outcome import Outcome
from rayseg.store import Folder, claim, write_run

BACKGROUND = "background_threshold"
"""Figure of trials of maps: the threshold that was best."""


def tune(config: TuneConfig) -> Outcome:
    """Runs the trials and says which setting was best.

    Raises:
        ValueError: the space, its values or the images cannot be used.
        ChildProcessError: a trial failed.
    """
    space = load_space(config.space)
    given = {one.partition("=")[0] for one in config.grid} & set(space.domains)
    if given and config.search != "grid":
        raise ValueError(
            f"grid gives values of {min(given)} to grid search; {config.search} draws from the "
            "space's domains"
        )
    space = space.narrowed(config.grid)
    plan = Plan.of(config, space)
    chosen = plan.choose()
    folder, identity = plan.folder, plan.identity(chosen)
    claim(folder / "trials", identity)  # which counts would be taken from, whatever else is there
    write_run(folder, {"config": identity, "done": False})
    with session(config.address, config.run):
        plan = plan.with_bank()
        slices, left_out = load_images(plan, chosen)
        failure = _search(plan, slices, left_out, folder)
    if failure and not any(one["done"] for one in stored_trials(folder)):
        raise ChildProcessError(failure)
    outcome = _write(plan, folder, left_out)
    if failure:  # what the other trials came to is written
        raise ChildProcessError(failure)
    return outcome


def _search(plan: Plan, slices: list[list[Any]], left_out: dict[str, str], folder: Folder) -> str:
    """Runs the trials of the search; says what failed, if any did."""
    config, space = plan.config, plan.space
    gpus, threads = gpus_each(config.compute), threads_each(config.compute)
    trials = config.compute.max_actors or pool_size(config.compute, gpus)
    preflight("tuning", trials, threads, gpus, config.compute.grows)
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # our own files say it all
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths stay what they are
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # whose tables no verbosity switches off
    trainable = ray_tune.with_resources(
        ray_tune.with_parameters(
            run_trial, plan=plan, slices=slices, left_out=left_out, folder=folder
        ),
        {"cpu": threads, "gpu": gpus},
    )
    number, parameters, searcher = _searcher(plan, folder, trials)
    if not number:
        return ""
    scratch = folder / "ray"
    scratch.remove()
    with (
        one_line_errors("tuning", TuneError),
        tqdm(total=number, desc=f"trials {space.name}", unit="trial") as bar,
    ):
        found = ray_tune.Tuner(
            trainable,
            param_space=parameters,
            tune_config=ray_tune.TuneConfig(
                metric=space.metric,
                mode=space.mode,
                search_alg=searcher,
                scheduler=_scheduler(config, sum(map(len, slices))),
                num_samples=1 if config.search == "grid" else number,
                max_concurrent_trials=None if config.search == "random" else trials,
                reuse_actors=True,
            ),
            run_config=ray_tune.RunConfig(
                name="trials",
                storage_path=scratch.location,
                verbose=0,
                failure_config=ray_tune.FailureConfig(max_failures=config.compute.max_failures),
                callbacks=[_Progress(bar, plan, folder)],
            ),
        ).fit()
    scratch.remove()
    if not found.errors:
        return ""
    lines = str(found.errors[0]).strip().splitlines()
    return f"{len(found.errors)} of {len(found)} trials failed, such as: {lines[-1].strip()}"


def _searcher(plan: Plan, folder: Folder, trials: int) -> tuple[int, dict[str, Any], Any]:
    """Trials to run, what they are drawn from, and by what.

    Raises:
        ImportError: Optuna is asked for and not there.
    """
    config, space = plan.config, plan.space
    if config.search == "grid":
        number = int(np.prod([len(values) for values in space.grid.values()], dtype=int))
        return number, {n: ray_tune.grid_search(v) for n, v in space.grid.items()}, None
    if config.search == "random":
        drawn = BasicVariantGenerator(max_concurrent=trials, random_state=config.tune_seed)
        return config.samples, space.domains, drawn
    if importlib.util.find_spec("optuna") is None:
        raise ImportError("search optuna needs a package: pip install 'rayseg[optuna]'")
    drawable = [(space.drawable(one["setting"]), one) for one in stored_trials(folder)]
    begun = [(point, one) for point, one in drawable if point is not None]
    known = [(point, one) for point, one in begun if one["done"] or one["stopped"]]
    search = OptunaSearch(
        OptunaSearch.convert_search_space(space.domains),
        metric=space.metric,
        mode=space.mode,
        seed=config.tune_seed + len(known),  # the first draws of one seed are the same
        points_to_evaluate=[point for point, one in begun if (point, one) not in known] or None,
    )
    for point, one in known:
        search.add_evaluated_point(point, _best(one, space)[space.metric])
    return max(config.samples - len(known), 0), {}, search


def _scheduler(config: TuneConfig, images: int) -> FIFOScheduler:
    """What ends trials before they have counted all images."""
    if config.stop_early == "none":
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr="images",
        max_t=images,
        grace_period=min(2 * config.slice_images, images),
        reduction_factor=3,
    )


def _best(trial: dict[str, Any], space: Space) -> dict[str, Any]:
    """The best entry of those that were read off a trial."""
    return max(trial["figures"], key=lambda one: one[space.metric])


class _Progress(ray_tune.Callback):
    """Moves a bar when a trial ends, and notes where the search ended it."""

    def __init__(self, bar: Any, plan: Plan, folder: Folder):
        self.bar, self.plan, self.folder = bar, plan, folder

    def __getstate__(self) -> dict[str, Any]:
        """Tune stores what it is given; a terminal cannot be."""
        return vars(self) | {"bar": None}

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """One more."""
        mark_stopped(trial.config, self.plan, self.folder)
        self.bar.update(1)


def _write(plan: Plan, folder: Folder, left_out: dict[str, str]) -> Outcome:
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
    said = ", ".join(
        f"{name} {_shown(best[name])}" for name in (*names, BACKGROUND) if name in best
    )
    lines = [
        f"tuning {space.name}: best {space.metric} {100 * best[space.metric]:.1f} at {said}",
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
    told = {name: {str(one["setting"][name]) for one in trials} for name in sorted(space.domains)}
    searched = [name for name in told if len(told[name]) > 1] or list(told)
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
    told: dict[str, Any] = {}
    if space.kind == "objects":  # what the maps were judged by
        told["box_crf"] = as_plain(config.box_crf)
    values: dict[str, Any] = {}
    for name in best.keys() & {*space.domains, *space.read_off}:
        part, dot, own = name.rpartition(".")
        (told[part] if dot else values)[own] = best[name]
    told[space.name] = as_plain(space.setting(plan.base, values))
    if space.name in ("label_crf", "threshold"):  # thresholds stand with the maps' method
        told["thresholds"] = {threshold_field(config.seeds_of): _pair(told[space.name], plan)}
    head = f"# {space.metric} {100 * best[space.metric]:.2f}"
    if BACKGROUND in best:
        head += f" at background threshold {best[BACKGROUND]:g}"
    return f"{head}\n{as_toml(told)}"


def _pair(refiner: dict[str, Any], plan: Plan) -> list[float]:
    """The thresholds of sure foreground and sure background, taken out of a refiner's fields."""
    if "threshold" not in refiner:
        return [refiner.pop("fg_threshold"), refiner.pop("bg_threshold")]
    sure = refiner.pop("threshold")
    _, background = getattr(plan.config.thresholds, threshold_field(plan.config.seeds_of))
    return [sure, min(sure, background)]
