"""Attribution methods: (network, image, classes) to localization maps, one paper a file."""

from rayseg.attribution.adaptation import SHARED
from rayseg.attribution.advcam import AdvCAM
from rayseg.attribution.base import Attribution, Localization
from rayseg.attribution.cam import CAM
from rayseg.attribution.companions import Companions
from rayseg.attribution.ficklenet import FickleNet
from rayseg.attribution.gradcam import GradCAM
from rayseg.attribution.lean import LeanNetwork
from rayseg.attribution.on_rib import OnRIB
from rayseg.attribution.rib import RIB

METHODS: dict[str, type[Attribution]] = {
    "cam": CAM,
    "gradcam": GradCAM,
    "advcam": AdvCAM,
    "rib": RIB,
    "ficklenet": FickleNet,
}
"""The only list of methods in the project."""
COMBINATIONS: dict[str, tuple[str, str]] = {"advcam+rib": ("advcam", "rib")}
"""Two methods after each other: which one looks, and which one changes the weights before."""

__all__ = [
    "CAM",
    "COMBINATIONS",
    "METHODS",
    "RIB",
    "SHARED",
    "AdvCAM",
    "Attribution",
    "Companions",
    "FickleNet",
    "GradCAM",
    "LeanNetwork",
    "Localization",
    "OnRIB",
]
