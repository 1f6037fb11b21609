"""torchvision without torch's compiler, which takes a second and 140 MB of every process.

torchvision 0.29 imports the compiler for one question that it asks where its own operators are
missing. Processes are many here, one an actor, and most never compile anything.
"""

import importlib
import sys
from importlib.metadata import version
from types import ModuleType

COMPILER, COMPILER_UTILS = "torch._dynamo", "torch._dynamo.utils"


def import_torchvision() -> None:
    """Imports torchvision; the compiler is loaded when somebody needs it, as ever."""
    known = version("torchvision").startswith("0.29.")
    if not known or COMPILER in sys.modules or "torchvision" in sys.modules:
        return
    stand_ins = {name: ModuleType(name) for name in (COMPILER, COMPILER_UTILS)}
    stand_ins[COMPILER].__path__ = []
    stand_ins[COMPILER_UTILS].is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
    importlib.import_module("torch")
    sys.modules.update(stand_ins)
    try:
        importlib.import_module("torchvision")
    finally:
        for name in stand_ins:
            del sys.modules[name]


def _is_compile_supported(device: str) -> bool:
    """Asks the compiler itself."""
    return bool(importlib.import_module(COMPILER_UTILS).is_compile_supported(device))
