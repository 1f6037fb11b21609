"""The job that sweeps settings: trials side by side on one fixed list of images.

What a trial has counted is stored (trials.py). So a job that is killed and started again repeats no
slice of images, whatever the search; and a later search with other values adds to the same folder.
Ray Tune draws the settings, starts trials and ends those that lag behind.
"""

import importlib.util
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray
from ray import tune as ray_tune
from ray.tune.error import TuneError
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch

from rayseg.config import TuneConfig
from rayseg.on_ray.session import preflight
from rayseg.on_ray.watch import one_line_errors
from rayseg.progress import activity
from rayseg.stages import TrialImage
from rayseg.steps.engine import Engine, Slots
from rayseg.steps.outcome import Outcome
from rayseg.steps.spaces import load_space
from rayseg.steps.sweep import best_entry, write_sweep
from rayseg.steps.trials import Plan, mark_stopped, run_trial, stored_trials
from rayseg.store import Folder, claim, lease, write_run

MAX_DEATHS = 10
"""Of the process that loads an image, after which the image is left out."""


def tune(config: TuneConfig, engine: Engine) -> Outcome:
    """Runs the trials and says which setting was best.

    Raises:
        ValueError: the space, its values or the images cannot be used.
        ChildProcessError: a trial failed.
    """
    if config.engine != "ray":
        raise ValueError("tune runs trials side by side, which only engine ray can")
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
    with lease(folder, "tune"), engine.open(config.address, config.run):
        # counts would be taken from the trials, whatever else is there
        claim(folder / "trials", identity, "tuning", config.compute.remake_stale)
        write_run(folder, {"config": identity, "kind": "tuning", "done": False})
        plan = plan.with_bank(engine)
        slices, left_out = load_images(plan, chosen)
        failure = _search(plan, slices, left_out, folder, engine.slots(config.compute))
        if failure and not any(one["done"] for one in stored_trials(folder)):
            raise ChildProcessError(failure)
        outcome = write_sweep(plan, folder, left_out)
    if failure:  # the results of the other trials are written
        raise ChildProcessError(failure)
    return outcome


def _search(
    plan: Plan, slices: list[list[Any]], left_out: dict[str, str], folder: Folder, slots: Slots
) -> str:
    """Runs the trials of the search; says what failed, if any did."""
    config, space = plan.config, plan.space
    trials = config.compute.max_actors or slots.actors
    preflight("tuning", trials, slots.threads, slots.gpus, config.compute.grows)
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # our own files say it all
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths stay what they are
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # whose tables no verbosity switches off
    trainable = ray_tune.with_resources(
        ray_tune.with_parameters(
            run_trial,
            plan=plan,
            slices=slices,
            left_out=left_out,
            folder=folder,
            load=ray.get,
            report=ray_tune.report,
        ),
        {"cpu": slots.threads, "gpu": slots.gpus},
    )
    number, parameters, searcher = _searcher(plan, folder, trials)
    if not number:
        return ""
    scratch = folder / "ray"
    scratch.remove()
    with (
        one_line_errors("tuning", TuneError),
        activity(f"trials {space.name}", number, "trial") as bar,
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
        search.add_evaluated_point(point, best_entry(one, space)[space.metric])
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


@ray.remote(num_cpus=1, max_retries=MAX_DEATHS)
def _load_image(plan: Plan, row: dict[str, Any]) -> TrialImage | str:
    """The image, or why there is none."""
    try:
        return plan.image(row)
    except (ValueError, OSError) as error:
        return str(error)


def load_images(
    plan: Plan, chosen: Sequence[dict[str, Any]]
) -> tuple[list[list[Any]], dict[str, str]]:
    """Slices of references to images in the object store, which all trials share; and ids left out.

    Slices are of what was chosen; one of which nothing is left is none.

    Raises:
        ValueError: no image can be used.
    """
    shared = ray.put(plan)
    made = [(row["id"], _load_image.remote(shared, row)) for row in chosen]
    size, left_out = plan.config.slice_images, {}
    slices: list[list[Any]] = [[] for _ in range(0, len(made), size)]
    with activity("images", len(made), "image") as bar:
        for place, (id_, reference) in enumerate(made):
            try:
                found = ray.get(reference)
            except ray.exceptions.RayError as error:
                found = f"its process ended: {type(error).__name__}"
            if isinstance(found, str):
                left_out[id_] = found
            else:
                slices[place // size].append(reference)
            bar.update(1)
    if not any(slices):
        id_, reason = next(iter(left_out.items()))
        raise ValueError(f"no image can be used to tune by, such as {id_}: {reason}")
    return [one for one in slices if one], left_out
