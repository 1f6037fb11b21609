"""What made a folder: its run.json."""

import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rayseg.networks import NETWORKS
from rayseg.store.folder import Folder
from rayseg.store.index import INDEX


def claim(folder: Folder, config: Mapping[str, Any], kind: str = "") -> None:
    """Binds a folder to the configuration that fills it, or refuses.

    A folder that nothing was written to yet is bound anew, so that a mistyped path can be mended.
    """
    products = [n for n in folder.names() if n[0] != "." and n not in ("run.json", INDEX)]
    if products and not folder.exists("run.json"):
        raise ValueError(f"{folder} holds {products[0]} but no run.json; choose an empty folder")
    if not products:
        folder.write("run.json", b"{}")
        write_run(folder, {"config": config} | ({"kind": kind} if kind else {}))
        return
    differing = _differences(read_run(folder).get("config", {}), json.loads(json.dumps(config)))
    if differing:
        raise ValueError(
            f"{folder} was made under another configuration ({'; '.join(differing)}); "
            "delete the folder or choose another --run"
        )


def _differences(there: object, here: object, key: str = "") -> list[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        found = []
        for name in sorted(there.keys() | here.keys()):
            path = f"{key}.{name}" if key else name
            found += _differences(there.get(name), here.get(name), path)
        return found
    return [] if there == here else [f"{key} is {there} there, {here} here"]


def kind_of(folder: Folder) -> str:
    """What a folder holds, such as ``masks``; empty where nothing says it.

    A key of KINDS. A folder that was claimed before its run.json named the kind is known by its
    configuration.
    """
    run = read_run(folder)
    config = run.get("config", {})
    if "kind" in run or not config:
        return run.get("kind", "")
    trained = [name for name in NETWORKS if "split" in config and name in config]
    return next(iter(trained), "") or next((k for key, k in _OLD.items() if key in config), "seeds")


_OLD = {
    "slice_images": "tuning",
    "data": "manifest",
    "seeds": "masks",
    "box_maps": "object_masks",
    "predict": "predictions",
    "instances": "instances",
    "boxes": "box_maps",
    "variants": "analyses",
    "toy": "bottleneck",
}
"""A key of the configuration that only that kind had; seeds had none, and trainings a split."""


def read_run(folder: Folder) -> dict[str, Any]:
    """The folder's run.json: configuration, versions and figures; empty where there is none."""
    return json.loads(folder.read("run.json")) if folder.exists("run.json") else {}


def write_run(folder: Folder, facts: Mapping[str, Any]) -> None:
    """Adds facts to the folder's run.json, with the versions of what made it."""
    merged = read_run(folder) | dict(facts) | {"versions": _versions()}
    folder.write("run.json", json.dumps(merged, indent=2).encode())


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("rayseg", "torch", "torchvision", "ray", "pyarrow", "numpy", "pydensecrf2"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
