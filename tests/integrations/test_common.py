"""What the callbacks of all frameworks do."""

import importlib
import sys

import pytest

import isonomy
from isonomy.integrations.common import read_metrics, read_report, require_metrics, require_training


def test_metrics_are_of_tasks():
    balancer = isonomy.build("dtp", ["seg", "depth"])
    assert require_metrics(balancer, {"depth": "val_depth"}) == {"depth": "val_depth"}
    with pytest.raises(isonomy.IsonomyError, match="Unknown task 'dept': did you mean 'depth'"):
        require_metrics(balancer, {"dept": "val_depth"})


def test_a_method_that_needs_metrics_says_so_at_once():
    with pytest.raises(isonomy.IsonomyError, match=r"metrics= is missing.*metrics=\{'seg': 'val_seg'\}"):
        require_metrics(isonomy.build("dtp", ["seg", "depth"]), None)
    assert require_metrics(isonomy.build("dwa", ["seg", "depth"]), None) == {}


def test_a_metric_that_was_not_logged_is_named_with_those_that_were():
    logged = {"val_seg": 0.5, "loss": 1.0}
    assert read_metrics({"seg": "val_seg"}, logged) == {"seg": 0.5}
    with pytest.raises(isonomy.IsonomyError, match=r"takes task 'seg' from 'val_sge'.*'val_seg' and 'loss'"):
        read_metrics({"seg": "val_sge"}, logged)


def test_training_does_not_begin_in_evaluation_mode():
    balancer = isonomy.build("ew", 2)
    require_training(balancer)
    with pytest.raises(isonomy.IsonomyError, match="in evaluation mode"):
        require_training(balancer.eval())


def test_no_report_is_no_numbers():
    assert read_report(isonomy.build("ew", 2), "") == {}


@pytest.mark.parametrize(("name", "extra"), [("lightning", "Lightning"), ("transformers", "Transformers")])
def test_a_missing_framework_is_named_with_its_extra(name, extra, monkeypatch):
    for module in list(sys.modules):
        if module.partition(".")[0] == name:
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.delitem(sys.modules, f"isonomy.integrations.{name}", raising=False)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=rf"needs {extra}: pip install 'isonomy\[{name}\]'"):
        importlib.import_module(f"isonomy.integrations.{name}")
