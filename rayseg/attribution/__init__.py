"""Attribution methods: (network, image, classes) to localization maps, one paper a file."""

from rayseg.attribution.advcam import AdvCAM
from rayseg.attribution.base import Attribution, Localization
from rayseg.attribution.cam import CAM
from rayseg.attribution.gradcam import GradCAM
from rayseg.attribution.lean import LeanNetwork

METHODS: dict[str, type[Attribution]] = {"cam": CAM, "gradcam": GradCAM, "advcam": AdvCAM}
"""The only list of methods in the project."""

__all__ = ["CAM", "METHODS", "AdvCAM", "Attribution", "GradCAM", "LeanNetwork", "Localization"]
