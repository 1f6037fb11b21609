"""Every space fits the dataclass that it searches, and holds its defaults."""

from dataclasses import fields

import pytest
from ray.tune.search.sample import Categorical, Float, Integer

from rayseg.config import TUNABLE, TuneConfig
from rayseg.config.seeds import Thresholds
from rayseg.steps.spaces import SPACES, load_space

NAMES = sorted(path.stem for path in SPACES.glob("[a-z]*.py"))
PARTS = {name: part for parts in TUNABLE.values() for name, part in parts.items()}


def lies_in(value, domain):
    match domain:
        case Categorical():
            return value in domain.categories
        case Integer():
            return domain.lower <= value < domain.upper
        case Float():
            return domain.lower <= value <= domain.upper
    raise TypeError(f"no range is known of {domain!r}")


def test_what_stands_is_what_can_be_searched():
    assert set(NAMES) == set(PARTS)


@pytest.mark.parametrize("name", NAMES)
def test_every_key_is_a_field_and_every_default_lies_in_its_range(name):
    space, default = load_space(name), PARTS[name]()
    known = {part.name for part in fields(default)}
    assert set(space.domains) <= known
    assert space.domains
    for key, domain in space.domains.items():
        assert lies_in(getattr(default, key), domain), key
        assert all(lies_in(value, domain) for value in space.grid.get(key, [])), key
    for key, values in space.read_off.items():
        part, dot, field = key.rpartition(".")
        owner = getattr(TuneConfig(), part) if dot else default
        assert min(values) <= getattr(owner, field) <= max(values), key


@pytest.mark.parametrize("maker", [part.name for part in fields(Thresholds)])
def test_thresholds_of_every_method_can_be_drawn(maker):
    domains = load_space("label_crf").domains
    foreground, background = getattr(Thresholds(), maker)
    assert lies_in(foreground, domains["fg_threshold"])
    assert lies_in(background, domains["bg_threshold"])
    assert domains["bg_threshold"].upper <= domains["fg_threshold"].lower  # no draw is refused


@pytest.mark.parametrize("name", NAMES)
def test_values_of_the_grid_are_taken_by_the_method(name):
    space = load_space(name)
    for key, values in space.grid.items():
        for value in values:
            made = space.setting(PARTS[name](), {key: value})
            assert getattr(made, key) == value
    for domain in space.domains.values():
        assert lies_in(domain.sample(), domain)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["restrict_wait=1"], "grid must name fields of space advcam .*restrict_weight"),
        (["restrict_weight=a"], "grid must be such as restrict_weight=0,3,7, got"),
        (["restrict_weight"], "grid must be such as restrict_weight=0,3,7, got"),
    ],
)
def test_values_that_are_none_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        load_space("advcam").narrowed(given)


def test_given_values_are_the_whole_grid():
    space = load_space("advcam").narrowed(["restrict_weight=0,7.5", "num_steps=2,4"])
    assert space.grid == {"restrict_weight": [0, 7.5]}
    assert space.read_off == {"num_steps": [2, 4]}
    assert load_space("advcam").narrowed(["num_steps=3"]).grid == load_space("advcam").grid


def test_a_setting_is_complete_and_can_be_drawn_again():
    cam, bbam = load_space("cam"), load_space("bbam")
    complete = cam.complete(PARTS["cam"](), {"scales": (1.0,)})
    assert complete == {"flip": PARTS["cam"]().flip, "scales": [1.0]}
    assert cam.drawable(complete) == {"flip": complete["flip"], "scales": (1.0,)}
    assert cam.drawable(complete | {"scales": [0.3]}) is None
    assert bbam.complete(PARTS["bbam"](), {}) == {"sparsity": PARTS["bbam"]().sparsity}
    assert bbam.drawable({"sparsity": 0.01}) == {"sparsity": 0.01}
    assert bbam.drawable({"sparsity": 0.1}) is None
    advcam = load_space("advcam")
    whole = [advcam.complete(PARTS["advcam"](), {"restrict_weight": one}) for one in (3, 3.0)]
    assert whole[0] == whole[1]
    assert str(whole[0]) == str(whole[1])


def test_a_file_of_ones_own_is_a_space(tmp_path):
    path = tmp_path / "cam.py"
    path.write_text("SPACE = {}\nGRID = {}\nREAD_OFF = {}\nMETRIC, MODE = 'miou', 'max'\n")
    assert load_space(str(path)).kind == "seeds"
    path.write_text("SPACE = {'scale': None}\nGRID = {}\nREAD_OFF = {}\nMETRIC, MODE = '', 'max'\n")
    with pytest.raises(ValueError, match="unknown field 'scale'; did you mean 'scales'"):
        load_space(str(path))
    path.write_text("SPACE = {}\nGRID = {}\nREAD_OFF = {}\nMETRIC, MODE = 'loss', 'min'\n")
    with pytest.raises(ValueError, match="METRIC, MODE must be 'miou', 'max', got 'loss', 'min'"):
        load_space(str(path))
    path.write_text(
        "SPACE = {}\nGRID = {}\nREAD_OFF = {'flip': [True]}\nMETRIC, MODE = 'miou', 'max'\n"
    )
    with pytest.raises(ValueError, match="READ_OFF must be empty or have one of nothing, got flip"):
        load_space(str(path))
    walk = tmp_path / "irnet.py"
    begin = "SPACE = {}\nGRID = {}\nMETRIC, MODE = 'miou', 'max'\n"
    walk.write_text(begin + "READ_OFF = {'beta': [8.0]}\n")
    with pytest.raises(ValueError, match="some of background_threshold, log_steps, got beta"):
        load_space(str(walk))
    walk.write_text(begin + "READ_OFF = {'log_steps': [4]}\n")
    assert load_space(str(walk)).read_off == {"log_steps": [4]}
    path.write_text("SPACE = nothing\n")
    with pytest.raises(ValueError, match=r"cam\.py is no space: NameError: name 'nothing'"):
        load_space(str(path))
    path.write_text("GRID = {}\n")
    with pytest.raises(ValueError, match=r"cam\.py is no space"):
        load_space(str(path))
    with pytest.raises(FileNotFoundError, match=r"must be of advcam, .* did you mean 'advcam'"):
        load_space("advcamm")
    other = tmp_path / "magic.py"
    other.write_text("")
    with pytest.raises(ValueError, match="must be named after a method or refiner"):
        load_space(str(other))
