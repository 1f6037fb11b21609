"""The job that makes localization maps, and the bank of companions that its actors share."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import ray

from rayseg.config import MakeSeedsConfig, as_plain
from rayseg.nets.registry import NETWORKS
from rayseg.on_ray.bookkeeping import (
    Outcome,
    digest,
    fill_by_images,
    open_folder,
    read_ids,
    without,
)
from rayseg.on_ray.data import actor_pool
from rayseg.on_ray.session import gpus_each, one_line_errors, session, threads_each
from rayseg.stages import (
    SHARED,
    CompanionArrays,
    CompanionBank,
    MakeSeeds,
    fill_bank,
)
from rayseg.store import (
    SEEDS_SCHEMA,
    Folder,
    local_copy,
    read_manifest,
    read_rows,
    read_run,
    stored_ids,
    write_run,
)


def make_seeds(config: MakeSeedsConfig) -> Outcome:
    """Makes the localization maps of each method."""
    compute, run_folder = config.compute, Folder(config.run)
    manifest = read_manifest(run_folder / "manifest")
    chosen = manifest.select(config.split, read_ids(config.ids))
    weights = {kind: find_weights(config, kind) for kind in config.network_kinds}
    for kind, address in weights.items():
        NETWORKS[kind].load(local_copy(address), manifest.classes)  # a wrong file is said here
    fingerprints = {kind: digest(address) for kind, address in weights.items()}
    outcome = Outcome()
    with session(config.address, config.run):
        gpus, threads = gpus_each(compute), threads_each(compute)
        bank = SharedBank(run_folder, config.companions)
        for name in config.methods:
            method = config.method(name)
            kind, label = method.network_kind, f"seeds {name}"
            folder = run_folder / "seeds" / name
            open_folder(folder, identity(config, name, fingerprints[kind]), compute)
            waiting = without(chosen.table, stored_ids(folder))
            shared = bank if waiting.num_rows and method.uses_companions else None
            if shared:
                shared.bind(folder)
            make = partial(
                MakeSeeds, method, weights[kind], manifest.classes, compute.device, threads,
                shared.reader if shared else None,
            )  # fmt: skip
            pool = actor_pool(compute, make, gpus)
            outcome += fill_by_images(folder, waiting, pool, SEEDS_SCHEMA, label, untagged=False)
            if method.uses_companions:
                outcome += _overlaps(folder, label)
    return outcome


def find_weights(config: MakeSeedsConfig, kind: str) -> str:
    """The weights of that kind of network: those given, else the run's own.

    Raises:
        FileNotFoundError: the run has none yet.
    """
    network = NETWORKS[kind]
    given: str = getattr(config, network.given_as)
    own = Folder(config.run) / network.folder
    if not given and not own.exists(network.file):
        raise FileNotFoundError(
            f"{own} holds no {network.file}; make it with `rayseg {network.job}`"
        )
    address = given or own.path(network.file)
    return address if "://" in address else str(Path(address).absolute())


def identity(config: MakeSeedsConfig, name: str, fingerprint: str) -> dict[str, Any]:
    """What the maps of a method or combination follow from, image by image."""
    found: dict[str, Any] = {}
    for part, method in config.parts(name).items():
        plain = as_plain(method)
        found[part] = {key: plain[key] for key in plain if key not in method.rounding_only}
    found["weights"] = fingerprint
    if config.method(name).uses_companions:
        found["companions"] = as_plain(config.companions)
    return found


@dataclass(frozen=True)
class SharedBank:
    """The companions of a job, cut by one task when the first actors ask for them.

    They lie in the object store; actors of a node look at the same memory. While the job holds the
    reference, a copy that is lost with its node is cut again, the same to the bit.

    Attributes:
        run: folder of the run.
        bank: which crops.
    """

    run: Folder
    bank: CompanionBank

    @cached_property
    def reader(self) -> partial[Any]:
        """Gives an actor the bank.

        Raises:
            ChildProcessError: there is none to be cut.
        """
        return partial(_read_bank, self._cut[1])

    @cached_property
    def _cut(self) -> tuple[str, Any]:
        """Digest of the bank's ids, and the reference to it."""
        references: Any = _cut_bank.remote(self.run, self.bank)
        ids, arrays = references
        with one_line_errors("cutting companions"):
            return ray.get(ids), arrays  # a bank that cannot be is said here, and travels not

    def bind(self, folder: Folder) -> None:
        """Holds a folder to one bank: an image that cannot be read today would change it.

        Raises:
            ValueError: the folder's rows were made with companions of other images.
        """
        known = read_run(folder).get("bank")
        if known not in (None, self._cut[0]):
            raise ValueError(
                f"{folder} must be filled with one bank of companions, got another one than that "
                f"of its rows; an image of split {self.bank.split!r} may have become unreadable"
            )
        write_run(folder, {"bank": self._cut[0]})


# an image that kills its decoder kills every try; any other death is the machine's
@ray.remote(num_cpus=1, num_returns=2, max_retries=3)
def _cut_bank(run: Folder, bank: CompanionBank) -> tuple[str, CompanionArrays]:
    manifest = read_manifest(run / "manifest")
    samples = manifest.select(bank.split).samples()
    companions = fill_bank(samples, len(manifest.classes), bank)
    ids = hashlib.sha256("\n".join(companions.ids).encode()).hexdigest()
    return ids, CompanionArrays.of(companions)


def _read_bank(arrays: ray.ObjectRef[CompanionArrays]) -> Any:
    return ray.get(arrays).companions()


def _overlaps(folder: Folder, label: str) -> Outcome:
    """Says how many images had to do with companions that are not wholly unlike them."""
    rows = read_rows(folder, ["note"])
    number = sum(SHARED in row["note"] for row in rows)
    if not number:
        return Outcome()
    return Outcome([f"{label}: {number} images had companions that share a class with them"])
