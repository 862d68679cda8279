import pytest

from isonomy.bench.experiments import catalogue
from isonomy.errors import IsonomyError


def test_names_are_in_the_order_of_their_numbers():
    found = [name for name in catalogue.names() if name.startswith("revisit/fig")]
    assert found == [f"revisit/fig{number}" for number in range(1, 17)]


def test_patterns_find_what_they_match():
    assert [each.name for each in catalogue.find("dbmtl/table1")] == ["dbmtl/table1"]
    assert [each.name for each in catalogue.find("dbmtl/table*")] == [f"dbmtl/table{number}" for number in range(1, 9)]
    assert len(catalogue.find("all")) == len(catalogue.names())
    with pytest.raises(IsonomyError, match="Unknown experiment 'dbmtl/table11': did you mean 'dbmtl/table1"):
        catalogue.find("dbmtl/table11")


def test_a_miniature_stands_for_data_and_network_and_keeps_the_rest():
    (whole,), (small,) = catalogue.find("dbmtl/table1"), catalogue.find("dbmtl/table1@mini")
    assert (small.name, small.mini, whole.mini) == ("dbmtl/table1@mini", True, False)
    panel = small.panels[0]
    assert panel.data.startswith("rooms")
    assert (panel.backbone, panel.weights, panel.head, panel.recipe) == ("unet", None, None, {})
    own = {
        name: text.replace(",own_lr=0.0001", "").replace(":own_lr=0.0001", "")
        for name, text in whole.panels[0].methods.items()
    }
    assert panel.methods == own
    assert (own["UW"], own["IMTL-L"], own["GradNorm"]) == (
        "uw:init=-0.5",
        "imtl_l",
        "gradnorm:simplex=softmax,baseline=epoch",
    )
    assert panel.published == whole.panels[0].published


def test_what_trains_nothing_or_is_small_has_no_miniature():
    with pytest.raises(IsonomyError, match="trains nothing: leave @mini out"):
        catalogue.find("imtl/fig1@mini")
    with pytest.raises(IsonomyError, match="is on embedded data as it is"):
        catalogue.find("claims/halves@mini")
    assert all(each.panels and each.mini for each in catalogue.find("all@mini"))
    with pytest.raises(IsonomyError, match="trains anything"):
        catalogue.find("claims/*@mini")


def test_a_panels_own_miniature_goes_first_and_may_leave_it_out():
    (small,) = catalogue.find("revisit/table5@mini")
    assert [panel.data for panel in small.panels][1].endswith("noise=true")
    (radar,) = catalogue.find("revisit/table4@mini")
    assert len(radar.panels) == 2


def test_summaries_count_numbers_and_runs():
    found = {entry["name"]: entry for entry in catalogue.summaries()}
    assert (found["dbmtl/table1"]["published"], found["dbmtl/table1"]["cells"]) == (220, 3 * (3 + 21))
    assert (found["imtl/fig1"]["published"], found["imtl/fig1"]["cells"]) == (0, 0)
    assert sum(entry["published"] for entry in found.values()) == 2048
