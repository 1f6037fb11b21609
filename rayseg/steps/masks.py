"""The job that turns localization maps into masks."""

from collections.abc import Iterator
from functools import partial
from itertools import product

from rayseg.config import RefineSeedsConfig, as_plain
from rayseg.stages import RefineSeeds, SaliencyMaps, finds_objects, network_kind
from rayseg.steps.engine import Engine
from rayseg.steps.outcome import Outcome
from rayseg.steps.refiners import network_of
from rayseg.steps.sources import digest, finished_config
from rayseg.steps.step import Fill, Step, carry_out
from rayseg.store import WALKED_SCHEMA, Folder


def refine_seeds(config: RefineSeedsConfig, engine: Engine) -> Outcome:
    """Makes the masks of each method by each refiner."""
    _saliency(config)  # a missing folder fails here
    with engine.open(config.address, config.run):
        return carry_out(mask_steps(config), engine, config.compute)


def mask_steps(config: RefineSeedsConfig) -> Iterator[Step]:
    """A folder of masks for each method and refiner."""
    run_folder, saliency = Folder(config.run), _saliency(config)
    pairs = product(config.methods, config.refiners)
    for (method, name), label in zip(pairs, config.mask_names(), strict=True):
        seeds = run_folder / "seeds" / method
        refiner = config.refiner(name, method)
        made = finished_config(run_folder, seeds, "seeds", f"make-seeds --methods {method}")
        identity = {name: as_plain(refiner), "seeds": made}
        if saliency:
            maps = {"maps": saliency.folder.location}
            identity["saliency"] = as_plain(config.saliency) | maps
        weights = ""
        make = partial(RefineSeeds, refiner, run_folder / "manifest", saliency=saliency)
        if kind := network_kind(refiner):
            weights = network_of(config, name, method)
            identity["weights"] = digest(weights)
            make = partial(make, weights=weights, device=config.compute.device)
        schema = WALKED_SCHEMA if kind and not finds_objects(refiner) else None
        yield Step(
            "tag_instances" if finds_objects(refiner) else "masks",
            run_folder / "masks" / label,
            identity,
            Fill(seeds, make, keeps_network=bool(kind), weights=weights, schema=schema),
            f"masks {label}",
        )


def _saliency(config: RefineSeedsConfig) -> SaliencyMaps | None:
    if not config.saliency_maps:
        return None
    saliency = SaliencyMaps(Folder(config.saliency_maps), config.saliency)
    if not saliency.folder.exists():
        raise FileNotFoundError(f"folder of saliency maps {saliency.folder} does not exist")
    return saliency
