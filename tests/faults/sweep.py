"""The job `tune` as a loop in one process: trials as Ray Tune would run them, one by one."""

import itertools

from rayseg.config import TuneConfig
from rayseg.steps.engine import Engine
from rayseg.steps.outcome import Outcome
from rayseg.steps.spaces import load_space
from rayseg.steps.sweep import write_sweep
from rayseg.steps.trials import Plan, run_trial
from rayseg.store import claim, lease, write_run


def tune(config: TuneConfig, engine: Engine) -> Outcome:
    """As `rayseg.on_ray.tune.tune`, without what only Ray does."""
    space = load_space(config.space).narrowed(config.grid)
    plan = Plan.of(config, space)
    chosen = plan.choose()
    folder, identity = plan.folder, plan.identity(chosen)
    with lease(folder, "tune"), engine.open(config.address, config.run):
        claim(folder / "trials", identity, "tuning", config.compute.remake_stale)
        write_run(folder, {"config": identity, "kind": "tuning", "done": False})
        plan = plan.with_bank(engine)
        images = [plan.image(row) for row in chosen]
        size = config.slice_images
        slices = [images[start : start + size] for start in range(0, len(images), size)]
        for values in itertools.product(*space.grid.values()):
            setting = dict(zip(space.grid, values, strict=True))
            run_trial(setting, plan, slices, {}, folder, lambda image: image, lambda facts: None)
        return write_sweep(plan, folder, {})
