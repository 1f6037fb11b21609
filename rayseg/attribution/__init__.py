"""Attribution methods: (network, image, classes) to localization maps, one paper a file."""

from rayseg.attribution.classes.adaptation import SHARED
from rayseg.attribution.classes.advcam import AdvCAM
from rayseg.attribution.classes.advcam_seam import AdvCAMOnSEAM
from rayseg.attribution.classes.base import Attribution, Localization
from rayseg.attribution.classes.cam import CAM
from rayseg.attribution.classes.companions import Companions
from rayseg.attribution.classes.ficklenet import FickleNet
from rayseg.attribution.classes.gradcam import GradCAM
from rayseg.attribution.classes.lean import LeanNetwork
from rayseg.attribution.classes.on_rib import OnRIB
from rayseg.attribution.classes.rib import RIB
from rayseg.attribution.classes.seam import SEAM
from rayseg.attribution.objects.bbam import BBAM
from rayseg.attribution.objects.box_base import (
    MISSED,
    BoxAttribution,
    ObjectMap,
    Objects,
    enlarge_grid,
)
from rayseg.attribution.objects.box_gradients import BoxGradCAM, SimpleGrad, SmoothGrad

METHODS: dict[str, type[Attribution]] = {
    "cam": CAM,
    "gradcam": GradCAM,
    "advcam": AdvCAM,
    "rib": RIB,
    "ficklenet": FickleNet,
    "seam": SEAM,
    "advcam_seam": AdvCAMOnSEAM,
}
"""The only list of methods in the project that ask a classifier."""
BOX_METHODS: dict[str, type[BoxAttribution]] = {
    "bbam": BBAM,
    "box_simple_grad": SimpleGrad,
    "box_smooth_grad": SmoothGrad,
    "box_gradcam": BoxGradCAM,
}
"""The only list of methods that ask a detector."""
COMBINATIONS: dict[str, tuple[str, str]] = {"advcam+rib": ("advcam", "rib")}
"""Two methods after each other: which one looks, and which one changes the weights before."""
