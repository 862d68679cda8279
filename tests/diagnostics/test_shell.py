"""What pages are made of."""

import re
from xml.etree import ElementTree

import pytest

from isonomy.diagnostics import shell
from tests.diagnostics.test_style import contrast

NASTY = "<b>&\"x'</style>"


def colours(scheme):
    block = re.findall(r":root \{[^}]*--page[^}]*\}", shell.CSS)[scheme]
    return dict(re.findall(r"--(\w+): (#\w+)", block))


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("ink", ["text", "soft", "link"])
@pytest.mark.parametrize("paper", ["page", "best"])
def test_letters_can_be_read(scheme, ink, paper):
    assert contrast(colours(scheme)[ink], colours(scheme)[paper]) >= 4.5


def test_a_page_has_landmarks_a_way_past_them_and_one_title():
    page = shell.page(NASTY, ["<h1>x</h1>"])
    assert page.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert re.search(r'<a class="skip" href="#main">[^<]+</a>\n<main id="main"', page)
    assert "<title>&lt;b&gt;&amp;&quot;x&#x27;&lt;/style&gt;</title>" in page


def test_a_table_has_headings_a_caption_and_a_region_that_scrolls():
    found = ElementTree.fromstring(
        shell.table(NASTY, ["task", "loss,\nlast"], [[NASTY, "1"], ["b", "2"]], best="b").replace("<br>", "<br/>")
    )
    assert found.attrib == {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": NASTY}
    assert "".join(found.find("table/caption").itertext()) == NASTY
    assert [cell.get("scope") for cell in found.iter("th")] == ["col", "col", "row", "row"]
    assert [row.get("class") for row in found.iter("tr")] == [None, None, "best"]
    assert [cell.text for cell in found.iter("td")] == ["1", "2"]
    assert [cell.text for cell in found.iter("th")][2:] == [NASTY, "b"]


def test_a_legend_shows_colour_and_dash_and_hides_the_pictures_from_readers_of_words():
    look = {NASTY: {"color": "#123456", "linestyle": "--"}}
    found = ElementTree.fromstring(shell.legend(look, "the others"))
    assert ["".join(entry.itertext()).strip() for entry in found] == [NASTY, "the others"]
    assert [svg.get("aria-hidden") for svg in found.iter("svg")] == ["true", "true"]
    line = next(found.iter("line"))
    assert (line.get("stroke"), line.get("stroke-dasharray")) == ("#123456", "7 4")
    assert len(ElementTree.fromstring(shell.legend(look))) == 1


def test_facts_without_a_value_are_left_out():
    assert shell.facts({"a": "1 < 2", "b": ""}) == "<dl><dt>a</dt><dd>1 &lt; 2</dd></dl>"


def test_prose_has_code_and_percentages_that_hold_together():
    assert shell.prose("`f(<x>)` to 5 % & more") == "<code>f(&lt;x&gt;)</code> to 5\u00a0% &amp; more"


def test_what_is_folded_can_be_opened():
    assert shell.folded("a < b", "<p>x</p>").startswith("<details><summary>a &lt; b</summary>")
    assert shell.folded("a", "", unfolded=True).startswith("<details open>")
