"""The jobs about localization maps: a field for each method, each refiner, each threshold."""

from dataclasses import dataclass, field, fields, replace
from itertools import product
from typing import Self

from rayseg.attribution import COMBINATIONS, METHODS, Attribution, OnRIB
from rayseg.config.base import JobConfig, check_names, make_part, one_field_each
from rayseg.refine import REFINERS
from rayseg.refine.crf import OFFICIAL_THRESHOLDS
from rayseg.refine.learned_walks import OFFICIAL_WALKS
from rayseg.refine.saliency import SaliencyAgreement
from rayseg.stages import CompanionBank, Refiner, network_kind

MAKERS: dict[str, tuple[str, ...]] = {**{name: (name,) for name in METHODS}, **COMBINATIONS}
"""All that makes maps, and the methods that each is made of."""

MethodFields = one_field_each("MethodFields", __name__, METHODS)
RefinerFields = one_field_each("RefinerFields", __name__, REFINERS)
FROM_METHOD = ("thresholds", "walks")
"""Fields of a job with values for each method, which a refiner's ``from_...`` names take."""


def threshold_field(maker: str) -> str:
    """The field of `Thresholds` for the maps of a method or combination."""
    return maker.replace("+", "_")


def _default_thresholds(maker: str) -> tuple[float, float]:
    first = MAKERS[maker][0]
    official = OFFICIAL_THRESHOLDS.get(first, OFFICIAL_THRESHOLDS["cam"])
    return METHODS[first].own_thresholds or official


Thresholds = make_part(
    "Thresholds",
    __name__,
    [
        (threshold_field(maker), tuple[float, float], field(default=_default_thresholds(maker)))
        for maker in MAKERS
    ],
)
_WORDS = "Foreground is sure above the first, background below the second."
Thresholds.__doc__ = """Background thresholds of each method's maps; advcam_rib are advcam+rib's.

A combination defaults to those of its first method, a method without official ones to CAM's.

Attributes:
""" + "".join(f"    {one.name}: {_WORDS}\n" for one in fields(Thresholds))


def thresholds_of(thresholds: Thresholds, maker: str) -> tuple[float, float]:  # type: ignore[valid-type]
    """Those of the maps of a method or combination.

    Raises:
        ValueError: there is no such method.
    """
    if maker not in MAKERS:
        raise ValueError(
            f"{maker!r} must be a method for its maps to have thresholds, such as "
            f"{', '.join(MAKERS)}; otherwise give both, as in --dsrg.cues 0.3 0.05"
        )
    return getattr(thresholds, threshold_field(maker))


Walks = make_part(
    "Walks",
    __name__,
    [
        (
            threshold_field(maker),
            tuple[float, float],
            field(default=OFFICIAL_WALKS.get(MAKERS[maker][0], OFFICIAL_WALKS["cam"])),
        )
        for maker in MAKERS
    ],
)
_WORDS = "Exponent of the maps, and background threshold."
Walks.__doc__ = """How irnet walks on each method's maps; defaults as those of thresholds.

irnet_instances takes the exponent alone.

Attributes:
""" + "".join(f"    {one.name}: {_WORDS}\n" for one in fields(Walks))


@dataclass(frozen=True, kw_only=True)
class MakeSeedsConfig(MethodFields, JobConfig):  # type: ignore[valid-type]
    """Makes localization maps of one split's images.

    Attributes:
        split: Split whose images are used.
        ids: A text file of image ids, one on each line, to use no others. Empty means all.
        methods: Attribution methods, or combinations such as advcam+rib. The methods' own flags
            follow under their names, and a combination takes those of its parts.
        weights: File of the classifier; empty is the run's own.
        ficklenet_weights: File of the network of method ficklenet; empty is the run's own.
        seam_weights: File of the network of methods seam and advcam_seam; empty is the run's own.
        companions: The other images that methods such as rib look at too.
    """

    split: str = "train"
    ids: str = ""
    methods: tuple[str, ...] = ("cam", "advcam")
    weights: str = ""
    ficklenet_weights: str = ""
    seam_weights: str = ""
    companions: CompanionBank = CompanionBank()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names("methods", self.methods, MAKERS)

    def method(self, name: str) -> Attribution | OnRIB:
        """The method or combination of that name with its hyper-parameters."""
        if name in COMBINATIONS:
            looking, changing = COMBINATIONS[name]
            return OnRIB(getattr(self, looking), getattr(self, changing))
        return getattr(self, name)

    def parts(self, name: str) -> dict[str, Attribution]:
        """The methods behind a name: the one that is called so, or those of the combination."""
        return {part: getattr(self, part) for part in MAKERS[name]}

    @property
    def given_weights(self) -> dict[str, str]:
        """Weights in place of the run's own, by kind of network."""
        given = (self.weights, self.ficklenet_weights, self.seam_weights)
        kinds = ("classifier", "ficklenet", "seam")
        return super().given_weights | dict(zip(kinds, given, strict=True))

    @property
    def network_kinds(self) -> set[str]:
        """The kinds of networks that the methods work on."""
        return {self.method(name).network_kind for name in self.methods}


@dataclass(frozen=True, kw_only=True)
class RefineSeedsConfig(RefinerFields, JobConfig):  # type: ignore[valid-type]
    """Turns localization maps into masks.

    Attributes:
        methods: Methods whose maps are used.
        refiners: Refiners to use; their own flags follow under their names.
        thresholds: Background thresholds of each method's maps, sure foreground and sure
            background; label_crf and DSRG's cues take both, threshold the first.
        walks: How irnet walks on each method's maps: the exponent that they are taken to before,
            and the background threshold after. Refiner irnet_instances takes the exponent.
        saliency_maps: Folder of grey saliency maps named after the images. Where map and mask
            disagree on foreground the mask becomes 255. Empty uses none.
        saliency: What counts as salient.
    """

    methods: tuple[str, ...] = ("cam", "advcam")
    refiners: tuple[str, ...] = ("label_crf",)
    thresholds: Thresholds = Thresholds()  # type: ignore[valid-type]
    walks: Walks = Walks()  # type: ignore[valid-type]
    saliency_maps: str = ""
    saliency: SaliencyAgreement = SaliencyAgreement()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names("methods", self.methods, MAKERS)
        check_names("refiners", self.refiners, REFINERS)
        for part in fields(RefinerFields):
            for source in FROM_METHOD:
                if _has_own(getattr(self, part.name), source):
                    raise ValueError(f"set {source}.<method> in place of {part.name}'s own")

    def refiner(self, name: str, method: str) -> Refiner:
        """The refiner of that name for the maps of that method."""
        refiner = getattr(self, name)
        for source in FROM_METHOD:
            given = getattr(getattr(self, source), threshold_field(method))
            filled = dict(zip(_filled_fields(refiner, source), given, strict=False))
            refiner = replace(refiner, **filled)
        return refiner

    @property
    def refiner_kinds(self) -> set[str]:
        """The kinds of networks that the refiners work on."""
        return {kind for name in self.refiners if (kind := network_kind(getattr(self, name)))}

    def learnt_from(self, name: str) -> Self:
        """The same job for the masks that the network of a refiner learns from."""
        return replace(self, refiners=(getattr(self, name).learns_from,))

    def mask_names(self) -> list[str]:
        """The folders of masks that the job fills, such as advcam+label_crf."""
        suffix = "+saliency" if self.saliency_maps else ""
        return [f"{m}+{r}{suffix}" for m, r in product(self.methods, self.refiners)]


def _filled_fields(refiner: object, source: str) -> tuple[str, ...]:
    """The fields of a refiner that such values of a method fill in."""
    return getattr(refiner, f"from_{source}", ())


def _has_own(refiner: object, source: str) -> bool:
    """Whether a refiner has values of its own that those of a method would override unseen."""
    own = type(refiner)()
    return any(getattr(refiner, n) != getattr(own, n) for n in _filled_fields(refiner, source))
