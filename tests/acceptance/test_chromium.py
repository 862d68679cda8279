"""Both reports in a real browser: nothing is complained of, nothing is asked for, nothing is cut off, dark is dark."""

import json
import re
import shutil
import subprocess
from html import escape, unescape

import pytest
from PIL import Image

from isonomy.bench import compare, plan, records, results, runner, timing
from isonomy.diagnostics import html
from tests.bench.tiny import load
from tests.diagnostics.made import made

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium, chromium-browser or google-chrome")

PHONE, DESK, HEIGHT = 360, 1100, 2400
SCHEMES = {"dark": 0, "light": 1}
LONG = 'segmentation_of_everything_that_was_ever_seen <b>&"x$'


def sweep(out):
    """A finished sweep's folder, trained in this process."""
    wanted = plan.resolve({"data": "tiny", "methods": ["ew", "imtl"], "seeds": 1, "epochs": 2}, out, False, load)
    records.write_json(out / plan.FILE, wanted.facts)
    for cell in plan.cells(wanted, load):
        runner.run_cell(cell, out, load)
    timing.update(out, plan.timed(wanted, load), load)
    compare.write(out, load)
    return (out / results.REPORT).read_text()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The report of a training that one of eleven tasks dominates, and a sweep's."""
    seen = made([LONG, *(f"t{k}" for k in range(10))], scales=[40.0] + [1.0] * 10)
    return {"training": html.render(seen), "sweep": sweep(tmp_path_factory.mktemp("sweep"))}


def framed(pages):
    """A page of frames: each page as wide as a phone and as a desk; its title becomes what it measures of them."""
    frames = "".join(
        f'<iframe srcdoc="{escape(page)}" style="width:{width}px;height:{HEIGHT}px;border:0;display:block"></iframe>'
        for page in pages
        for width in (PHONE, DESK)
    )
    script = (
        "onload = () => { document.title = JSON.stringify([...document.querySelectorAll('iframe')].map(frame => {"
        " const page = frame.contentDocument; page.querySelectorAll('details').forEach(part => { part.open = true; });"
        " return {width: page.documentElement.scrollWidth, figures: page.querySelectorAll('svg[role=img]').length,"
        " lost: [...page.querySelectorAll('use')].map(use => use.getAttribute('xlink:href').slice(1))"
        ".filter(name => !page.getElementById(name)),"
        " asked: frame.contentWindow.performance.getEntriesByType('resource').map(entry => entry.name)}; })) }"
    )
    head = '<!DOCTYPE html><meta charset="utf-8"><meta name="color-scheme" content="light dark"><title></title>'
    return f'{head}<body style="margin:0">{frames}<script>{script}</script>'


def browse(tmp_path, text, *flags):
    """What a browser without a network prints of a page, and what it complains of."""
    page = tmp_path / "page.html"
    page.write_text(text)
    common = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr", "--v=0"]
    offline = "--host-resolver-rules=MAP * ~NOTFOUND"
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [CHROMIUM, *common, offline, profile, *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def measured(dom):
    return json.loads(unescape(re.search("<title>(.*?)</title>", dom)[1]))


def test_the_reports_fit_a_phone_and_the_browser_has_nothing_to_say(pages, tmp_path):
    dom, complaints = browse(tmp_path, framed(pages.values()), "--dump-dom")
    assert complaints == []
    found = measured(dom)
    assert [frame["width"] for frame in found] == [PHONE, DESK] * len(pages)
    assert [frame["figures"] for frame in found[::2]] == [page.count('role="img"') for page in pages.values()]
    assert [frame["lost"] + frame["asked"] for frame in found] == [[]] * len(found)
    for page in pages.values():
        text = page.replace("http://www.w3.org/", "")  # names of namespaces, which nobody visits
        assert not re.search(r"https?:|(?:src|href)=\"(?!#)|url\((?!#)|@import", text)


def test_what_it_would_find(tmp_path):
    """A wide page, a lost name, an error and a request are seen: the test above could fail."""
    bad = (
        '<!DOCTYPE html><html><body><div style="width:500px">x</div><img src="http://example.com/x.png">'
        '<svg><use xlink:href="#nowhere"/></svg><script>console.error("oh")</script></body></html>'
    )
    dom, complaints = browse(tmp_path, framed([bad]), "--dump-dom")
    phone = measured(dom)[0]
    assert phone["width"] >= 500
    assert phone["lost"] == ["nowhere"]
    assert phone["asked"] == ["http://example.com/x.png"]
    assert any('"oh"' in line for line in complaints)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_screenshots_show_something_in_the_colours_that_are_wanted(pages, tmp_path, scheme):
    picture = tmp_path / "all.png"
    size = f"--window-size={DESK},{2 * HEIGHT * len(pages)}"
    browse(
        tmp_path,
        framed(pages.values()),
        size,
        f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
        f"--screenshot={picture}",
    )
    whole = Image.open(picture).convert("RGB")
    names = [f"{name}-{device}" for name in pages for device in ("phone", "desk")]
    for place, name in enumerate(names):
        width = PHONE if name.endswith("phone") else DESK
        shot = whole.crop((0, place * HEIGHT, width, (place + 1) * HEIGHT))
        shot.save(tmp_path / f"{name}-{scheme}.png")
        colours = shot.getcolors(shot.width * shot.height)
        count, paper = max(colours)
        assert paper == {"light": (255, 255, 255), "dark": (20, 23, 26)}[scheme], name
        assert 0.5 < count / (shot.width * shot.height) < 0.99, name
        assert any(min(c) > 200 if scheme == "dark" else max(c) < 60 for _, c in colours), f"{name} has no letters"
        assert any(max(c) - min(c) > 100 for _, c in colours), f"{name} has no lines"
