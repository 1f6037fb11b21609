"""The jobs about boxes: maps of objects by a detector, and masks from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rayseg.attribution import BOX_METHODS, BoxAttribution
from rayseg.config.base import JobConfig, check_names, one_field_each
from rayseg.datasets.coco import coco_classes
from rayseg.refine import BOX_REFINERS, ProposalRefinement, SuperpixelProposals
from rayseg.stages import BoxRefiner
from rayseg.toml import check_literals

BoxMethodFields = one_field_each("BoxMethodFields", __name__, BOX_METHODS)
BoxRefinerFields = one_field_each("BoxRefinerFields", __name__, BOX_REFINERS)


@dataclass(frozen=True, kw_only=True)
class MakeBoxMapsConfig(BoxMethodFields, JobConfig):  # type: ignore[valid-type]
    """Makes a map of each object in a box, by asking a detector.

    Attributes:
        split: the images.
        ids: a text file of image ids, one a line; only these. Empty means all.
        box_methods: which methods; their own flags follow under their names.
        detector_weights: the detector: a file that rayseg wrote, or a YOLOX of others as .onnx;
            empty is the run's own.
        detector_classes: the class names that an .onnx file counts; empty takes COCO's 80.
        boxes: given explains the data set's boxes, predicted those that the detector finds.
        min_score: of a found box.
    """

    split: str = "train"
    ids: str = ""
    box_methods: tuple[str, ...] = ("bbam",)
    detector_weights: str = ""
    detector_classes: tuple[str, ...] = ()
    boxes: Literal["given", "predicted"] = "given"
    min_score: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        check_literals(self)
        check_names("box_methods", self.box_methods, BOX_METHODS)
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"min_score must lie in [0, 1], got {self.min_score}")

    def box_method(self, name: str) -> BoxAttribution:
        """The method of that name with its hyper-parameters."""
        return getattr(self, name)

    def classes_of_detector(self, address: str) -> tuple[str, ...]:
        """The class names of the detector with these weights; empty where they are the run's."""
        if self.detector_classes or not address.endswith(".onnx"):
            return self.detector_classes
        return tuple(name for _, name in coco_classes())


@dataclass(frozen=True, kw_only=True)
class MakeBoxMasksConfig(BoxRefinerFields, JobConfig):  # type: ignore[valid-type]
    """Turns maps of objects into their masks, and into semantic masks.

    Attributes:
        box_methods: whose maps.
        box_refiners: which refiners; their own flags follow under their names.
        proposals: mask proposals that the masks are refined with: none, superpixels (made here), or
            the path of a folder of ID.json, ID.npz, ID.mat or ID.png.
        superpixels: how own proposals are made.
        proposal_refinement: what is made of proposals.
    """

    box_methods: tuple[str, ...] = ("bbam",)
    box_refiners: tuple[str, ...] = ("box_crf",)
    proposals: str = "none"
    superpixels: SuperpixelProposals = SuperpixelProposals()
    proposal_refinement: ProposalRefinement = ProposalRefinement()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names("box_methods", self.box_methods, BOX_METHODS)
        check_names("box_refiners", self.box_refiners, BOX_REFINERS)

    def box_refiner(self, name: str) -> BoxRefiner:
        """The refiner of that name with its hyper-parameters."""
        return getattr(self, name)

    def box_mask_name(self, method: str, refiner: str) -> str:
        """The folder of masks that a method and a refiner fill, such as bbam+box_crf."""
        ending = {"none": "", "superpixels": "+superpixels"}.get(self.proposals, "+proposals")
        return f"{method}+{refiner}{ending}"

    def box_mask_names(self) -> list[str]:
        """The folders of masks that the job fills."""
        return [self.box_mask_name(m, r) for m in self.box_methods for r in self.box_refiners]
