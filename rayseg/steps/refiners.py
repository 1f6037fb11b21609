"""Refiners that work on a network: what it learns from, and the one that goes with some seeds."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

from rayseg.config import RefineSeedsConfig
from rayseg.networks import NETWORKS
from rayseg.stages import network_kind
from rayseg.steps.sources import finished_config
from rayseg.steps.weights import own_weights
from rayseg.store import REMAKE, Folder, read_manifest, read_run, stored_ids

C = TypeVar("C", bound=RefineSeedsConfig)


def learnt_from(config: C, kind: str) -> Iterator[C]:
    """The jobs that make the masks from which a kind of network learns for the job's refiners."""
    for name in config.refiners:
        if network_kind(getattr(config, name)) == kind:
            yield config.learnt_from(name)


def network_of(config: RefineSeedsConfig, name: str, method: str) -> str:
    """Address of the weights that a refiner works with on the seeds of a method.

    Raises:
        FileNotFoundError: the network is not trained.
        ValueError: it was trained on other seeds, or on another split than these seeds are of.
    """
    run_folder, kind = Folder(config.run), network_kind(getattr(config, name))
    (place,) = replace(config.learnt_from(name), methods=(method,)).mask_names()
    weights = own_weights(run_folder, kind, labels=place)
    _refuse_others(run_folder, run_folder / NETWORKS[kind].place / place, method)
    return weights


def _refuse_others(run_folder: Folder, network: Folder, method: str) -> None:
    seeds, followed = run_folder / "seeds" / method, read_run(network).get("config", {})
    made = finished_config(run_folder, seeds, "seeds", f"make-seeds --methods {method}")
    if followed.get("labels", {}).get("seeds") != made:
        raise ValueError(
            f"{network} was trained on masks from other seeds than {seeds} holds now, of another "
            f"classifier or other settings; train it again on these: {REMAKE}"
        )
    split = followed.get("split", "")
    own = read_manifest(run_folder / "manifest").select(split).table.column("id").to_pylist()
    if others := stored_ids(seeds) - {*own}:
        raise ValueError(
            f"{network} was trained on split {split!r}, and {seeds} holds {len(others)} images of "
            f"others, such as {min(others)}; refine these in another --run"
        )
