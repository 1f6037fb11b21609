"""Networks from the files that trainings wrote, each with the facts that rebuild it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from torch import nn

from rayseg.nets.backbones import TRUNKS
from rayseg.nets.weights import load_into, read_facts, read_tensors

N = TypeVar("N", bound=nn.Module)


def load_network(
    path: str,
    kind: str,
    classes: Sequence[str] | None,
    build: Callable[[Mapping[str, Any]], N],
    needed: Sequence[str] = (),
) -> N:
    """A network of that kind from the safetensors file that training wrote, in eval mode.

    Args:
        path: the file.
        kind: what its facts must say that it is.
        classes: names that it must have been trained on, in this order; None accepts any.
        build: gives the network of such facts, with any weights.
        needed: what the facts must say beside trunk, stride and classes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a network of ours of that kind, or of other classes.
    """
    network = build(read_network_facts(path, kind, classes, needed))
    load_into(network, read_tensors(path), path)
    return network.eval()


def read_network_facts(
    path: str, kind: str, classes: Sequence[str] | None = None, needed: Sequence[str] = ()
) -> dict[str, Any]:
    """The facts of a weights file that must hold a network of that kind.

    Args:
        needed: what the facts must say beside trunk, stride and classes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a network of another kind, or of other classes.
    """
    facts: dict[str, Any] = read_facts(path)
    found = str(facts.get("network", "classifier"))
    if found != kind:
        named = f"{found} segmenter" if found.startswith("deeplab") else found
        raise ValueError(f"{path} holds a {named}, not a {kind}")
    needed = ("trunk", "stride", "classes", *needed)
    if not set(needed) <= facts.keys():
        listed = f"{', '.join(needed[:-1])} and {needed[-1]}"
        raise ValueError(f"weights file {path} must say its {listed}, got {sorted(facts)}")
    _check_trunk(path, facts["trunk"], facts["stride"])
    check_trained_on(path, facts["classes"], classes)
    return facts | {"stride": int(facts["stride"])}


def _check_trunk(path: str, trunk: object, stride: object) -> None:
    known = TRUNKS[trunk].strides if isinstance(trunk, str) and trunk in TRUNKS else ()
    if stride not in known:
        raise ValueError(
            f"weights file {path} must be of a trunk and stride that are known, got "
            f"{str(trunk)[:200]} at {str(stride)[:200]}"
        )


def check_trained_on(path: str, trained: Sequence[str], classes: Sequence[str] | None) -> None:
    """Refuses weights of other classes than those asked for; None asks for none.

    Raises:
        ValueError: both sides are said.
    """
    if not isinstance(trained, list | tuple) or not all(isinstance(one, str) for one in trained):
        raise ValueError(f"weights file {path} must name its classes, got {str(trained)[:200]}")
    if classes is not None and list(trained) != list(classes):
        raise ValueError(
            f"{path} was trained on {len(trained)} classes ({_first(trained)}), "
            f"the manifest has {len(classes)} ({_first(classes)}); "
            "--compute.remake-stale trains a run's own network anew, others must be of its classes"
        )


def _first(names: Sequence[str]) -> str:
    return ", ".join([*names[:5], *(["..."] if len(names) > 5 else [])])
