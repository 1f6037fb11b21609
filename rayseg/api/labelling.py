"""Masks of images and their tags in one Python call, by the steps of `rayseg run --until masks`."""

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from rayseg.api.given import AnyImages, AnyTags, take
from rayseg.api.results import Labels
from rayseg.api.run import Run
from rayseg.config.job_list import JOBS
from rayseg.config.preset import with_presets
from rayseg.config.secrets import masked
from rayseg.ending import EXPECTED, explained
from rayseg.progress import speaking
from rayseg.store import Folder
from rayseg.toml import update

_OWN = ("run", "data", "supervision", "until", "split", "train_split", "ids", "labels")
"""Settings of a run that a call sets by itself."""


def label(
    images: AnyImages,
    tags: AnyTags,
    *,
    run: str | os.PathLike[str] | None = None,
    preset: str | Sequence[str] = (),
    classifier: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    progress: bool = True,
    **settings: Any,
) -> Labels:
    """Makes masks of images whose tags are known: trains a classifier, finds the classes, refines.

    The steps are those of ``rayseg run --until masks``, in this process and without Ray, but where
    ``engine="ray"`` asks for it. The same call on the same folder goes on where an earlier one
    ended, and makes again only what has changed.

    Args:
        images: paths of local files or uint8 (h, w, 3) arrays in RGB, as a list, or as a dict by
            name. In a list a file's id is its name without the suffix, an array's its place.
        tags: class names that each image shows, a list each, in the order of the images; or a dict
            by the image's id, path or file name. An empty list says that it shows none of them.
        run: local folder for all that is made; a temporary one where it is left out, which lives
            as long as what is returned.
        preset: names of presets, as ``--preset`` takes them, such as ``"laptop"``.
        classifier: file of a trained classifier, which then is not trained, and whose classes are
            taken; or a dict of settings of its training.
        progress: whether to say on stderr how far it is, at least once a minute.
        **settings: of ``rayseg run``, by the names that TOML files have: ``methods=["advcam"]``,
            ``advcam={"num_steps": 10}``, ``folder={"max_side": 0}``.

    Returns:
        The masks, with their images, maps and class names. An image that cannot be read has none,
        and a reason in `Labels.failed`.

    Raises:
        ValueError: in one line, what was expected and what was given; for what goes wrong later,
            such as weights that cannot be fetched, what went wrong and the way out.
    """
    with _in_one_line():
        given = take(images, tags)
        made, folder = _opened(run)
        config = _configuration(given.classes, preset, classifier, settings)
        classes = config.folder.class_names
        given.check_tags(classes)
        read = given.write(folder)
        config = _updated(config, {"run": str(folder), "folder": read})
        shown = speaking("label", results=False) if progress else nullcontext()
        with shown, _randomness_kept():
            outcome = JOBS["run"].run(config)
    names = f"masks/{config.mask_names()[-1]}", f"seeds/{config.methods[-1]}"
    return Labels(made, [*given.images], *names, outcome.lines)


def _opened(run: str | os.PathLike[str] | None) -> tuple[Run, Path]:
    """The run, and its folder, which is deleted with the run where none is given."""
    if run is not None and "://" in os.fspath(run):
        raise ValueError(f"run must be a local folder, got {os.fspath(run)}")
    folder = Path(os.path.abspath(run) if run is not None else tempfile.mkdtemp(prefix="rayseg-"))
    made = Run(Folder(str(folder)))
    if run is None:
        weakref.finalize(made, shutil.rmtree, folder, ignore_errors=True)
    return made, folder


def _configuration(
    classes: Sequence[str],
    preset: str | Sequence[str],
    classifier: str | os.PathLike[str] | Mapping[str, Any] | None,
    settings: Mapping[str, Any],
) -> Any:
    """The settings of the run, on the defaults and presets; its classes are those of the tags.

    Raises:
        ValueError: a name or value that does not fit.
    """
    own = [name for name in _OWN if name in settings]
    own += [f"folder.{name}" for name in ("images", "tags") if name in settings.get("folder", {})]
    if own:
        raise ValueError(f"{own[0]} is set by the call itself; take `rayseg run` for other values")
    config = JOBS["run"].config(engine="plain", data="folder", until="masks")  # type: ignore[call-arg]
    config = with_presets(config, (preset,) if isinstance(preset, str) else preset)
    asked = dict(settings)
    if isinstance(classifier, Mapping):
        asked["classifier"] = classifier
    elif classifier is not None:
        asked["weights"] = os.fspath(classifier)
        classes = _classes_of(os.fspath(classifier))
    config = _updated(config, _listed(asked))
    if not config.folder.class_names:
        config = _updated(config, {"folder": {"class_names": [*classes]}})
    return config


def _updated(config: Any, given: Mapping[str, Any]) -> Any:
    return update(config, given, "settings")


def _listed(value: Any) -> Any:
    """The value as a TOML file would give it."""
    if isinstance(value, Mapping):
        return {name: _listed(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return [_listed(one) for one in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _classes_of(classifier: str) -> list[str]:
    from rayseg.nets.stored import read_network_facts  # noqa: PLC0415  # loads torch

    return list(read_network_facts(classifier, "classifier")["classes"])


@contextmanager
def _randomness_kept() -> Iterator[None]:
    """Puts torch's generator back to where it was: trainings seed it."""
    import torch  # noqa: PLC0415  # takes seconds

    with torch.random.fork_rng(devices=[]):
        yield


@contextmanager
def _in_one_line() -> Iterator[None]:
    """Says what a job raises for its user as one line.

    Raises:
        ValueError: in place of what was foreseen, which stays its cause.
    """
    try:
        yield
    except ExceptionGroup as group:
        lines = [explained(one) for one in group.exceptions]
        raise ValueError(masked("; ".join(lines))) from group
    except EXPECTED as error:
        line = masked(explained(error))
        raise ValueError(line) from error
