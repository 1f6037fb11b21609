"""The stages of a job: each maps rows to rows and knows nothing of who moves them.

A stage loads what it needs once, when it is made, and is then called with batches of rows. One row
comes out for each row that goes in: what is wrong with one image is said in its own row.
"""

from rayseg.attribution import SHARED
from rayseg.stages.checking import CheckLabels
from rayseg.stages.companions import CompanionArrays, CompanionBank, fill_bank
from rayseg.stages.counting import CountLabels, SweepSeeds
from rayseg.stages.decoding import DecodeImages
from rayseg.stages.masks import Refiner, RefineSeeds, SaliencyMaps
from rayseg.stages.prediction import PredictLabels, SmoothLabels
from rayseg.stages.rows import Row, Rows, by_size, choose_device
from rayseg.stages.seeds import LOADERS, MakeSeeds, enlarge

__all__ = [
    "LOADERS",
    "SHARED",
    "CheckLabels",
    "CompanionArrays",
    "CompanionBank",
    "CountLabels",
    "DecodeImages",
    "MakeSeeds",
    "PredictLabels",
    "RefineSeeds",
    "Refiner",
    "Row",
    "Rows",
    "SaliencyMaps",
    "SmoothLabels",
    "SweepSeeds",
    "by_size",
    "choose_device",
    "enlarge",
    "fill_bank",
]
