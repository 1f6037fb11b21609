"""Foreign formats stop here: each reader turns one kind of data set into samples."""

from rayseg.datasets.base import Dataset, DatasetError, DatasetNotFoundError
from rayseg.datasets.coco import COCO
from rayseg.datasets.folder import FolderDataset
from rayseg.datasets.synthetic import Synthetic
from rayseg.datasets.voc import VOC

DATASETS: dict[str, type[Dataset]] = {
    "voc": VOC,
    "coco": COCO,
    "folder": FolderDataset,
    "synthetic": Synthetic,
}
