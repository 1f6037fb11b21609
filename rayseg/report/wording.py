"""Figures and sentences as a person reads them."""

from collections.abc import Sequence

from rayseg.networks import NETWORKS
from rayseg.report.contents import (
    Score,
    final_instances,
    final_objects,
    final_prediction,
    final_score,
    number,
)

_DASH = "\N{EN DASH}"


def percent(value: object) -> str:
    """A share as percent with one decimal."""
    found = number(value)
    return _DASH if found is None else f"{100 * found:.1f}"


def fixed(value: object, decimals: int = 2) -> str:
    """A number with that many decimals."""
    found = number(value)
    return _DASH if found is None else f"{found:.{decimals}f}"


def amount(value: object) -> str:
    """Bytes as a person reads them."""
    found = number(value)
    if found is None:
        return _DASH
    for unit in ("B", "kB", "MB"):
        if found < 1000:
            return f"{found:.3g} {unit}"
        found /= 1000
    return f"{found:.3g} GB"


def span(value: object) -> str:
    """Seconds as a person reads them."""
    found = number(value)
    if found is None:
        return _DASH
    if found < 60:
        return f"{found:.2g} s" if found < 10 else f"{found:.0f} s"
    minutes, seconds = divmod(round(found), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


def summarize(scores: Sequence[Score]) -> str:
    """The run in a sentence each: the best masks, the best segmenter, objects and instances."""
    found = (
        _masks_sentence(scores),
        _segmenter_sentence(scores),
        _objects_sentence(scores),
        _instances_sentence(scores),
    )
    return " ".join(sentence for sentence in found if sentence) or "Nothing is scored yet."


def _masks_sentence(scores: Sequence[Score]) -> str:
    final = final_score(scores)
    if final is None:
        return ""
    miou = final.number("miou") or 0
    sentence = f"{final.method} reaches {percent(miou)} % mIoU"
    others = [
        score
        for score in scores
        if score.kind in ("seeds", "masks")
        and score is not final
        and score.number("miou") is not None
    ]
    if not others:
        return f"{sentence}."
    base = others[0]
    gain = miou - (base.number("miou") or 0)
    side = "above" if gain >= 0 else "below"
    return f"{sentence}, {100 * abs(gain):.1f} points {side} {base.method} ({base.kind})."


def _segmenter_sentence(scores: Sequence[Score]) -> str:
    final = final_prediction(scores)
    if final is None:
        return ""
    table = () if final.number("over", "miou") is None else ("over",)
    labels = "true masks" if final.is_full_supervision else _labels_of(final.trained_on)
    sentence = (
        f"A segmenter trained on {labels}{', with a CRF on top,' if final.has_crf else ''} "
        f"reaches {percent(final.number(*table, 'miou'))} % mIoU "
        f"{'over the chosen classes ' if table else ''}on {final.split or 'other images'}"
    )
    ratio = final.number("of_full_supervision", "over" if table else "miou")
    if ratio is None or final.is_full_supervision:
        return f"{sentence}."
    return f"{sentence}, {percent(ratio)} % of full supervision{_on_others(final)}."


def _labels_of(name: str) -> str:
    """What the labels of that name are, of DSRG's segmenters what they grew from."""
    source = name.removesuffix(NETWORKS["dsrg"].ending)
    return f"the masks of {name}" if source == name else f"labels that grew from {source}"


def _objects_sentence(scores: Sequence[Score]) -> str:
    final = final_objects(scores)
    if final is None:
        return ""
    return (
        f"The masks of {final.method} overlap those of the true objects by "
        f"{percent(final.number('mean_iou'))} % IoU."
    )


def _instances_sentence(scores: Sequence[Score]) -> str:
    final = final_instances(scores)
    if final is None:
        return ""
    labels = "true masks" if final.is_full_supervision else f"the masks of {final.method}"
    sentence = f"A Mask R-CNN trained on {labels} reaches {percent(final.number('ap50'))} % AP50"
    if final.number("abo") is not None:
        sentence += f" and {percent(final.number('abo'))} % ABO"
    ratio = final.number("of_full_supervision", "ap50")
    if ratio is None or final.is_full_supervision:
        return f"{sentence}."
    return f"{sentence}, {percent(ratio)} % of full supervision in AP50{_on_others(final)}."


def _on_others(final: Score) -> str:
    """Says where full supervision saw other images than the network that is held against it."""
    return ", which was trained on other images" if final.part("trained_on") else ""
