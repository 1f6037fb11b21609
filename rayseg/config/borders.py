"""The jobs that bring a data set in and results out; they load no torch."""

from dataclasses import dataclass, fields
from typing import Literal

from rayseg.config.base import MASK_KINDS, JobConfig, check_names, one_field_each
from rayseg.datasets import DATASETS, Dataset
from rayseg.export import EXPORTERS, Exporter
from rayseg.records.bounds import check_folder_name

SHOWN = ("masks", *MASK_KINDS)
"""Folders of a run whose folders hold masks."""
MOST_PORT = 65_535

DatasetFields = one_field_each("DatasetFields", __name__, DATASETS)
ExporterFields = one_field_each(
    "ExporterFields",
    __name__,
    {f"to_{name}": exporter for name, exporter in EXPORTERS.items() if fields(exporter)},  # type: ignore[arg-type]
)


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(DatasetFields, JobConfig):  # type: ignore[valid-type]
    """Reads a data set and writes the manifest that every other job starts from.

    Attributes:
        data: Reader of the data set. Its own flags begin with its name, such as --folder.images.
    """

    data: str = "synthetic"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names("data", (self.data,), DATASETS)

    def dataset(self) -> Dataset:
        """The reader that is asked for."""
        return getattr(self, self.data)


@dataclass(frozen=True, kw_only=True)
class StatusConfig(JobConfig):
    """Says how far each folder of a run is, without disturbing what works on it.

    Attributes:
        engine: What runs the job, a loop in one process in either case.
    """

    engine: Literal["ray", "plain"] = "plain"


@dataclass(frozen=True, kw_only=True)
class ShowConfig(JobConfig):
    """Shows one image with the masks of a run on it: `rayseg show RUN ID` writes a picture.

    Attributes:
        engine: What runs the job, a loop in one process in either case.
        id: The image, by its id or the name of its file.
        results: Folders of the run to show, such as masks/advcam+label_crf or
            predictions/advcam+label_crf. Empty shows all that there are.
        picture: PNG to write. Empty writes ID.overlay.png where the command is given.
    """

    engine: Literal["ray", "plain"] = "plain"
    id: str = ""
    results: tuple[str, ...] = ()
    picture: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.picture and not self.picture.lower().endswith(".png"):
            raise ValueError(f"picture must be a file that ends in .png, got {self.picture!r}")
        for name in self.results:
            kind, _, folder = name.partition("/")
            if kind not in SHOWN:
                known = ", ".join(f"{one}/NAME" for one in SHOWN)
                raise ValueError(f"results must be {known}, got {name!r}")
            check_folder_name("results", folder)


@dataclass(frozen=True, kw_only=True)
class ViewConfig(JobConfig):
    """Shows all images of a run in a browser on this machine: `rayseg view RUN`.

    Attributes:
        engine: What runs the job, a loop in one process in either case.
        beside: Another run, of which the same image is shown beside each image of the run. Empty
            shows the run alone.
        port: Port of this machine's loopback interface. 0 takes one that is free.
    """

    engine: Literal["ray", "plain"] = "plain"
    beside: str = ""
    port: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.port <= MOST_PORT:
            raise ValueError(f"port must be 0 to {MOST_PORT}, got {self.port}")


@dataclass(frozen=True, kw_only=True)
class ExportConfig(ExporterFields, JobConfig):  # type: ignore[valid-type]
    """Writes masks of a run in a foreign format.

    Attributes:
        masks: A folder of the run's masks, such as advcam+label_crf, of its predictions, such as
            predictions/advcam+label_crf, or of its instances, such as instances/bbam+box_crf.
        format: Exporter to use; the settings of one that has some follow as to_<format>.
        out: Folder to write into.
        split: Split to export, and the list's name. Empty exports all to the list train, or val for
            predictions and instances.
    """

    masks: str = "advcam+label_crf"
    format: str = "voc"
    out: str = "export"
    split: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names("format", (self.format,), EXPORTERS)

    def exporter(self) -> Exporter:
        """The format with its settings."""
        return getattr(self, f"to_{self.format}", None) or EXPORTERS[self.format]()
