import base64
import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from isonomy.bench import compare, pictures, results
from isonomy.bench.cell import single
from isonomy.bench.progress import table
from isonomy.bench.report import render
from tests.bench.noise import Noise
from tests.bench.test_report import Outline


def load(name):
    return Noise(profile="nyu3", images=3)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep")
    flags = {"data": "noise", "methods": ["ew", "imtl"], "seeds": 1, "backbone": "resnet_mini"}
    assert compare.compare(flags, out, 1, False, Console(quiet=True), load) == []
    return out


def test_every_run_keeps_pictures_of_what_it_predicts(swept):
    kept = {path.name for path in (swept / "imtl" / "0" / pictures.FOLDER).iterdir()}
    tasks = ("seg", "depth", "normal")
    assert kept == {f"{i}-{name}.png" for i in (0, 1) for t in tasks for name in ("image", t, f"{t}-truth")}
    alone = {path.name for path in (swept / single("seg") / "0" / pictures.FOLDER).iterdir()}
    assert alone == {f"{i}-{name}.png" for i in (0, 1) for name in ("image", "seg", "seg-truth")}
    image = np.asarray(Image.open(swept / "ew" / "0" / pictures.FOLDER / "0-image.png"))
    truth = load("noise").read("test", np.arange(1))["image"][0].permute(1, 2, 0).numpy()
    assert np.abs(image / 255 - truth).max() <= 1 / 255


def test_the_report_shows_truth_and_predictions_with_a_text_for_each(swept):
    found = results.collect(swept, load)
    outline = Outline(render(found).replace("<img", "<br"))
    assert not outline.open
    texts = [value for name, value in outline.attributes if name == "alt"]
    assert len(texts) == 2 * (1 + 3 + 3 + 3 * 2)
    assert {"test image 0", "true depth", "normal as predicted by IMTL", "seg as predicted by Single-task"} <= set(
        texts
    )
    sources = [value for name, value in outline.attributes if name == "src"]
    assert len(sources) == len(texts)
    for source in sources:
        kind, _, content = source.partition(",")
        assert kind == "data:image/png;base64"
        assert Image.open(io.BytesIO(base64.b64decode(content))).size == (32, 32)


def test_a_table_of_many_metrics_is_turned(swept):
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table(results.collect(swept, load)))
    text = console.export_text()
    lines = {line.split("│")[1].strip(): line for line in text.splitlines() if line.count("│") > 3}
    assert list(lines) == [
        *("seg, mIoU ↑, %", "seg, PAcc ↑, %", "depth, AErr ↓", "depth, RErr ↓", "normal, mean ↓, °"),
        *("normal, median ↓, °", "normal, 11.25 ↑, %", "normal, 22.5 ↑, %", "normal, 30 ↑, %", "Δp, %", "step time"),
    ]
    assert "IMTL" in text
    assert "…" not in text
