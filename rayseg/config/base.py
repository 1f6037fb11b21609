"""What every job has: a run folder, a cluster, and how widely it runs."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, make_dataclass
from typing import Any, Literal

from rayseg.config.secrets import refuse_secrets
from rayseg.records.bounds import check_folder_name
from rayseg.toml import hint

FOLDER_NAMES = (
    "methods", "refiners", "box_methods", "box_refiners", "seeds_of", "labels", "sweep", "split",
    "train_split", "val_split",
)  # fmt: skip
"""Fields of any job by which a folder or file of a run is called."""
MASK_KINDS = ("predictions", "instances")
"""Folders of a run other than masks/ whose folders an export can name."""


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How widely a job runs; changes no result beyond rounding.

    Attributes:
        device: Torch device of the actors: auto, cpu or cuda.
        actors: Actors in a pool; 0 is one for each GPU, or for each core of this machine.
        max_actors: Most actors of a pool on a cluster that grows, even from no worker: it takes
            what joins, and waits for what is missing; 0 takes no more than at the start, and
            refuses what the cluster does not have.
        num_gpus: GPUs of each actor or training worker; -1 is 1 where the cluster has any.
        threads: CPU threads of each actor or training worker; 0 divides this machine's cores.
        block_rows: Images between two writes, the most that a killed actor loses.
        workers: Number of workers of a training.
        loader_workers: Processes that decode ahead for each training worker, at most one a core.
        max_failures: How often a training goes on from its last checkpoint after losing a worker.
        stall_seconds: Seconds without any progress after which a job fails.
        retry_failed: Images whose row says error or poison are tried again.
        remake_stale: Networks, and whole folders, that were made from what has changed since are
            made anew; without it they are refused, since that can take hours. Rows of single
            images that have changed are always made anew.
    """

    device: str = "auto"
    actors: int = 0
    max_actors: int = 0
    num_gpus: float = -1.0
    threads: int = 0
    block_rows: int = 8
    workers: int = 1
    loader_workers: int = 0
    max_failures: int = 3
    stall_seconds: int = 1800
    retry_failed: bool = False
    remake_stale: bool = False

    @property
    def grows(self) -> bool:
        """Whether machines may join that are not there yet."""
        return self.max_actors > 0

    def __post_init__(self) -> None:
        for name in ("actors", "max_actors", "threads", "loader_workers", "max_failures"):
            if getattr(self, name) < 0:
                raise ValueError(f"compute.{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("block_rows", "workers", "stall_seconds"):
            if getattr(self, name) < 1:
                raise ValueError(f"compute.{name} must be 1 or more, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class JobConfig:
    """What every job has.

    Attributes:
        run: Folder of the run, a local path or a URI.
        address: Ray cluster to join; empty takes RAY_ADDRESS, or else starts Ray on this machine.
        engine: What runs the job: ray has processes side by side, on this machine or a cluster;
            plain is a loop in one process, which starts sooner and serves small work.
        compute: How widely the job runs.
    """

    run: str = "runs/demo"
    address: str = ""
    engine: Literal["ray", "plain"] = "ray"
    compute: Compute = Compute()

    def __post_init__(self) -> None:
        if not self.run:
            raise ValueError("run must name a folder, got nothing")
        refuse_secrets(self)
        _check_folder_names(self)

    @property
    def given_weights(self) -> dict[str, str]:
        """Weights in place of the run's own, by kind of network; empty ones are not given."""
        return {}


@dataclass(frozen=True, kw_only=True)
class SegmentersConfig(JobConfig):
    """What the jobs about segmenters and Mask R-CNNs share.

    Attributes:
        labels: Labels that each segmenter or Mask R-CNN is trained on and named by: a folder of the
            run's masks such as advcam+label_crf or bbam+box_crf, or truth; empty in `run` is its
            last masks. With +dsrg behind it, a name of seeds, masks or truth has a segmenter grow
            its labels from these.
        val_split: Split that segmenters and Mask R-CNNs are judged on.
    """

    labels: tuple[str, ...] = ()
    val_split: str = "val"


def _check_folder_names(config: object) -> None:
    """Refuses a field that names a folder or file of the run and would lead out of it."""
    for what in FOLDER_NAMES:
        given = getattr(config, what, ())
        for name in given if isinstance(given, tuple) else (given,) if given else ():
            check_folder_name(what, name)
    *kind, masks = getattr(config, "masks", "any").split("/")
    check_folder_name("masks", masks)
    if kind and kind not in ([one] for one in MASK_KINDS):
        known = ", ".join(f"{one}/NAME" for one in MASK_KINDS)
        raise ValueError(f"masks must be NAME, {known}, got {'/'.join([*kind, masks])!r}")


def one_field_each(name: str, module: str, parts: Mapping[str, type]) -> type:
    """A dataclass with one field for each entry of a list such as METHODS."""
    return make_part(
        name, module, [(key, part, field(default_factory=part)) for key, part in parts.items()]
    )


def make_part(name: str, module: str, parts: list[Any]) -> type:
    """A frozen dataclass of these fields; the module is where pickle finds it again."""
    made = make_dataclass(name, parts, frozen=True, kw_only=True)
    made.__module__ = module
    return made


def check_names(what: str, names: tuple[str, ...], known: Collection[str]) -> None:
    """Refuses a name that is not known.

    Raises:
        ValueError: the text lists the known names and the nearest one.
    """
    for name in names:
        if name not in known:
            raise ValueError(
                f"{what} must be of {', '.join(known)}, got {name!r}{hint(name, known)}"
            )
