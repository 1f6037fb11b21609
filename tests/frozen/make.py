"""Makes what the test of frozen runs holds on to; needs a checkout of commit bd641bf.

    PYTHONPATH=CHECKOUT python tests/frozen/make.py [demo] [boxes_synthetic]

Each training takes one step and its weights are then replaced by those of `weights.py`, before what
follows from them is made. So the digests in the identities downstream are the same on every
machine. What such networks answer was computed once, here, and is kept as rows.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pycocotools.mask import encode

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import weights  # noqa: E402

TAGS = (
    ("prepare", "train-classifier"),
    ("make-seeds", "refine-seeds", "train-segmenter"),
    ("predict", "run"),
)
BOXES = (
    ("prepare", "train-classifier"),
    ("train-detector",),
    ("make-box-maps", "make-box-masks", "train-mask-rcnn"),
    ("predict-instances", "run"),
)
EXPORTED = {
    "demo": (("advcam+label_crf", "voc"),),
    "boxes_synthetic": (
        ("bbam+box_crf", "coco"),
        ("bbam+box_crf", "coco_polygons"),
        ("instances/truth", "coco_results"),
    ),
}
# Classes that compete for every region, where drawn weights alone are sure of one for all of them.
ADDED = {"boxes.box_predictor.cls_score.bias": [-2, 0, 1.25, 0.5, 2.75, 2.5]}
DOUBLED = {
    "boxes.box_predictor.cls_score.weight": -5,
    "boxes.box_predictor.bbox_pred.weight": -8,
    "rpn.head.bbox_pred.weight": -8,
}


def main(names: list[str]) -> None:
    for name in names or EXPORTED:
        with tempfile.TemporaryDirectory() as there:
            make(name, Path(there) / "run")


def make(name: str, run: Path) -> None:
    for jobs in BOXES if name == "boxes_synthetic" else TAGS:
        for job in jobs:
            rayseg(job, name, "--run", str(run))
            if job == "predict-instances":
                find_something(run)
        for path in run.rglob("*.safetensors"):
            replace(path, run)
    frozen = HERE / name
    shutil.rmtree(frozen, ignore_errors=True)
    for masks, kind in EXPORTED[name]:
        out = frozen / "exports" / kind / masks
        export = ("--masks", masks, "--format", kind, "--out", str(out))
        rayseg("export", name, "--run", str(run), *export)
    keep(run, frozen)


def rayseg(job: str, name: str, *flags: str) -> None:
    files = [HERE / "presets" / f"{name}.toml", HERE / "cuts" / f"{name}.toml"]
    given = [part for file in files for part in ("--config", str(file))]
    command = [sys.executable, "-m", "rayseg.cli", job, *given, *flags]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def replace(path: Path, run: Path) -> None:
    """Puts the weights of `weights.py` in place of those that were trained."""
    kind, seed = path.stem, path.parent.relative_to(run).as_posix()
    network = weights.describe(path)
    known = network["tensors"]
    network["added"] = {key: value for key, value in ADDED.items() if key in known}
    network["doubled"] = {key: value for key, value in DOUBLED.items() if key in known}
    listed = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in known.items()]
    text = json.dumps(network | {"tensors": {}}, indent=1)
    text = text.replace('"tensors": {}', '"tensors": {\n' + ",\n".join(listed) + "\n }")
    (HERE / "networks").mkdir(exist_ok=True)
    file = HERE / "networks" / f"{kind}.json"
    if file.exists() and json.loads(file.read_text()) != network:
        raise ValueError(f"{file} is of another network; delete it or give both one size")
    file.write_text(text + "\n")
    weights.write(path, network, seed)


def find_something(run: Path) -> None:
    """Adds the true boxes, filled, to what a drawn network found, so that scores are not all zero.

    Of the first image one has another class.
    """
    truths = {
        row["id"]: row for row in pq.read_table(run / "manifest" / "manifest.parquet").to_pylist()
    }
    for file in sorted((run / "instances" / "truth").glob("*.parquet")):
        table = pq.read_table(file)
        found = [_with_boxes(row, truths[row["id"]]) for row in table.to_pylist()]
        pq.write_table(pa.Table.from_pylist(found, schema=table.schema), file, compression="zstd")


def _with_boxes(row: dict, truth: dict) -> dict:
    classes, filled = truth["box_classes"], []
    for left, top, right, bottom in np.array(truth["boxes_xyxy"], int):
        mask = np.zeros((row["height"], row["width"]), np.uint8, order="F")
        mask[top:bottom, left:right] = 1
        filled.append(encode(mask)["counts"])
    added = {
        "boxes_xyxy": truth["boxes_xyxy"],
        "classes": [0, *classes[1:]] if row["id"].endswith("0") else classes,
        "object_status": ["ok"] * len(filled),
        "scores": [0.875 - place / 8 for place in range(len(filled))],
        "foreground": filled,
        "possible": [b""] * len(filled),
    }
    return row | {key: [*value, *row[key]] for key, value in added.items()}


def keep(run: Path, frozen: Path) -> None:
    """Copies what does not lie in weights and pages; paths in the manifest begin with RUN."""
    skipped = shutil.ignore_patterns("*.safetensors", "report*", "*.html", "pending")
    shutil.copytree(run, frozen, ignore=skipped, dirs_exist_ok=True)
    file = frozen / "manifest" / "manifest.parquet"
    table = pq.read_table(file)
    for column in ("path", "mask_path"):
        paths = [text.replace(str(run), "RUN") for text in table.column(column).to_pylist()]
        place = table.column_names.index(column)
        table = table.set_column(place, table.schema.field(column), pa.array(paths))
    pq.write_table(table, file)
    settings = (run / "run.toml").read_text().replace(str(run), "RUN")
    (frozen / "run.toml").write_text(settings)
    made = {
        path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*.safetensors"))
    }
    (frozen / "weights.json").write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
