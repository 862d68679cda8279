import pytest

from isonomy.bench import data
from isonomy.bench.experiments import catalogue, published
from isonomy.bench.experiments.published import Measure
from isonomy.bench.experiments.schema import Panel
from isonomy.errors import IsonomyError
from tests.bench.experiments.papers import NUMBERS, paper, printed
from tests.bench.tiny import Tiny


def test_every_published_number_has_a_panel_a_method_and_a_measure():
    left = set(published.numbers())
    assert len(left) == 2048
    for experiment in map(catalogue.load, catalogue.names()):
        for panel in experiment.panels:
            problem = data.load(panel.data)
            for number in published.of_panel(experiment, panel):
                assert number.method in {experiment.single, *panel.methods, *panel.unmeasured}
                assert published.measure(number.metric, panel, problem).kind
                if number.experiment == experiment.name:
                    left.remove(number)  # which fails where two panels claim it
    assert not left


def test_digits_are_kept_as_printed():
    first = published.numbers()[0]
    assert (first.method, first.metric, first.value, first.std, first.decimals) == ("STL", "seg_mIoU", "53.50", "", 2)
    spread = next(each for each in published.numbers() if each.method == "DB-MTL" and each.metric == "Delta_p")
    assert (spread.value, spread.std) == ("1.15", "0.16")


@pytest.mark.parametrize(
    ("metric", "name", "suffix", "wanted"),
    [
        ("seg_mIoU", "nyuv2", "", Measure("metric", "seg", "mIoU")),
        ("normal_11.25", "nyuv2", "", Measure("metric", "normal", "11.25")),
        ("norm_cos", "nyuv2:metrics=imtl", "", Measure("metric", "normal", "cosine")),
        ("depth_L1", "nyuv2:metrics=imtl", "", Measure("metric", "depth", "AErr")),
        ("depth_RMSE", "nyud4", "", Measure("metric", "depth", "RMSE")),
        ("edge_lambda", "nyud4", "", Measure("weight", "edge")),
        ("acc_Artistic", "officehome", "", Measure("metric", "art", "accuracy")),
        ("acc_Real", "officehome", "", Measure("metric", "real_world", "accuracy")),
        ("acc_DSLR", "office31", "", Measure("metric", "dslr", "accuracy")),
        ("acc_avg", "office31", "", Measure("mean")),
        ("acc_mean", "celeba", "", Measure("mean")),
        ("MAE_eps_HOMO", "qm9", "", Measure("metric", "homo", "mae")),
        ("MAE_R2", "qm9", "", Measure("metric", "r2", "mae")),
        ("Delta_m", "nyud4", "", Measure("overall")),
        ("time_s_per_iter", "cityscapes3", "", Measure("seconds")),
        ("sem_mIoU", "cityscapes3", "", Measure("metric", "seg", "mIoU")),
        ("ins_L1_semx10", "cityscapes3", "_semx10", Measure("metric", "ins", "L1")),
        ("disp_L1_semx10_abs_change", "cityscapes3", "_semx10", Measure("metric", "disp", "L1", change=True)),
    ],
)
def test_a_metric_is_measured_by_rule(metric, name, suffix, wanted):
    assert published.measure(metric, Panel("panel", name, {}, suffix=suffix), data.load(name)) == wanted


@pytest.mark.parametrize("metric", ["seg_mIoU", "a_error", "acc_b0", "MAE_x", "d_lambda"])
def test_what_is_not_measured_is_refused(metric):
    with pytest.raises(IsonomyError, match=f"Metric '{metric}' of published.csv has no counterpart on data set 'tiny'"):
        published.measure(metric, Panel("panel", "tiny", {}), Tiny())


def test_a_suffix_parts_the_panels_of_one_network(monkeypatch):
    printed(monkeypatch)
    plain, scaled = paper().panels
    assert [each.metric for each in published.of_panel(paper(), scaled)] == ["a_mse_x10", "a_mse_x10_abs_change"]
    assert len(published.of_panel(paper(), plain)) == len(NUMBERS) - 2
    assert published.of_panel(paper(name="paper/table1@mini"), plain) == published.of_panel(paper(), plain)
    assert published.of_panel(paper(name="paper/table2"), plain) == []
