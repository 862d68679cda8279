"""Figures as elements of a page."""

import re
from xml.etree import ElementTree

import pytest

from isonomy.diagnostics import style


def contrast(one, other):
    def light(color):
        parts = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def drawn(label="seg <b>", description='About <b> & "x"'):
    with style.canvas(3, 2) as (figure, ax):
        ax.plot(range(20), [k**0.5 / 7 for k in range(20)], marker="o")
        ax.set_title(label)
        return style.vector(figure, description)


def test_a_figure_is_an_image_with_a_name_and_the_ink_of_the_page():
    svg = drawn()
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg")
    assert (root.get("role"), root.get("aria-label")) == ("img", 'About <b> & "x"')
    assert root.get("width") is None
    assert "currentColor" in svg
    assert style.INK not in svg
    assert ">seg &lt;b&gt;</text>" in svg


def test_it_is_the_same_every_time():
    assert drawn() == drawn()


def test_what_a_figure_refers_to_is_its_own():
    one, other = drawn("a", "one"), drawn("a", "other")
    found = []
    for svg in (one, other):
        ids = set(re.findall(r' id="([^"]*)"', svg))
        assert set(re.findall(r'(?:url\(|href=")#([^")]*)', svg)) == ids != set()
        found.append(ids)
    assert not found[0] & found[1]


def test_coordinates_have_few_digits_but_numbers_stay_whole():
    svg = drawn("0.123456")
    assert "0.123456" in svg
    assert not re.search(r' d="[^"]*\.\d{3}', svg)


@pytest.mark.parametrize("page", ["#ffffff", "#14171a"])
@pytest.mark.parametrize("color", [*style.PALETTE, style.NEUTRAL])
def test_lines_can_be_seen_on_both_pages(color, page):
    assert contrast(color, page) >= 3


def test_looks_are_all_different_and_references_grey():
    names = [f"m{k}" for k in range(33)]
    found = style.looks(names, neutral=["m7"])
    assert len({(look["color"], look["linestyle"]) for look in found.values()}) == 33
    assert found["m7"]["color"] == style.NEUTRAL
