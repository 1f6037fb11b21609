"""The stages of a job: each maps rows to rows and knows nothing of who moves them.

A stage loads what it needs once, when it is made, and is then called with batches of rows. One row
comes out for each row that goes in: what is wrong with one image is named in its own row.
"""

from rayseg.attribution import MISSED, SHARED
from rayseg.labels import enlarge
from rayseg.stages.box_analysis import ANALYSES, AnalyseObjects, Variant
from rayseg.stages.box_maps import MakeBoxMaps, class_numbers
from rayseg.stages.box_masks import BoxRefiner, FolderProposals, OwnProposals, RefineBoxMaps
from rayseg.stages.checking import CheckLabels
from rayseg.stages.companions import CompanionArrays, CompanionBank, fill_bank
from rayseg.stages.counting import CountLabels, CountTagged, SweepSeeds
from rayseg.stages.deaths import Cause
from rayseg.stages.decoding import DecodeImages
from rayseg.stages.guard import guarded_rows
from rayseg.stages.instances import InstancePrediction, PredictInstances
from rayseg.stages.masks import Refiner, RefineSeeds, SaliencyMaps, finds_objects, network_kind
from rayseg.stages.object_counting import CompareObjects
from rayseg.stages.prediction import PredictLabels, SmoothLabels
from rayseg.stages.rows import Row, Rows, by_size, carry_digest, choose_device
from rayseg.stages.seeds import MakeSeeds
from rayseg.stages.trials import (
    MaskTrial,
    ObjectTrial,
    SeedTrial,
    Trial,
    TrialImage,
    boxed_image,
    lengthened,
    tagged_image,
)
from rayseg.stages.true_objects import AloneInBox, TrueObjects, places_of
from rayseg.stages.walk_trials import WalkTrial
