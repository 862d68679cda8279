"""The report of a training: whatever was recorded, the page says it, and is one that can be read."""

import functools
import itertools
import math
import re
from html import unescape

import pytest
import torch

import isonomy
from isonomy.diagnostics import findings, html
from isonomy.diagnostics.findings import summary
from isonomy.diagnostics.html import fixed, number, render
from isonomy.diagnostics.recording import Recording
from tests.bench.test_report import Outline
from tests.diagnostics.made import made
from tests.diagnostics.nets import recorded

NAN = math.nan
NASTY = ("<b>&\"x'</script>", "_$y$", "`normal`")


def nothing(*shape):
    return torch.full(shape, NAN, dtype=torch.float64)


RECORDINGS = {
    "healthy": made,
    "dominated": lambda: made(scales=[1.0, 41.0, 1.0]),
    "nasty names": lambda: made(NASTY, scales=[40.0, 1.0, 1.0], method="<i>", place="a & b"),
    "no weights": lambda: made(weights=nothing(20, 3)),
    "losses alone": lambda: made(weights=nothing(20, 3), norms=nothing(20, 3), cosines=nothing(20, 3, 3)),
    "one task": lambda: made(["seg"]),
    "two tasks": lambda: made(["seg", "depth"]),
    "one look": lambda: made(looks=1, seconds=nothing(1)),
    "two looks": lambda: made(looks=2),
    "eleven tasks": lambda: made([f"t{k}" for k in range(11)], scales=[2.0**k for k in range(11)]),
    "forty tasks": lambda: made([f"t{k}" for k in range(40)], looks=10),
    "epochs": lambda: made(unit="epoch", every=1, seconds=torch.full((20,), 90.0, dtype=torch.float64)),
    "skipped": lambda: made(skipped=torch.ones(20, dtype=torch.float64)),
    "never there": lambda: made(losses=torch.tensor([[1.0, NAN, 2.0]] * 20, dtype=torch.float64)),
}


@functools.cache
def page_of(name):
    return render(RECORDINGS[name]())


@pytest.fixture(params=RECORDINGS)
def case(request):
    return RECORDINGS[request.param](), page_of(request.param)


def text_of(page):
    blocks = re.sub("</?code>", "", page.partition("<main")[2])
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", blocks)).split())


def test_a_page_is_whole_accessible_and_needs_nothing_but_itself(case):
    _, page = case
    outline = Outline(page)
    assert outline.open == []
    assert not {"script", "link", "img", "iframe", "object", "i", "b"} & set(outline.tags)
    loads = [value for name, value in outline.attributes if name in ("src", "href", "xlink:href", "srcset", "style")]
    assert not any("//" in value for value in loads)
    assert not re.search(r"@import|url\((?!#)", page)
    levels = [int(tag[1]) for tag in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    ids = [value for name, value in outline.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    figures = re.findall(r"<figure><svg[^>]*>", page)
    assert all('role="img"' in figure and re.search('aria-label="[^"]{20,}"', figure) for figure in figures)
    assert outline.tags.count("table") == outline.tags.count("caption") == page.count('role="region"')
    assert "nan" not in re.sub("<style>.*?</style>", "", page, flags=re.DOTALL)


def test_the_same_recording_makes_the_same_page():
    assert render(RECORDINGS["nasty names"]()) == page_of("nasty names")


def test_findings_come_first_as_what_is_seen_and_what_to_do(case):
    seen, page = case
    text = text_of(page).replace("`", "")
    found = findings(seen)
    told = [part for finding in found for part in (finding.text, finding.remedy)] or summary(seen)
    places = [text.find(sentence.replace("`", "")) for sentence in told]
    assert -1 not in places
    assert [*places, text.index("Task by task")] == sorted([*places, text.index("Task by task")])


def test_a_dominated_training_says_so():
    page = page_of("dominated")
    assert re.search(r"<h3>(Dominance|Scale mismatch): depth", page)
    assert "<strong>What to do:</strong>" in page


def test_every_task_has_its_row(case):
    seen, page = case
    table = page[page.index("<table>") : page.index("</table>")]
    assert [unescape(name) for name in re.findall(r'<th scope="row">(.*?)</th>', table)] == list(seen.tasks)


def test_the_numbers_of_the_table_by_hand():
    seen = made(looks=4, scales=[1.0, 2.0, 3.0])
    page = render(seen)
    cells = re.findall(r'<th scope="row">depth</th>(.*?)</tr>', page)[0]
    norm, share, cosine = (
        sorted(values[2:, 1].tolist())[0] for values in (seen.norms, 100 * seen.shares, seen.alignment)
    )
    assert re.findall("<td>(.*?)</td>", cells) == ["2 → 1", "1", number(norm), fixed(share, 1), fixed(cosine)]


def figures(page):
    return re.findall(r'aria-label="([A-Z][a-z ]+) over', page)


ALL = ["Losses", "Gradient norms", "Weights", "Shares of the update", "Alignment"]
PAIRS = ["Cosines", "Dot products", "Conflicts"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("healthy", ALL + PAIRS),
        ("two tasks", ALL + PAIRS),
        ("no weights", ALL[:2] + PAIRS),
        ("losses alone", ALL[:1]),
        ("one task", ALL[:3]),
        ("one look", []),
        ("forty tasks", ALL + PAIRS),
    ],
)
def test_there_is_a_figure_for_what_was_recorded_and_for_nothing_else(name, shown):
    assert figures(page_of(name)) == shown


def test_figures_say_in_words_where_lines_end():
    seen = made(scales=[1.0, 41.0, 1.0])
    ends = "; ".join(
        f"{task} ends at {number(float(norm))}" for task, norm in zip(seen.tasks, seen.norms[-1], strict=True)
    )
    assert f'aria-label="Gradient norms over steps. {ends}."' in page_of("dominated")


def test_one_look_has_its_cosines_in_numbers():
    seen, page = RECORDINGS["one look"](), page_of("one look")
    assert "<details open><summary>Every pair in numbers" in page
    assert f"<td>{fixed(float(seen.cosines[0, 0, 1]))}</td>" in page


def test_how_it_was_measured():
    seen = made(method="DB-MTL", place="the shared feature", skipped=torch.ones(20, dtype=torch.float64))
    text = text_of(render(seen))
    assert "20 looks at 3 tasks, from step 0 to 190, at the shared feature." in text
    assert "Balanced by DB-MTL" in text
    assert "Time of a step 20 ms, the median" in text
    assert "Skipped 20 steps" in text
    assert f"isonomy {isonomy.__version__}, torch {torch.__version__}" in text
    assert text.startswith('id="main" tabindex="-1"> DB-MTL: what the gradients say')


def test_a_title_of_ones_own():
    assert "<h1>Run &lt;7&gt;</h1>" in render(made(looks=1), title="Run <7>")


def test_time_is_an_epochs_where_looks_are():
    assert "Time of an epoch 90 s, the median" in text_of(page_of("epochs"))


def test_a_long_training_makes_no_long_page():
    assert len(render(made(looks=1000))) < 400_000
    assert len(page_of("forty tasks")) < 400_000


def test_a_monitor_and_a_probe_have_reports(tmp_path):
    monitor = recorded("imtl_g", folder=tmp_path)
    assert monitor.save() == tmp_path / html.REPORT
    assert (tmp_path / html.REPORT).read_text() == render(monitor.recording)
    assert "<h1>" in render(Recording.of([monitor.balancer.report]))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (-0.01234, "−0.0123"),
        (123456.0, "123000"),
        (1.5e-7, "1.50e−07"),
        (NAN, "–"),
        (math.inf, "inf"),
    ],
)
def test_numbers_have_three_digits(value, shown):
    assert number(value) == shown


def test_fixed_numbers():
    assert [fixed(-0.126), fixed(99.96, 1), fixed(-0.001), fixed(NAN)] == ["−0.13", "100.0", "0.00", "–"]
