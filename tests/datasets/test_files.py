"""What a reader's samples follow from: whoever looks at these files notices every change."""

import json
import os

import pytest
from PIL import Image

from rayseg.datasets import COCO, VOC, FolderDataset, Synthetic
from rayseg.datasets.listing import walk


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (30, 20)).save(path)


def folder_reader(root):
    picture(root / "images" / "sub" / "a.jpg")
    picture(root / "masks" / "sub" / "a.png")
    (root / "tags.csv").write_text("image,tags\nsub/a.jpg,cat\n")
    (root / "boxes.csv").write_text("image,class,x1,y1,x2,y2\nsub/a.jpg,cat,1,1,9,9\n")
    return FolderDataset(
        root / "images", root / "tags.csv", root / "boxes.csv", masks=root / "masks"
    )


def voc_reader(root):
    picture(root / "JPEGImages" / "a.jpg")
    for kind in ("SegmentationClass", "SegmentationObject"):
        picture(root / kind / "a.png")
    for name in ("Segmentation/train.txt", "Main/dog_train.txt"):
        (root / "ImageSets" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / name).write_text("a\n")
    (root / "Annotations").mkdir()
    (root / "Annotations" / "a.xml").write_text("<annotation/>")
    (root / "ids.txt").write_text("a\n")
    return VOC(root, list_file=root / "ids.txt")


def coco_reader(root):
    for split in ("train", "val"):
        picture(root / split / "a.jpg")
        content = {"images": [], "annotations": [], "categories": []}
        (root / f"{split}.json").write_text(json.dumps(content))
    return COCO(
        root / "train",
        root / "train.json",
        val_images=root / "val",
        val_annotations=root / "val.json",
    )


@pytest.mark.parametrize("make", [folder_reader, voc_reader, coco_reader])
def test_all_that_is_there_is_named(make, tmp_path):
    files = set(make(tmp_path).files())
    assert {path for path in tmp_path.rglob("*") if path.is_file()} <= files
    holders = {path.parent for path in files if path.is_file()} - {tmp_path}
    assert {path for path in holders if path.name != "ImageSets"} <= files
    assert all(path.is_absolute() for path in files)


@pytest.mark.parametrize("make", [folder_reader, voc_reader, coco_reader])
def test_no_image_is_opened_and_a_pipe_does_not_hang(make, tmp_path):
    reader = make(tmp_path)
    (image,) = [path for path in tmp_path.rglob("a.jpg") if "val" not in path.parts]
    image.unlink()
    os.mkfifo(image)
    assert image in set(reader.files())


def test_a_new_file_shows_in_the_folder_that_is_named(tmp_path):
    reader = voc_reader(tmp_path)
    place = tmp_path / "Annotations"
    (place / "a.xml").unlink()
    assert place in set(reader.files())


def test_voc_names_nothing_of_images_that_no_list_has(tmp_path):
    reader = voc_reader(tmp_path)
    picture(tmp_path / "JPEGImages" / "other.jpg")
    assert tmp_path / "JPEGImages" / "other.jpg" not in set(reader.files())


def test_a_run_inside_the_folder_of_images_is_none_of_its_files(tmp_path):
    reader = folder_reader(tmp_path)
    picture(tmp_path / "images" / "runs" / "mine" / "drawn.png")
    assert not [path for path in reader.files() if "runs" in path.parts]


def test_drawn_scenes_follow_from_no_file():
    assert list(Synthetic().files()) == []


def test_a_loop_of_links_ends(tmp_path):
    picture(tmp_path / "a" / "one.jpg")
    (tmp_path / "a" / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a" / "self")
    found = [str(path.relative_to(tmp_path)) for path in walk(tmp_path)]
    assert found == [".", "a", "a/again", "a/one.jpg", "a/self"]


def test_what_is_not_there_is_only_itself(tmp_path):
    assert list(walk(tmp_path / "no")) == [tmp_path / "no"]
