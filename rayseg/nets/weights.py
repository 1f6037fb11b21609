"""Reading and writing weights: tensors only, never code."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

AGAIN = "fetch it again, or train it again once `rayseg check --repair` has set a run's own aside"
"""The way out where a file is damaged."""
CHECKSUM = "checksum"
"""Of the tensors, among the facts of a file."""


def read_tensors(path: str) -> dict[str, Tensor]:
    """Named tensors of a ``.pth``, ``.pt`` or ``.safetensors`` file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds something else than named tensors, such as code.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"weights file {path} does not exist")
    try:
        if path.endswith(".safetensors"):
            return _checked(path, load_file(path))
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # readers of damaged files raise almost anything
        reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"weights file {path} must hold plain tensors only: {reason}; {AGAIN}"
        ) from None
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items()
    ):
        raise ValueError(f"weights file {path} must hold a dictionary of named tensors")
    return found


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """Of the values of tensors on the CPU by their names; a changed bit gives another one."""
    found = 0
    for name in sorted(tensors):
        plain = tensors[name].contiguous().flatten().view(torch.uint8)
        found = zlib.crc32(plain.numpy().tobytes(), zlib.crc32(name.encode(), found))
    return f"{found:08x}"


def _checked(path: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    known = (_noted(path) or {}).get(CHECKSUM)
    if known not in (None, checksum(tensors)):
        raise ValueError("they do not have the checksum that they had: the file is damaged")
    return tensors


def load_into(
    network: nn.Module, tensors: Mapping[str, Tensor], source: str, optional: tuple[str, ...] = ()
) -> None:
    """Copies the tensors into the network's parameters and buffers of the same names.

    Args:
        network: changed in place.
        source: where they come from, for the error.
        optional: prefixes of keys that may be missing, of another shape, or left over.

    Raises:
        ValueError: a key is missing, left over, or of another shape: the file is of another
            network.
    """
    wanted = _required(network.state_dict(), optional)
    given = _required(tensors, optional)
    problems = [
        f"{len(keys)} keys are {what}, such as {min(keys)}"
        for what, keys in (
            ("missing", wanted.keys() - given.keys()),
            ("left over", given.keys() - wanted.keys()),
        )
        if keys
    ] or [
        f"{key} must be {tuple(wanted[key].shape)}, got {tuple(given[key].shape)}"
        for key in sorted(wanted)
        if wanted[key].shape != given[key].shape
    ][:1]
    if problems:
        raise ValueError(f"{source} holds the weights of another network: {'; '.join(problems)}")
    network.load_state_dict(given, strict=False)


def _required(tensors: Mapping[str, Tensor], optional: tuple[str, ...]) -> dict[str, Tensor]:
    # older files lack this counter, and nothing here uses it
    skipped = ("num_batches_tracked",)
    return {
        key: value
        for key, value in tensors.items()
        if not key.startswith(optional or ("\0",)) and not key.endswith(skipped)
    }


def to_safetensors(network: nn.Module, facts: Mapping[str, object]) -> bytes:
    """The network's tensors with the facts that rebuild it, as the bytes of a safetensors file."""
    tensors = {key: value.contiguous().cpu() for key, value in network.state_dict().items()}
    # under one key, since the order of several is not the same every time
    noted = {**facts, CHECKSUM: checksum(tensors)}
    return save(tensors, metadata={"rayseg": json.dumps(noted)})


def read_facts(path: str) -> dict[str, object]:
    """The facts that `to_safetensors` wrote beside the tensors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file was not written by rayseg.
    """
    facts = find_facts(path)
    if facts is None:
        raise ValueError(
            f"weights file {path} was not written by rayseg: it does not say its trunk"
        )
    return facts


def find_facts(path: str) -> dict[str, object] | None:
    """As `read_facts`, but None for the safetensors file of others."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"weights file {path} does not exist")
    noted = _noted(path)
    return noted and {name: fact for name, fact in noted.items() if name != CHECKSUM}


def _noted(path: str) -> dict[str, object] | None:
    """What `to_safetensors` wrote beside the tensors; None for the file of others."""
    try:
        with safe_open(path, "pt") as file:
            noted = json.loads((file.metadata() or {}).get("rayseg", "null"))
    except SafetensorError as error:
        raise ValueError(f"weights file {path} is no safetensors file: {error}; {AGAIN}") from None
    except (ValueError, RecursionError):
        noted = ()
    if noted is not None and not isinstance(noted, dict):
        raise ValueError(f"weights file {path} is damaged: its facts are no JSON object; {AGAIN}")
    return noted
