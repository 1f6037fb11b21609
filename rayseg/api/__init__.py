"""What Python calls: masks of images in one call, and a run, finished or not, to look at."""

from rayseg.api.labelling import label
from rayseg.api.opened import NoResultError
from rayseg.api.results import LabelledImage, Labels
from rayseg.api.run import Run, open_run
from rayseg.api.views import Masks, RunImages, SeedMaps
