"""The jobs about boxes: maps of objects by a detector, and masks from them."""

from dataclasses import dataclass, replace
from typing import Literal, Self

from rayseg.attribution import BOX_METHODS, BoxAttribution
from rayseg.config.base import JobConfig, check_names, one_field_each
from rayseg.datasets.coco import coco_classes
from rayseg.records.bounds import check_least
from rayseg.refine import BOX_REFINERS, ProposalRefinement, SuperpixelProposals
from rayseg.stages import ANALYSES, BoxRefiner, Variant
from rayseg.toml import check_literals

BoxMethodFields = one_field_each("BoxMethodFields", __name__, BOX_METHODS)
BoxRefinerFields = one_field_each("BoxRefinerFields", __name__, BOX_REFINERS)


@dataclass(frozen=True, kw_only=True)
class AskDetectorConfig(BoxMethodFields, JobConfig):  # type: ignore[valid-type]
    """What the jobs that ask a detector share.

    Attributes:
        split: Split whose images are used.
        ids: A text file of image ids, one on each line, to use no others. Empty means all.
        detector_weights: The detector's file, written by rayseg or a YOLOX of others as .onnx;
            empty is the run's own.
        detector_classes: Class names of an .onnx file, in its order; empty takes COCO's 80.
    """

    split: str = "train"
    ids: str = ""
    detector_weights: str = ""
    detector_classes: tuple[str, ...] = ()

    @property
    def given_weights(self) -> dict[str, str]:
        """Weights in place of the run's own, by kind of network."""
        return super().given_weights | {"detector": self.detector_weights}

    def box_method(self, name: str) -> BoxAttribution:
        """The method of that name with its hyper-parameters."""
        return getattr(self, name)

    def classes_of_detector(self, address: str) -> tuple[str, ...]:
        """The class names of the detector with these weights; empty where they are the run's."""
        if self.detector_classes or not address.endswith(".onnx"):
            return self.detector_classes
        return tuple(name for _, name in coco_classes())


@dataclass(frozen=True, kw_only=True)
class MakeBoxMapsConfig(AskDetectorConfig):
    """Makes a map of each object in a box, by asking a detector.

    Attributes:
        box_methods: Methods to use; their own flags follow under their names.
        boxes: Boxes to explain: given are the data set's, predicted those that the detector finds.
            The authors' demo of the latter has a bbam.sparsity of 0.07 and a bbam.tv of 1e-3.
        min_score: Lowest score of a predicted box.
    """

    box_methods: tuple[str, ...] = ("bbam",)
    boxes: Literal["given", "predicted"] = "given"
    min_score: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        check_literals(self)
        check_names("box_methods", self.box_methods, BOX_METHODS)
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"min_score must lie in [0, 1], got {self.min_score}")


@dataclass(frozen=True)
class SemanticMasksConfig:
    """How the masks of an image's objects become its semantic mask.

    Attributes:
        keep_nested: An object whose box lies wholly in another one keeps its sure pixels against
            larger objects, as in the authors' code. Otherwise pixels of two classes are always
            ignored, as in the text.
    """

    keep_nested: bool = True

    @classmethod
    def official(cls) -> Self:
        """The authors' public code."""
        return cls()

    @classmethod
    def as_written(cls) -> Self:
        """The text, 5.3.3."""
        return cls(keep_nested=False)


@dataclass(frozen=True, kw_only=True)
class MakeBoxMasksConfig(BoxRefinerFields, JobConfig):  # type: ignore[valid-type]
    """Turns maps of objects into their masks, and into semantic masks.

    Attributes:
        box_methods: Methods whose maps are used.
        box_refiners: Refiners to use; their own flags follow under their names.
        proposals: Mask proposals that the masks are refined with: none, superpixels (made here), or
            the path of a folder of ID.json, ID.npz, ID.mat or ID.png.
        superpixels: How superpixels become proposals.
        proposal_refinement: How proposals refine a mask.
        semantic_masks: How the masks of an image's objects become its semantic mask.
    """

    box_methods: tuple[str, ...] = ("bbam",)
    box_refiners: tuple[str, ...] = ("box_crf",)
    proposals: str = "none"
    superpixels: SuperpixelProposals = SuperpixelProposals()
    proposal_refinement: ProposalRefinement = ProposalRefinement()
    semantic_masks: SemanticMasksConfig = SemanticMasksConfig()

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


@dataclass(frozen=True, kw_only=True)
class AnalyseBoxesConfig(BoxRefinerFields, AskDetectorConfig):  # type: ignore[valid-type]
    """Analyses maps of objects as section 5.5 of the dissertation does.

    Objects count whose true mask is known, or follows from a semantic one.

    Attributes:
        analyses: Analyses to make: heads (what each head needs, Figure 5.6), noise (boxes that are
            too large or too small, 5.7a), strides (adaptive against fixed ones, 5.7b), methods
            (against gradients, 5.7c).
        max_images: Number of images, evenly spread over those with such objects; 0 is all.
        amounts: Noise of the boxes, as shares of their sides; negative ones contract.
        fixed_strides: Fixed strides to compare, in input pixels.
        noise_refiner: Refiner of the masks that noisy boxes are judged by.
        noise_seed: Seed of the boxes' noise.
    """

    analyses: tuple[str, ...] = ANALYSES
    max_images: int = 100
    amounts: tuple[float, ...] = (-0.2, -0.15, -0.1, -0.05, 0.0, 0.05, 0.1, 0.15, 0.2)
    fixed_strides: tuple[int, ...] = (24, 48)
    noise_refiner: str = "box_crf"
    noise_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names("analyses", self.analyses, ANALYSES)
        check_names("noise_refiner", (self.noise_refiner,), BOX_REFINERS)
        check_least(self, max_images=0)
        if min(self.fixed_strides, default=1) < 1:
            raise ValueError(f"fixed_strides must be 1 or more, got {self.fixed_strides}")
        if list(self.amounts) != sorted({*self.amounts, 0.0}) or min(self.amounts) <= -0.5:
            raise ValueError(
                f"amounts must ascend from above -0.5 with 0 among them, got {self.amounts}"
            )

    def variants(self, analysis: str) -> tuple[Variant, ...]:
        """What an analysis compares, in the order of its picture."""
        bbam = self.bbam
        if analysis == "heads":
            # curves of unlike lengths have no mean
            whole = replace(bbam, use_box=True, use_class=True, early_stop=0.0, record=True)
            return (
                Variant("box", replace(whole, use_class=False)),
                Variant("class", replace(whole, use_box=False)),
            )
        if analysis == "noise":
            return tuple(Variant(f"{amount:+g}", bbam, amount) for amount in self.amounts)
        if analysis == "strides":
            fixed = [
                Variant(f"stride {s}", replace(bbam, fixed_stride=s)) for s in self.fixed_strides
            ]
            return (Variant("adaptive", bbam), *fixed)
        return tuple(Variant(name, self.box_method(name)) for name in BOX_METHODS)

    def refiner(self) -> BoxRefiner:
        """The refiner that masks of noisy boxes are made by."""
        return getattr(self, self.noise_refiner)
