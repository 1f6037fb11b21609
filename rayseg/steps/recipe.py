"""What a run does, in order: the one list that run, estimate, doctor and the check of labels read.

A road leads from one kind of cheap labels to trained networks; a run takes one road, or several.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from rayseg.config import RunConfig, as_toml
from rayseg.labels import Truths
from rayseg.learn import TRAININGS
from rayseg.networks import NETWORKS
from rayseg.progress import announce, tell_results
from rayseg.steps.boxes import make_box_maps, make_box_masks
from rayseg.steps.engine import Engine
from rayseg.steps.masks import refine_seeds
from rayseg.steps.outcome import Outcome
from rayseg.steps.parts import JobFunction, Part, settings_of
from rayseg.steps.plan import in_lines, plan, write_plan
from rayseg.steps.predictions import predict, predict_instances
from rayseg.steps.preparing import prepare
from rayseg.steps.refiners import learnt_from
from rayseg.steps.score import score
from rayseg.steps.seeds import make_seeds
from rayseg.steps.starting import problems, proposal, refuse
from rayseg.steps.training import train
from rayseg.store import Folder, StaleError, holds_objects, lease, read_manifest, read_run
from rayseg.toml import hint


@dataclass(frozen=True)
class Road:
    """The way from one kind of cheap labels to trained networks.

    Attributes:
        asked: kinds of networks that maps are made with.
        refined: kinds of networks that masks are made with.
        maps: the job that makes maps, the kind of its folders and their names.
        masks: ... and the one that makes masks of them.
        trained: the network that learns from the masks, and those that learn from labels whose
            names have their own endings.
        applied: the job that applies it, and the kind of its folders.
        has_truth: whether a split has true labels that such a network can learn from.
    """

    asked: Callable[[RunConfig], set[str]]
    refined: Callable[[RunConfig], set[str]]
    maps: tuple[JobFunction, str, Callable[[RunConfig], tuple[str, ...]]]
    masks: tuple[JobFunction, str, Callable[[RunConfig], list[str]]]
    trained: tuple[str, ...]
    applied: tuple[JobFunction, str]
    has_truth: Callable[[Folder, str], bool]

    def labels(self, config: RunConfig) -> tuple[str, ...]:
        """What networks are trained on: as given, else the last masks."""
        given = config.labels
        if len(roads_of(config)) > 1 and given:  # each name goes where it can be learnt from
            given = tuple(name for name in given if name in self.known(config))
        return given or tuple(self.masks[2](config)[-1:])

    def known(self, config: RunConfig) -> set[str]:
        """Labels that such a network can learn from: the run will have them, or has them."""
        run_folder, (_, kind, names) = Folder(config.run), self.masks
        masks = run_folder / "masks"
        found = {*names(config), *(n for n in masks.folders() if _serves(masks / n, kind))}
        if self.has_truth(run_folder / "manifest", config.train_split):
            found.add("truth")
        _, kind, maps = self.maps
        cues = found | {*maps(config), *(run_folder / kind).folders()}
        grown = [NETWORKS[one].ending for one in self.trained if NETWORKS[one].ending]
        return found | {f"{name}{ending}" for name in cues for ending in grown}

    def learners(self, config: RunConfig) -> dict[str, tuple[str, ...]]:
        """The networks that are trained, each with the labels that it learns from."""
        found: dict[str, list[str]] = {kind: [] for kind in self.trained}
        for name in self.labels(config):
            # the last whose ending it has, as every name has the empty one
            kind = [one for one in self.trained if name.endswith(NETWORKS[one].ending)][-1]
            found[kind].append(name)
        return {kind: tuple(names) for kind, names in found.items() if names}

    def networks(self, config: RunConfig, judged: bool) -> tuple[list[str], list[str]]:
        """Kinds of networks that are trained before the maps, and between maps and masks."""
        given = config.given_weights
        first = {kind for kind in self.asked(config) if not given.get(kind)}
        refined = self.refined(config) if config.until != "seeds" else set()
        second = {kind for kind in refined - first if not given.get(kind)}
        ends = config.until == "segmenters" and (judged or config.labels)
        last = set(self.learners(config)) if ends else set()
        if any(settings_of(config, k).weights == "classifier" for k in first | second | last):
            first.add("classifier")
        return [k for k in TRAININGS if k in first], [k for k in TRAININGS if k in second]

    def learning(self, config: RunConfig, kind: str) -> Iterator[Part]:
        """What makes a network that masks are made with: the masks that it learns from, before."""
        if not NETWORKS[kind].by_labels:
            yield Part(partial(train, kind), kind)
            return
        for before in learnt_from(config, kind):
            names = tuple(before.mask_names())
            shown = not {*before.refiners} <= {*config.refiners}
            yield Part(partial(_refine_by, before.refiners), "masks", names, shown=shown)
            yield Part(partial(train, kind), kind, names, names)

    def parts(self, config: RunConfig, judged: bool) -> Iterator[Part]:
        """Its jobs in order."""
        first, second = self.networks(config, judged)
        yield from (Part(partial(train, kind), kind) for kind in first)
        make, kind, names = self.maps
        yield Part(make, kind, tuple(names(config)))
        if config.until == "seeds":
            return
        before = [part for one in second for part in self.learning(config, one)]
        yield from before
        make, kind, mask_names = self.masks
        made = {name for part in before if part.kind == kind for name in part.names}
        yield Part(make, kind, tuple(name for name in mask_names(config) if name not in made))
        if config.until == "masks" or not (judged or config.labels):
            return
        yield Part(score, shown=False)  # already here, since a training takes hours
        for network, own in self.learners(config).items():
            yield Part(partial(train, network), network, own, own)
        labels = self.labels(config)
        if judged:
            apply, kind = self.applied
            ending = "+crf" if config.crf and kind == "predictions" else ""
            yield Part(apply, kind, tuple(f"{label}{ending}" for label in labels), labels)


def _refine_by(refiners: tuple[str, ...], config: RunConfig, engine: Engine) -> Outcome:
    return refine_seeds(replace(config, refiners=refiners), engine)


def _has_masks(manifest: Folder, split: str) -> bool:
    return bool(Truths(manifest, split).ids)


def _has_object_masks(manifest: Folder, split: str) -> bool:
    table = read_manifest(manifest, true_masks=True).select(split).table
    return any(any(own) for own in table.column("true_masks").to_pylist())


ROADS = {
    "tags": Road(
        lambda config: config.network_kinds,
        lambda config: config.refiner_kinds,
        (make_seeds, "seeds", lambda config: config.methods),
        (refine_seeds, "masks", lambda config: config.mask_names()),
        ("segmenter", "dsrg"),
        (predict, "predictions"),
        _has_masks,
    ),
    "boxes": Road(
        lambda config: {"detector"},
        lambda config: set(),
        (make_box_maps, "box_maps", lambda config: config.box_methods),
        (make_box_masks, "object_masks", lambda config: config.box_mask_names()),
        ("mask_rcnn",),
        (predict_instances, "instances"),
        _has_object_masks,
    ),
}
"""By the kind of labels that they start from; `RunConfig.supervision` names one or several."""


def roads_of(config: RunConfig) -> list[Road]:
    """The roads of a run."""
    return [ROADS[name] for name in config.supervision.split("+")]


def recipe(config: RunConfig, judged: bool) -> list[Part]:
    """The jobs of a run after its manifest, in order; one that several roads need comes once."""
    parts: list[Part] = []
    for road in roads_of(config):
        for part in road.parts(config, judged):
            there = {(one.kind, one.names) for one in parts if one.kind}
            parts += [] if (part.kind, part.names) in there else [part]
    return [*parts, Part(score)]


def is_judged(config: RunConfig) -> bool:
    """Whether the run has images to judge networks on."""
    manifest = read_manifest(Folder(config.run) / "manifest")
    return config.val_split in manifest.table.column("split").to_pylist()


def run(config: RunConfig, engine: Engine) -> Outcome:
    """All jobs in order, from tags or from boxes; what is done already is skipped."""
    so_far = _SoFar()
    with lease(Folder(config.run), "run"):
        try:
            _in_order(config, engine, so_far)
        except Exception as error:
            # which the command line says before the error
            error.__notes__ = so_far.outcome.lines[so_far.told :]
            raise
    return replace(so_far.outcome, told=so_far.told)


@dataclass
class _SoFar:
    """What the jobs of a run did until now.

    Attributes:
        outcome: of them.
        told: how many of its lines were shown when their job ended.
    """

    outcome: Outcome = field(default_factory=Outcome)
    told: int = 0

    def add(self, done: Outcome) -> None:
        """Takes in what a job did, and shows it."""
        self.outcome += done
        self.told += tell_results(done.lines)


def _in_order(config: RunConfig, engine: Engine, so_far: _SoFar) -> None:
    so_far.add(prepare(config, engine))
    Folder(config.run).write("run.toml", as_toml(config).encode())
    judged = is_judged(config)
    *jobs, last = recipe(config, judged)
    refuse([*wrong_labels(config), *problems(config, jobs)])
    planned = plan(config, jobs)
    write_plan(Folder(config.run), planned)
    announce(*in_lines(config, planned), *filter(None, [proposal(config, jobs)]))
    with engine.open(config.address, config.run):
        for part in jobs:
            done = _done(part, config, engine)
            if part.shown:
                so_far.add(done)
        if config.until == "segmenters" and not judged:
            so_far.add(_unjudged(config))
        so_far.add(last.job(config, engine))


def _done(part: Part, config: RunConfig, engine: Engine) -> Outcome:
    """What a job of the run did; a network that was trained on what has changed since stays.

    Raises:
        StaleError: another folder cannot stay, or the network is not trained to its end.
    """
    try:
        return part.job(replace(config, labels=part.labels) if part.labels else config, engine)
    except StaleError as error:
        network = NETWORKS.get(part.kind)
        if not network:
            raise
        places = [Folder(config.run) / f"{network.place}/{name}".rstrip("/") for name in part.names]
        if not all(read_run(place).get("done") for place in places):
            raise
        return Outcome([f"stale: {error}"], left_out=1)


def _unjudged(config: RunConfig) -> Outcome:
    networks = " and ".join(f"{NETWORKS[road.trained[0]].noun}s" for road in roads_of(config))
    lacking = "predictions" if config.labels else f"{networks}; --labels trains one anyway"
    return Outcome([f"no image is of split {config.val_split!r}, so no {lacking}"])


def wrong_labels(config: RunConfig) -> Iterator[ValueError]:
    """What would be missing hours later: labels that the run will not have."""
    if not config.labels or config.until != "segmenters":
        return
    known = set().union(*(road.known(config) for road in roads_of(config)))
    for name in config.labels:
        if name not in known:
            yield ValueError(
                f"labels must be of {', '.join(sorted(known))}, got {name!r}{hint(name, known)}"
            )


def _serves(folder: Folder, kind: str) -> bool:
    """Whether masks serve what is trained on that kind; a segmenter takes those of objects too."""
    return kind == "masks" or holds_objects(folder)
