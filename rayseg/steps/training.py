"""The one way in which a network is trained into a folder of the run, whatever network it is."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import Any

from rayseg.config import identity_of, thresholds_of
from rayseg.labels import Cues, bad_boxes
from rayseg.learn import (
    STATE,
    TRAININGS,
    Training,
    Work,
    forget_damaged_state,
    forget_failure,
    load_state,
    raise_failure,
    refuse_others,
)
from rayseg.learn import train as loop
from rayseg.networks import NETWORKS
from rayseg.stages import CheckLabels, Row
from rayseg.steps.engine import Engine, Images, Pool
from rayseg.steps.following import followed, tell_fitted
from rayseg.steps.labels import NAMED
from rayseg.steps.outcome import Outcome
from rayseg.steps.sources import others_there, refuse_changed
from rayseg.steps.starting import refuse, weights_of
from rayseg.steps.step import Once, Step, carry_out
from rayseg.steps.weights import (
    absolute_weights,
    images_identity,
    refuse_failing,
    start_of,
    weights_identity,
)
from rayseg.store import (
    REMAKE,
    Folder,
    Manifest,
    StaleError,
    forget_progress,
    lease,
    read_manifest,
    read_run,
    write_run,
)

MAX_NAMED = 50
"""Masks or boxes left out of a training that its run.json names; all are counted."""
CHECKED_ROWS = 256
"""Masks that are checked by one task."""


def train(kind: str, config: Any, engine: Engine) -> Outcome:
    """Trains a network of one kind, on each of the labels that are named where labels have names.

    Args:
        config: of the job; holds the training under the name of its `field`.

    Raises:
        ValueError: a folder was trained on other images or labels than there are now; labels,
            weights, batch size or cluster do not fit.
        FileNotFoundError: there are no such labels.
        FloatingPointError: the loss is not finite.
        ChildProcessError: a worker failed for a reason that a new start does not change, or workers
            were lost too often.
    """
    refuse_changed(Folder(config.run) / "manifest")
    steps = list(training_steps(kind, config))
    _claim_all(steps, config.compute.remake_stale)  # before any, since a training takes hours
    done = all(read_run(step.folder).get("done") for step in steps)
    if not done:
        refuse([wrong for wrong in [weights_of(config, kind).problem(fetch=True)] if wrong])
    with nullcontext() if done else engine.open(config.address, config.run):
        return carry_out(steps, engine, config.compute)


def _claim_all(steps: Iterable[Step], remake: bool) -> None:
    """Binds the folders of all steps.

    Raises:
        StaleError: of some there is another source now; all these are named.
    """
    stale: list[str] = []
    for step in steps:
        try:
            with lease(step.folder, step.label):
                step.claim(remake)
        except StaleError as error:
            stale.append(str(error))
    if stale:
        raise StaleError("; ".join(stale))


@dataclass(frozen=True)
class _Task:
    """One network of a job."""

    config: Any
    training: Training
    start: Training
    folder: Folder
    label: str
    images: Manifest
    labels: Any
    origin: dict[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """What the network follows from."""
        found = {
            "split": self.config.train_split,
            self.training.makes: identity_of(self.training),
            **weights_identity(self.start.weights),
        }
        if self.training.learns_from in NAMED:
            found |= {"labels": self.origin} | images_identity(self.images, self.labels.ids)
        return found

    @property
    def step(self) -> Step:
        """What trains it."""
        return Step(
            self.training.makes, self.folder, self.identity, Once(self.fit), self.label,
            self.outcome, self.hold,
        )  # fmt: skip

    def hold(self, folder: Folder) -> None:
        """Holds the folder to images and labels; those of earlier versions do not say which.

        Raises:
            StaleError: it has learnt from others.
        """
        facts, here = read_run(folder), self._learnt_from
        there = facts.get("learnt_from")
        if there not in (None, here):
            raise StaleError(
                f"{folder} was trained on other images or {self.training.learns_from} than there "
                f"are now ({there['images']} images there, {here['images']} here); {REMAKE}"
            )
        if there is None and not facts.get("done"):
            write_run(folder, {"learnt_from": here})

    @property
    def _learnt_from(self) -> dict[str, Any]:
        """The number of images, and a digest of these and of what is learnt of each."""
        content, ids = hashlib.sha256(repr(self.images.classes).encode()), self.labels.ids
        learnt = [sample for sample in self.images.samples() if sample.id in ids]
        for sample in learnt:
            content.update(sample.image_digest.encode() + self.labels.content(sample))
        return {"images": len(learnt), "digest": content.hexdigest()}

    def fit(self, folder: Folder, engine: Engine) -> dict[str, Any]:
        """Trains and leaves the weights in the folder; goes on after the last checkpoint.

        Returns:
            Figures: the losses, what checkpoints were judged at, seconds, images, what is left out.
        """
        config, labels = self.config, self.labels
        ids, problems, unlabelled = self._trainable(engine)
        asked = self.start.suited_to(labels)
        training = asked.fitted(len(ids), config.compute.workers)
        changed = tell_fitted(self.label, training, asked, len(ids))
        manifest = read_manifest(Folder(config.run) / "manifest")
        work = Work(
            Folder(config.run).location, folder.location,
            replace(training, weights=absolute_weights(training.weights)), labels, ids,
            manifest.classes, config.train_split, config.val_split, config.compute.loader_workers,
        )  # fmt: skip
        # wrong weights or a wrong batch size fail here, not in each worker in turn
        work.training.build(work.classes)
        work.training.check(len(ids), config.compute.workers)
        forget_damaged_state(folder)
        refuse_others(folder, ids)
        forget_failure(folder)
        steps = training.length(len(ids)).steps
        try:
            with followed(folder, self.label, steps):
                engine.fit(loop, work, folder, config.compute)
        finally:
            raise_failure(folder)
        facts = load_state(folder).facts
        examples = [{"id": id_, "reason": reason} for id_, reason in problems[:MAX_NAMED]]
        return {
            **{name: facts[name] for name in ("curve", "judged", "seconds")},
            "step_seconds": facts.get("step_seconds", facts["seconds"]),
            "steps_per_epoch": training.length(len(ids)).epoch,
            "fitted": changed,
            "images": len(ids),
            "images_left_out": self.images.table.num_rows - len(ids),
            "left_out": {"count": len(problems), "examples": examples},
            "unlabelled": unlabelled,
        }

    def _trainable(self, engine: Engine) -> tuple[list[str], list[tuple[str, str]], int]:
        """Ids of the images to train on, what is left out and why, and how many more are not used.

        Raises:
            ValueError: there is no image.
        """
        known = self.labels.ids
        labelled = [id_ for id_ in self.images.table.column("id").to_pylist() if id_ in known]
        problems: list[tuple[str, str]] = []
        bad, unlabelled = set[str](), 0
        if self.training.learns_from in ("masks", "cues"):
            rows = self._bad_masks(labelled, engine)
            bad = {row["id"] for row in rows}
            expected = self.training.expects_unlabelled and len(bad) < len(labelled)
            told = [row for row in rows if not (expected and row["unlabelled"])]
            problems, unlabelled = [(r["id"], r["problem"]) for r in told], len(rows) - len(told)
        elif self.training.learns_from == "boxes":
            problems = list(bad_boxes(self.images.samples()))
        elif self.training.learns_from == "objects":
            # the images that it does without lack masks, whatever their boxes are
            problems = list(bad_boxes(self.images.select(ids=labelled).samples()))
        ids = [id_ for id_ in labelled if id_ not in bad]
        if not ids:
            raise ValueError(self._nothing(len(labelled), problems))
        return ids, problems, unlabelled

    def _bad_masks(self, labelled: list[str], engine: Engine) -> list[Row]:
        """The rows of `CheckLabels` of masks that cannot be learnt from, by the images' ids."""
        if not labelled:
            return []
        table = self.images.select(ids=labelled).table
        pool = Pool(partial(CheckLabels, self.labels), rows=CHECKED_ROWS)
        source = Images(table, decoded=False)
        rows = engine.collect(source, pool, self.config.compute, self.folder / "pending")
        return sorted((row for row in rows if row["problem"]), key=itemgetter("id"))

    def _nothing(self, labelled: int, problems: list[tuple[str, str]]) -> str:
        lacking = {
            "tags": "has a tag to train on",
            "boxes": "has a box to train on",
            "objects": "has objects in the labels",
            "masks": f"has labels to train on: {labelled} have a mask, {len(problems)} of them a "
            "bad one",
            "cues": f"has cues to grow from: {labelled} have labels, {len(problems)} of them bad "
            "ones",
        }[self.training.learns_from]
        why = "".join(f"; that of {id_}: {reason}" for id_, reason in problems[:1])
        return f"no image of split {self.config.train_split!r} {lacking}{why}"

    def outcome(self, folder: Folder) -> Outcome:
        """What to print of the finished training; clears up what it went on from."""
        if folder.exists(STATE):
            folder.delete(STATE)
        forget_progress(folder)
        (folder / "ray").remove()
        facts = read_run(folder)
        refuse_failing(self.label, self.training, folder)
        lines = [f"{self.label}: {self.training.summary(facts)}"]
        if facts.get("unlabelled"):
            lines.append(f"not trained on: {facts['unlabelled']} masks of which no pixel counts")
        left_out = facts.get("left_out") or {"count": 0}
        if left_out["count"]:
            first = left_out["examples"][0]
            what = {
                "masks": "masks, such as that of",
                "cues": "images' cues, such as those of",
                "tags": "images, such as",
            }.get(self.training.learns_from, "boxes, such as one of")
            lines.append(f"left out: {left_out['count']} {what} {first['id']}: {first['reason']}")
        return Outcome(lines, left_out=left_out["count"])


def training_steps(kind: str, config: Any) -> Iterator[Step]:
    """A network of a kind, or one for each of the labels that are named."""
    run_folder, network = Folder(config.run), NETWORKS[kind]
    if TRAININGS[kind].learns_from in NAMED and not getattr(config, "labels", ()):
        there = others_there(run_folder, "masks")
        known = "seeds, masks" if TRAININGS[kind].learns_from == "cues" else "masks"
        raise ValueError(f"labels must name {known} or truth, got none{there}")
    training: Training = getattr(config, TRAININGS[kind].field)
    images = read_manifest(run_folder / "manifest").select(config.train_split)
    start = start_of(run_folder, training)
    place, label = run_folder / network.place, network.noun.lower()
    if training.learns_from not in NAMED:
        labels = training.given_labels(run_folder / "manifest", config.train_split)
        yield _Task(config, training, start, place, label, images, labels, {}).step
        return
    for name in config.labels:
        source = name.removesuffix(network.ending)
        labels, origin = NAMED[training.learns_from](run_folder, source, config.train_split)
        full = source + network.ending
        own = (place / full, f"{label} {full}")
        cut, begun = (_with_cues(one, labels, config, source) for one in (training, start))
        yield _Task(config, cut, begun, *own, images, cut.reading(labels), origin).step


def _with_cues(training: Training, labels: Any, config: Any, source: str) -> Training:
    """The training with the thresholds of the method whose maps it reads, where it has none."""
    if not isinstance(labels, Cues) or not labels.of_maps or training.cues:  # type: ignore[attr-defined]
        return training
    return replace(training, cues=thresholds_of(config.thresholds, source))  # type: ignore[call-arg]
