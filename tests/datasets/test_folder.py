import pytest
from PIL import Image

from rayseg.datasets import DatasetError, DatasetNotFoundError, Folder
from rayseg.records import MAX_CLASSES


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.jpg", "b.png", "sub/c.JPG"):
        Image.new("RGB", (30, 20)).save(folder / name)
    return folder


@pytest.fixture
def folder(images, tmp_path):
    def make(csv: str | bytes, **flags) -> Folder:
        path = tmp_path / "tags.csv"
        path.write_bytes(csv if isinstance(csv, bytes) else csv.encode())
        return Folder(images=images, tags=path, **flags)

    return make


def tags_of(reader, tmp_path):
    names = reader.classes
    return {s.id: tuple(names[tag] for tag in s.tags) for s in reader.samples(tmp_path)}


@pytest.mark.parametrize(
    "csv",
    [
        "image,tags\na.jpg,dog;cat\nb.png,\n",
        "image,tags\na.jpg,cat|dog|cat\nb.png,\n",
        'image,tags\na.jpg,"dog,cat"\nb.png,\n',
        'image,tags\na.jpg,"dog cat"\nb.png\n',
        'image,tags\r\n"a.jpg","dog; cat"\r\n"b.png",""\r\n',
        b"\xef\xbb\xbfimage,tags\r\na.jpg,dog;cat\r\n\r\nb.png,\r\n",
        "id,class\na,dog;cat\nb,\n",
        "x, Labels ,FileName\n1,dog;cat,a.jpg\n2,,b.png\n",
    ],
)
def test_every_usual_way_to_write_it_reads_the_same(folder, tmp_path, csv):
    assert tags_of(folder(csv), tmp_path) == {"a": ("cat", "dog"), "b": ()}


def test_class_numbers_do_not_depend_on_the_order_of_rows(folder):
    assert folder("image,tags\na.jpg,zebra;Ärmel\nb.png,ant\n").classes == ("ant", "zebra", "Ärmel")
    assert folder("image,tags\nb.png,ant\na.jpg,Ärmel;zebra\n").classes == ("ant", "zebra", "Ärmel")


def test_given_class_names_keep_their_order(folder, tmp_path):
    reader = folder("image,tags\na.jpg,cat\n", class_names=("dog", "cat"))
    assert reader.classes == ("dog", "cat")
    assert next(reader.samples(tmp_path)).tags == (1,)


def test_names_with_blanks_need_a_separator_or_given_names(folder, tmp_path):
    reader = folder("image,tags\na.jpg,traffic light;car\nb.png,traffic light\n")
    assert tags_of(reader, tmp_path)["b"] == ("traffic light",)
    reader = folder("image,tags\nb.png,traffic light\n", class_names=("car", "traffic light"))
    assert tags_of(reader, tmp_path) == {"b": ("traffic light",)}


def test_ids_keep_folders_and_paths_are_absolute(folder, tmp_path, images):
    (sample,) = folder("image,tags\nsub/c.JPG,cat\n").samples(tmp_path)
    assert (sample.id, sample.path) == ("sub/c", str(images / "sub" / "c.JPG"))
    assert (sample.height, sample.width, sample.split) == (20, 30, "train")


def test_a_dot_in_a_name_is_not_a_suffix(folder, tmp_path, images):
    Image.new("RGB", (30, 20)).save(images / "v1.2.png")
    (sample,) = folder("image,tags\nv1.2,cat\n").samples(tmp_path)
    assert (sample.id, sample.height) == ("v1.2", 20)


def test_images_that_are_missing_or_broken_stay_as_rows(folder, tmp_path, images):
    (images / "broken.jpg").write_text("no image")
    reader = folder("image,tags\ngone.jpg,cat\nbroken.jpg,cat\na.jpg,cat\n")
    assert [(s.id, s.height) for s in reader.samples(tmp_path)] == [
        ("gone", 0),
        ("broken", 0),
        ("a", 20),
    ]


def test_masks_are_found_by_id(folder, tmp_path, images):
    (tmp_path / "masks").mkdir()
    Image.new("P", (30, 20)).save(tmp_path / "masks" / "a.png")
    reader = folder("image,tags\na.jpg,cat\nb.png,cat\n", masks=tmp_path / "masks")
    assert [s.mask_path for s in reader.samples(tmp_path)] == [str(tmp_path / "masks/a.png"), ""]


@pytest.mark.parametrize(
    ("csv", "flags", "message"),
    [
        ("image,tags\na.jpg,cat\nb.png,cat\na.jpg,dog\n", {}, r"csv:4: duplicate id 'a'.*line 2"),
        ("image,tags\na.jpg,cat\na.png,cat\n", {}, r"csv:3: .*\(a.png\).*line 2 \(a.jpg\)"),
        (
            "image,tags\na.jpg,dog\nb.png,catt\n",
            {"class_names": ("cat", "dog")},
            r"csv:3: unknown tag 'catt', did you mean 'cat'",
        ),
        ("image,tags\n", {}, "no row below its header"),
        ("", {}, r"csv:1: expected a header .* got \[\]"),
        ("a.jpg,cat\n", {}, r"csv:1: expected a header with a column image or file"),
        ("image,tags\na.jpg,cat,dog\n", {}, r"csv:2: 3 fields, the header has 2"),
        ("image,tags\na.jpg,\n", {}, "names no class"),
        ("image,tags\n../a.jpg,cat\n", {}, r"csv:2: expected a name inside"),
        ("image,tags\n/a.jpg,cat\n", {}, r"csv:2: expected a name inside"),
        ("image,tags\n,cat\n", {}, r"csv:2: expected a name inside"),
        (b"image,tags\na.jpg,\xe4\n", {}, "not UTF-8"),
        ('image,tags\na.jpg,"cat\n', {}, r"csv:\d: not CSV"),
        ("image,tags\na.jpg,cat\n", {"class_names": ("cat", "cat")}, "'cat' empty or twice"),
    ],
)
def test_bad_input_is_an_error_with_file_and_line(folder, tmp_path, csv, flags, message):
    with pytest.raises(DatasetError, match=message) as caught:
        list(folder(csv, **flags).samples(tmp_path))
    assert "\n" not in str(caught.value)


def test_the_limit_of_classes_is_that_of_an_eight_bit_mask(folder):
    names = [f"c{i:03d}" for i in range(MAX_CLASSES + 1)]
    assert len(folder(f"image,tags\na.jpg,{';'.join(names[1:])}\n").classes) == MAX_CLASSES
    with pytest.raises(DatasetError, match="255 classes, an 8-bit mask holds 254"):
        _ = folder(f"image,tags\na.jpg,{';'.join(names)}\n").classes


def test_what_is_missing_is_an_error(folder, tmp_path):
    with pytest.raises(DatasetNotFoundError, match="tags not found"):
        _ = Folder(images=tmp_path, tags=tmp_path / "no.csv").classes
    with pytest.raises(DatasetNotFoundError, match="masks not found"):
        list(folder("image,tags\na.jpg,c\n", masks=tmp_path / "no").samples(tmp_path))
