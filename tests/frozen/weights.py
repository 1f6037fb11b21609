"""Weights that are the same to the bit on every machine and under every version of everything.

They stand in for those of a training, which differ in rounding from one machine to the next. A list
of names and shapes (`networks/*.json`) is written as the safetensors file that the training of a
network left: whole numbers out of SHAKE-128 times powers of two. Their scale is He's, so that what
such a network answers is meaningless but neither zero nor all the same.
"""

import hashlib
import json
import math
import struct
from pathlib import Path

import numpy as np

TYPES = {"F32": "<f4", "I64": "<i8"}


def describe(path: Path) -> dict:
    """The facts beside the tensors of a safetensors file, and their names, types and shapes."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    facts = header.pop("__metadata__")
    return {"facts": facts, "tensors": {n: [t["dtype"], *t["shape"]] for n, t in header.items()}}


def write(path: Path, network: dict, seed: str) -> None:
    """Writes weights of a network that was described, other ones for every seed."""
    header, parts, end = {"__metadata__": network["facts"]}, [], 0
    for name, (kind, *shape) in network["tensors"].items():
        values = _values(f"{seed}/{name}", shape) * 2.0 ** network.get("doubled", {}).get(name, 0)
        values += np.array(network.get("added", {}).get(name, 0), "<f4")
        parts.append(values.astype(TYPES[kind]).tobytes())
        start, end = end, end + len(parts[-1])
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    path.write_bytes(struct.pack("<Q", len(head)) + head + b"".join(parts))


def _values(name: str, shape: list[int]) -> np.ndarray:
    """Ones for what scales, zeros for what shifts or counts, random numbers for what weighs."""
    if len(shape) < 2:
        return np.full(shape, float(name.endswith((".weight", ".running_var"))), "<f4")
    drawn = np.frombuffer(hashlib.shake_128(name.encode()).digest(math.prod(shape)), np.int8)
    fan_in = math.prod(shape[1:])
    # bytes over 128 have a deviation of 1 / sqrt(3)
    exponent = round(math.log2(math.sqrt(6 / fan_in)))
    return (drawn.reshape(shape) * 2.0 ** (exponent - 7)).astype("<f4")
