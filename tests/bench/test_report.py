import dataclasses
import math
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from isonomy.bench import compare, looks, plan, records, results
from isonomy.bench.delta import Spread
from isonomy.bench.progress import number, plural, spread
from isonomy.bench.report import figures, render, save_picture
from isonomy.bench.report.verdict import verdict
from isonomy.diagnostics import shell
from isonomy.diagnostics.findings import summary
from isonomy.errors import IsonomyError
from tests.bench.tiny import load

FLAGS = {"data": "tiny", "methods": ["ew", "uw", "imtl"], "seeds": 2, "epochs": 2}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep")
    assert compare.compare(FLAGS, out, 1, False, Console(quiet=True), load) == []
    return out


@pytest.fixture
def found(swept):
    return results.collect(swept, load)


class Outline(HTMLParser):
    """The tags that stay open, and every attribute."""

    def __init__(self, page):
        super().__init__()
        self.open, self.attributes, self.tags = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_tables_are_what_the_runs_say(swept, found):
    rows = [line.split(",") for line in (swept / results.RESULTS).read_text().splitlines()]
    assert rows[0] == ["data", "architecture", "method", "seed", "task", "metric", "value"]
    assert len(rows) == 1 + 2 * (3 * 2 + 3 * 3 * 2)
    for data, architecture, method, seed, task, metric, value in rows[1:]:
        assert (data, architecture) == ("tiny", "hps")
        folder = f"single_task-{task}" if method == "single_task" else method
        assert float(value) == records.test_metrics(swept / folder / seed)[task][metric]

    summary = [line.split(",") for line in (swept / results.SUMMARY).read_text().splitlines()]
    assert summary[0] == ["method", "delta_p_mean", "delta_p_std", "step_time_ratio"]
    assert [row[0] for row in summary[1:]] == ["ew", "uw", "imtl"]
    assert summary[1][3] == "1.000"
    for row, line in zip(found.rows, summary[1:], strict=True):
        assert float(line[1]) == pytest.approx(row.delta.mean, abs=1e-4)
        assert float(line[2]) == pytest.approx(row.delta.std, abs=1e-4)


def test_procedures_are_rows_like_methods_and_what_has_no_weights_has_no_curve(tmp_path, capsys):
    console = Console(width=160)
    flags = {**FLAGS, "methods": ["grid_search", "auto_lambda", "url", "mtadam"], "seeds": 1, "trials": 2}
    assert compare.compare(flags, tmp_path, 1, False, console, load) == []
    found = results.collect(tmp_path, load)
    assert [row.title for row in found.rows] == ["Grid search", "Auto-λ", "URL", "MTAdam"]
    assert all(row.delta for row in found.rows)
    assert [row.ratio is None for row in found.rows] == [True, False, False, False]
    weights = {row.name: results.effective_weights(row) for row in found.rows}
    assert all(math.isnan(weight) for weight in weights["mtadam"].values())
    assert list(weights["url"].values()) == [1.0] * 3
    assert weights["auto_lambda"]["a"] == pytest.approx(0.1, abs=1e-2)
    page = (tmp_path / results.REPORT).read_text()
    panels = re.findall(r"Curves over epochs, b\.[^\"<]*", page)
    assert all("Auto-λ ends at" in panel and "nan" not in panel for panel in panels)
    # Of losses, weights, gradient norms and alignment.
    assert ["MTAdam ends at" in panel for panel in panels] == [True, False, True, False]
    # The search's line says what all its trials cost.
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("grid_search/0")]
    trials = records.read_metrics(tmp_path / "grid_search" / "0")[-1]["trials"]
    assert line.endswith(f"{sum(trial['seconds'] for trial in trials):.0f} s")


def test_delta_from_the_files_by_hand(swept, found):
    alone = {
        task: [records.test_metrics(swept / f"single_task-{task}" / str(seed))[task] for seed in (0, 1)]
        for task in "abc"
    }
    deltas = []
    for seed in (0, 1):
        run = records.test_metrics(swept / "uw" / str(seed))
        parts = []
        for task in "abc":
            mse, score = ((alone[task][0][m] + alone[task][1][m]) / 2 for m in ("mse", "score"))
            parts.append(100 * ((run[task]["score"] / score - 1) - (run[task]["mse"] / mse - 1)) / 2)
        deltas.append(sum(parts) / 3)
    delta = found.row("uw").delta
    assert delta.mean == pytest.approx(sum(deltas) / 2)
    assert delta.std == pytest.approx(abs(deltas[0] - deltas[1]) / 2**0.5)


def test_the_page_needs_nothing_but_itself(swept):
    page = (swept / results.REPORT).read_text()
    assert len(page) < 1_500_000
    outline = Outline(page)
    assert outline.open == []
    assert not {"script", "link", "img", "iframe", "object"} & set(outline.tags)
    loads = [value for name, value in outline.attributes if name in ("src", "href", "xlink:href", "srcset")]
    assert all(value.startswith("#") for value in loads), loads
    assert "@import" not in page
    assert not re.search(r"url\((?!['\"]?#)", page)


def test_options_of_the_data_set_are_said_once_and_not_in_the_headline(found):
    name = "tiny:train=960,val=80,test=160"
    page = render(dataclasses.replace(found, plan=dataclasses.replace(found.plan, data=name)))
    assert "<h1>tiny: which" in page
    assert "<title>tiny: " in page
    assert page.count(name) == 1
    assert f"<dt>Data</dt><dd>{name}, version 1" in page


def test_the_page_is_accessible(swept):
    page = (swept / results.REPORT).read_text()
    assert page.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert page.count("<h1>") == 1
    drawn = re.findall(r"<figure><svg[^>]*>", page)
    assert len(drawn) == 1 + 7 * 3 + 3  # Δp; three a topic; conflicts, times and units
    assert all('role="img"' in figure and 'aria-label="' in figure for figure in drawn)
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page
    assert page.count("<caption>") == page.count("<table>") == page.count('role="region"') == 1
    levels = [int(level) for level in re.findall(r"<h(\d)", page)]
    assert levels == [1] + [2] * (len(levels) - 1)
    assert page.count('<th scope="row">') == 4
    assert page.count('<th scope="col">') == 1 + 6 + 2
    assert "currentColor" in page
    assert "#010203" not in page


def test_the_page_opens_with_the_verdict_and_holds_every_number_of_the_table(swept, found):
    page = (swept / results.REPORT).read_text()
    text = page[page.index("<h1>") : page.index("<table")]
    for sentence in verdict(found):
        assert sentence in text
    for row in found.rows:
        for metrics in row.metrics.values():
            for value in metrics.values():
                assert spread(value) in page
        assert spread(row.delta, 2, sign=True) in page


def headings(page):
    return re.findall("<h2>(.*?)</h2>", page)


def test_everything_that_was_recorded_is_drawn(swept):
    page = (swept / results.REPORT).read_text()
    assert headings(page) == [
        *("Results", "Δp", "What the gradients say", "Validation metrics", "Training losses", "Effective weights"),
        *("Gradient norms", "Alignment", "Cosines", "Conflicts", "Dot products", "Time of a step"),
        "The unit of a loss",
        "How it was measured",
    ]
    panels = re.findall(r'aria-label="Curves over epochs, ([^"]*)\. EW ends at', page)
    assert panels[-7:] == [*(pairs := ["a and b", "a and c", "b and c"]), "pairs in conflict, %", *pairs]


def test_lines_of_an_earlier_version_have_no_figures_of_what_was_not_recorded(found):
    for row in found.rows:
        for run in row.epochs:
            for line in run:
                del line["alignment"], line["dots"]
    page = render(found)
    assert not {"Alignment", "Dot products", "Feature distances"} & set(headings(page))
    assert "Cosines" in headings(page)


def test_distances_to_teachers_are_drawn_where_they_were_taken(found):
    for seed, run in enumerate(found.row("ew").epochs):
        for line in run:
            line["feature_distance"] = {"a": 0.5 + seed, "b": 0.25, "c": 0.125}
    page = render(found)
    assert "Feature distances" in headings(page)
    assert 'aria-label="Curves over epochs, a. EW ends at 1.000."' in page


def test_the_share_of_conflicts_by_hand(found):
    for row in found.rows:
        for seed, run in enumerate(row.epochs):
            for line in run:
                line["cosines"] = [[1.0, -0.1, 0.2], [-0.1, 1.0, 0.3 - seed], [0.2, 0.3 - seed, 1.0]]
    _, conflicts, _ = figures._of_pairs(found, "abc")
    assert "pairs in conflict, %. EW ends at 50.00" in conflicts.panels[0]


def test_of_many_pairs_only_those_in_conflict_are_drawn(found):
    tasks = [dataclasses.replace(found.tasks[0], name=f"t{k}") for k in range(8)]
    for row in found.rows:
        for run in row.epochs:
            for line in run:
                line["cosines"] = [[1.0 if i == j else (i + j) / 20 - 0.3 for j in range(8)] for i in range(8)]
                line["dots"] = line["cosines"]
    topics = list(figures._of_pairs(found, [task.name for task in tasks]))
    assert [len(topic.panels) for topic in topics] == [12, 1, 12]
    assert "The 12 of 28 pairs whose cosines are lowest." in topics[0].sentence
    shown = {re.search("epochs, t(.) and t(.)", panel).groups() for panel in topics[0].panels}
    assert max(int(i) + int(j) for i, j in shown) <= 6
    assert topics[2].folded


def test_the_doctor_speaks_of_every_method(swept, found):
    page = (swept / results.REPORT).read_text()
    said = page[page.index("What the gradients say") : page.index("<h2>Validation")]
    assert re.findall("<summary>(.*?)</summary>", said) == ["EW", "UW", "IMTL"]
    assert said.count("<details open>") == 1
    for row in found.rows:
        for sentence in summary(looks.recording(swept / row.name / "0", load)):
            assert shell.prose(sentence) in said


def score(found, **deltas):
    """The same sweep with other Δp."""
    for row in found.rows:
        mean, std = deltas[row.name]
        row.delta = Spread(mean, std, 2)
        row.task_deltas = {"a": mean, "b": 3 * mean, "c": -mean}
    return found


def test_the_verdict_names_the_best_and_the_loser_under_plain_summing(found):
    score(found, ew=(-10.0, 1.0), uw=(-2.0, 0.5), imtl=(1.0, 0.5))
    for run in found.row("ew").epochs:
        for line in run:
            line["gradient_norms"] = {"a": 0.5, "b": 0.2, "c": 2.0}
    for run in found.row("imtl").epochs:
        for line in run:
            line["loss_weights"] = {"a": 1.0, "b": 3.0, "c": 0.5}
            line["weights"] = {"a": 1.0, "b": 2.0, "c": 1.0}
    sentences = verdict(found)
    assert sentences[0] == (
        "IMTL balances tiny best: Δp +1.00 ± 0.50 % against single-task training, 2 seeds. "
        "That is 11.0 points above plain summing (−10.00 ± 1.00 %)."
    )
    assert sentences[1].startswith("Under plain summing “b” loses most: mse ")
    assert sentences[1].endswith("alone (−30.0 %).")
    assert sentences[2] == "Its gradient at the shared part was 0.1 times as long as that of “c”, the longest of all."
    assert sentences[3].startswith("IMTL weighted the gradient of “b” 12 times as much as that of “c”")
    assert len(sentences) == 4

    found.row("uw").task_deltas["b"] = 5.0
    assert verdict(found)[4].startswith("UW brings “b” back furthest, to ")
    assert verdict(found)[4].endswith("and loses most on “a” (−2.0 %).")


def test_the_verdict_does_not_claim_what_lies_within_a_deviation(found):
    sentences = verdict(score(found, ew=(-1.0, 2.0), uw=(-0.5, 0.1), imtl=(0.0, 0.1)))
    assert "within one deviation: these runs do not show that balancing pays" in sentences[0]
    sentences = verdict(score(found, ew=(-9.0, 0.1), uw=(-0.5, 0.6), imtl=(0.0, 0.1)))
    assert sentences[1] == "UW lies within one deviation of it: these runs do not separate them."


def test_the_verdict_is_honest_when_plain_summing_wins(found):
    sentences = verdict(score(found, ew=(3.0, 0.1), uw=(-0.5, 0.1), imtl=(0.0, 0.1)))
    assert sentences[0].startswith("Plain summing (EW) is best: Δp +3.00 ± 0.10 %")
    assert "Balancing does not pay on tiny." in sentences[0]


def test_a_missing_run_takes_its_method_off_the_summary_and_the_page_says_so(tmp_path, swept):
    import shutil

    out = tmp_path / "copy"
    shutil.copytree(swept, out)
    shutil.rmtree(out / "uw" / "1")
    found = compare.write(out, load)
    assert [row.name for row in found.rows] == ["ew", "imtl"]
    assert "uw" not in (out / results.SUMMARY).read_text()
    assert "tiny,hps,uw,0,a,mse," in (out / results.RESULTS).read_text()
    assert "1 of 12 runs is not finished (&#x27;uw/1&#x27;)" in (out / results.REPORT).read_text()

    shutil.rmtree(out / "single_task-b" / "0")
    found = compare.write(out, load)
    assert found.single is None
    assert [row.delta for row in found.rows] == [None, None]
    assert "There is no verdict: a single-task run is missing." in (out / results.REPORT).read_text()
    with pytest.raises(IsonomyError, match="nothing to draw yet"):
        save_picture(found, out / "picture.svg")


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_picture(found, tmp_path, ending):
    path = tmp_path / f"compare.{ending}"
    save_picture(found, path)
    assert path.stat().st_size > 5_000


def test_one_seed_has_no_deviation(tmp_path):
    assert (
        compare.compare({**FLAGS, "seeds": 1, "methods": ["uw"]}, tmp_path, 1, False, Console(quiet=True), load) == []
    )
    method, mean, std, ratio = (tmp_path / results.SUMMARY).read_text().splitlines()[1].split(",")
    assert (method, std) == ("uw", "")
    assert float(ratio) > 0
    page = render(results.collect(tmp_path, load))
    assert "a single seed, so there is no deviation" in page
    assert f"{float(mean):+.2f} %".replace("-", "−") in page


def test_step_times_are_kept_on_resuming(swept, tmp_path):
    before = (swept / "timing.json").read_text()
    plan_before = plan.read(swept)
    assert compare.compare({}, swept, 1, True, Console(quiet=True), load) == []
    assert (swept / "timing.json").read_text() == before
    assert plan.read(swept) == plan_before


@pytest.mark.parametrize(
    ("value", "text"),
    [(97.3333, "97.33"), (0.98765432, "0.9877"), (0.0, "0.000"), (100.0, "100.0"), (12345.6, "12346")],
)
def test_numbers_have_four_digits(value, text):
    assert number(value) == text


def test_spreads_and_plurals():
    assert spread(Spread(1.148, 0.1634, 3), 2, sign=True) == "+1.15 ± 0.16"
    assert spread(Spread(-1.148, None, 1), 2, sign=True) == "−1.15"
    assert spread(Spread(97.333, 1.0, 3)) == "97.33 ± 1.00"
    assert (plural(1, "seed"), plural(2, "seed")) == ("1 seed", "2 seeds")
