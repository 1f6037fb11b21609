"""The job that makes localization maps, and the bank of companions that its actors share."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from rayseg.attribution import Companions
from rayseg.config import MakeSeedsConfig, as_plain
from rayseg.networks import NETWORKS
from rayseg.stages import SHARED, CompanionArrays, CompanionBank, MakeSeeds, fill_bank
from rayseg.steps.chosen import Chosen
from rayseg.steps.engine import Engine
from rayseg.steps.machine import threads_each
from rayseg.steps.outcome import Outcome
from rayseg.steps.sources import asked_for, digest, read_ids
from rayseg.steps.step import Fill, Step, carry_out, nothing
from rayseg.steps.weights import find_weights
from rayseg.store import (
    REMAKE,
    Folder,
    StaleError,
    hash_ids,
    local_copy,
    read_manifest,
    read_rows,
    read_run,
    write_run,
)


def make_seeds(config: MakeSeedsConfig, engine: Engine) -> Outcome:
    """Makes the localization maps of each method."""
    manifest = read_manifest(Folder(config.run) / "manifest")
    asked_for(manifest, config.split, config.ids)
    for kind in config.network_kinds:  # a wrong file fails here
        NETWORKS[kind].load(local_copy(find_weights(config, kind)), manifest.classes)
    with engine.open(config.address, config.run):
        return carry_out(seed_steps(config, engine), engine, config.compute)


def seed_steps(config: MakeSeedsConfig, engine: Engine) -> Iterator[Step]:
    """A folder of maps for each method."""
    compute, run_folder = config.compute, Folder(config.run)
    manifest = read_manifest(run_folder / "manifest")
    chosen = Chosen(run_folder / "manifest", config.split, read_ids(config.ids), reads=("tags",))
    weights = {kind: find_weights(config, kind) for kind in sorted(config.network_kinds)}
    fingerprints = {kind: digest(address) for kind, address in weights.items()}
    bank = SharedBank(run_folder, config.companions, engine)
    for name in config.methods:
        method = config.method(name)
        kind, label = method.network_kind, f"seeds {name}"
        make = partial(
            MakeSeeds, method, weights[kind], manifest.classes, compute.device,
            threads_each(compute),
        )  # fmt: skip
        shared = method.uses_companions
        bind = partial(bank.bound, make) if shared else None
        yield Step(
            "seeds",
            run_folder / "seeds" / name,
            identity(config, name, fingerprints[kind]),
            Fill(chosen, make, untagged=False, bind=bind, weights=weights[kind]),
            label,
            partial(_overlaps, label) if shared else nothing,
        )


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
    """The companions of a job, cut once, when the first actors ask for them.

    All processes of a machine look at the same memory. A copy that is lost with its machine is cut
    again, the same to the bit.
    """

    run: Folder
    bank: CompanionBank
    engine: Engine

    @cached_property
    def _cut(self) -> tuple[str, Callable[[], CompanionArrays]]:
        """Digest of the bank's images, and what gives it."""
        return self.engine.share(partial(_cut_bank, self.run, self.bank), "cutting companions")

    @property
    def reader(self) -> Callable[[], Companions]:
        """Gives an actor the bank.

        Raises:
            ChildProcessError: there is none to be cut.
        """
        return partial(_read_bank, self._cut[1])

    def bound(self, make: Callable[..., MakeSeeds], folder: Folder) -> Callable[[], MakeSeeds]:
        """The stage with the bank, to which the folder is held."""
        known = read_run(folder).get("bank")
        if known not in (None, self._cut[0]):
            raise StaleError(
                f"{folder} must be filled with one bank of companions, and an image of split "
                f"{self.bank.split!r} that its rows were made with has changed since; {REMAKE}"
            )
        write_run(folder, {"bank": self._cut[0]})
        return partial(make, self.reader)


def _cut_bank(run: Folder, bank: CompanionBank) -> tuple[str, CompanionArrays]:
    manifest = read_manifest(run / "manifest")
    samples = manifest.select(bank.split).samples()
    companions = fill_bank(samples, len(manifest.classes), bank)
    digests = manifest.digests(("tags",))
    name = hash_ids(f"{id_}{digests[id_]}" for id_ in companions.ids)
    return name, CompanionArrays.of(companions)


def _read_bank(given: Callable[[], CompanionArrays]) -> Companions:
    return given().companions()


def _overlaps(label: str, folder: Folder) -> Outcome:
    """Says how many images had to do with companions that are not wholly unlike them."""
    rows = read_rows(folder, ["note"])
    number = sum(SHARED in row["note"] for row in rows)
    if not number:
        return Outcome()
    return Outcome([f"{label}: {number} images had companions that share a class with them"])
