"""The served page as a browser shows it: keys, what is read of 10,000 images, both schemes."""

import pytest

from rayseg.report.contrast import contrast
from rayseg.report.view.site import PER_PAGE
from tests.report import chromium
from tests.report.test_view_server import serving
from tests.report.viewed import RESULT, id_of, make_run

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not chromium.PROGRAM, reason="chromium is not installed"),
]

MANY = 10_000
FIRST_VIEW_BYTES = 2_000_000
HERE = "document.activeElement.querySelector('b').textContent"
IN_VIEW = """[...document.images].filter(one => one.getBoundingClientRect().top < innerHeight)
    .every(one => one.complete && one.naturalWidth)"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with chromium.browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def small(tab, tmp_path):
    """The page of a few images; its console says nothing at the end."""
    with serving(make_run(tmp_path, 30)) as server:
        tab.events.clear()
        tab.show(1280, 800)
        tab.open(server.address)
        yield tab
        assert tab.complaints() == []
        tab.call("Page.navigate", url="about:blank")  # or it asks on while the server goes


def choose(tab, name, value):
    loaded = tab.value("document.body.dataset.loaded")
    change = "dispatchEvent(new Event('change', {bubbles: true}))"
    tab.value(
        f"(one => {{ one.value = {value!r}; one.{change} }})(document.getElementById('{name}'))"
    )
    tab.wait_for(f"document.body.dataset.loaded !== '{loaded}'")


def shown(tab):
    return tab.value("[...document.querySelectorAll('.card b')].map(one => one.textContent)")


def test_keys_move_open_and_close(small):
    small.press("j")
    assert small.value(HERE) == id_of(1)
    small.press("ArrowRight")
    small.press("k")
    small.press("ArrowDown")
    columns = small.value("columns()")
    assert columns > 1
    assert small.value(HERE) == id_of(1 + columns)
    small.press("Enter")
    small.wait_for("document.querySelector('#zoomed section')")
    assert small.value("document.getElementById('zoom-title').textContent") == id_of(1 + columns)
    small.press("ArrowRight")
    small.wait_for(
        f"document.getElementById('zoom-title').textContent === '{id_of(2 + columns)}'"
        " && document.querySelector('#zoomed section')"
    )
    small.press("Escape")
    assert not small.value("document.getElementById('zoom').open")
    assert small.value(HERE) == id_of(2 + columns)


def test_a_slash_searches_and_enter_goes_back_to_the_images(small):
    small.press("/")
    assert small.value("document.activeElement.id") == "search"
    for key in "mg 17":
        small.press(key)
    small.wait_for("document.querySelectorAll('.card').length === 1")
    assert shown(small) == [id_of(17)]
    small.press("Enter")
    assert small.value(HERE) == id_of(17)


def test_n_and_p_turn_pages(small):
    assert shown(small) == [id_of(n) for n in range(PER_PAGE)]
    small.press("n")
    small.wait_for(f"document.querySelectorAll('.card').length === {30 - PER_PAGE}")
    assert shown(small) == [id_of(n) for n in range(PER_PAGE, 30)]
    small.press("p")
    small.wait_for(f"document.querySelectorAll('.card').length === {PER_PAGE}")


def test_filters_and_orders_are_those_of_the_server(small):
    choose(small, "status", "error")
    assert shown(small) == [id_of(2)]
    assert "cut <short> & empty" in small.value("document.querySelector('.card').textContent")
    choose(small, "status", "")
    choose(small, "order", "undecided")
    first = small.value("document.querySelector('.card').textContent")
    assert "undecided 33 %" in first


def test_class_names_and_ids_are_text(small):
    choose(small, "class", "2")
    assert "<b>dog</b>" in small.value("document.querySelector('.card').textContent")
    small.press("j")
    small.press("Enter")
    small.wait_for("document.querySelector('#zoomed section')")
    assert small.value("document.querySelectorAll('#zoomed b').length") == 0


def test_classes_are_counted_while_the_page_is_looked_at(small):
    small.wait_for("document.getElementById('counted').textContent.startsWith('30 of 30')")
    assert len(small.value("document.getElementById('class-rows').textContent")) > 10


@pytest.mark.parametrize("dark", [False, True])
def test_colours_have_contrast_and_letters_beside_them(small, dark):
    small.show(1280, 800, dark=dark)
    said = small.value("""[...document.querySelectorAll('.chip')].map(chip => [
        getComputedStyle(chip.querySelector('.swatch')).backgroundColor,
        getComputedStyle(chip.closest('.card')).backgroundColor,
        chip.querySelector('i').textContent])""")
    assert len(said) >= 20
    for color, paper, letters in said:
        assert contrast(_hexadecimal(color), _hexadecimal(paper)) >= 3
        assert letters
    words = small.value("""[...document.querySelectorAll('.card .of, .card b, .alarm, .quiet')].map(
        one => [one, one.closest('.card') || document.body]).map(([one, paper]) => [
        getComputedStyle(one).color, getComputedStyle(paper).backgroundColor])""")
    assert all(contrast(*map(_hexadecimal, pair)) >= 4.5 for pair in words)


def _hexadecimal(color):
    parts = color.partition("(")[2].rstrip(")").split(",")[:3]
    return "#" + "".join(f"{int(part):02x}" for part in parts)


def test_on_a_phone_only_tables_are_wider_than_the_page_and_they_scroll(small):
    small.show(360, 740, phone=True)
    small.wait_for("!document.getElementById('classes').hidden")
    assert small.value("document.documentElement.scrollWidth <= innerWidth")
    small.value("document.querySelector('#classes').scrollIntoView()")
    assert small.value("""(one => one.scrollWidth > one.clientWidth
        && getComputedStyle(one).overflowX === 'scroll' && one.tabIndex === 0)
        (document.querySelector('#classes .wide'))""")


def test_two_runs_are_shown_beside_each_other(tab, tmp_path):
    first, second = make_run(tmp_path / "a", 6), make_run(tmp_path / "b", 3)
    with serving(first, second) as server:
        tab.show(1280, 800)
        tab.open(server.address)
        assert tab.value("document.querySelectorAll('.card .pair > span').length") == 12
        assert (
            tab.value("document.getElementById('gallery').textContent").count("not in this run")
            == 6
        )
        tab.press("j")
        tab.press("Enter")
        tab.wait_for("document.querySelectorAll('.beside.two > section').length === 2")
        tab.press("Escape")
        tab.call("Page.navigate", url="about:blank")


@pytest.mark.slow
def test_the_first_view_of_many_images_is_small_and_the_rest_is_not_read(tab, tmp_path):
    with serving(make_run(tmp_path, MANY)) as server:
        tab.events.clear()
        tab.show(1280, 800)
        tab.open(server.address)
        tab.wait_for(IN_VIEW)
        amount, answers = tab.received()
        assert 20_000 < amount < FIRST_VIEW_BYTES
        assert answers < 3 * PER_PAGE
        assert tab.value("document.getElementById('count').textContent") == "10000 of 10000 images"
        assert tab.value("document.getElementById('page').textContent").endswith("of 417")
        first = server.site.runs[0]
        assert len(first.result(RESULT).light._recent) <= 4
        tab.press("n")
        tab.wait_for(f"document.querySelector('.card b').textContent === '{id_of(PER_PAGE)}'")
