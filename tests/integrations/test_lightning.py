"""Lightning's automatic optimisation trains as a plain loop does, and resumes."""

import csv
import logging

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision

import isonomy
from isonomy.integrations.lightning import BalancerCallback
from tests.integrations import reference
from tests.integrations.reference import CASES, CLIP, EPOCHS
from tests.integrations.spy import Spy

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore::Warning:torch.jit")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Module(LightningModule):
    def __init__(self, balancer, level="features", gamma=1.0):
        super().__init__()
        self.net, self.balancer, self.level, self.gamma = reference.Net(), balancer, level, gamma

    def training_step(self, batch, _):
        out = self.net(batch["x"])
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        at = reference.shared(self.net, out, self.level)
        return self.balancer(reference.losses(out, batch["y"]), shared=at, grad_scaler=scaler)

    def validation_step(self, batch, _):
        found = reference.losses(self.net(batch["x"]), batch["y"])
        assert self.balancer(found) == sum(found.values())
        self.log_dict({f"val_{task}": torch.exp(-loss / 10) for task, loss in found.items()})

    def configure_optimizers(self):
        optimizer = reference.sgd(self.net.parameters())
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, self.gamma)]


def trainer(folder=None, **options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    return Trainer(
        **quiet | {"max_epochs": EPOCHS, "enable_checkpointing": False, "default_root_dir": folder} | options
    )


METRICS = {"a": "val_a", "b": "val_b"}


def spied(**options):
    module = Module(isonomy.Balancer(Spy(), tasks=["a", "b"]), gamma=0.5)
    return module, BalancerCallback(module.balancer, METRICS, **options)


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"clip": CLIP}], ids=str)
@pytest.mark.parametrize(("name", "level"), CASES)
def test_equals_the_plain_loop(name, level, options):
    module = Module(reference.build(name), level)
    trainer(accumulate_grad_batches=options.get("accumulate", 1), gradient_clip_val=options.get("clip")).fit(
        module, reference.loader()
    )
    assert torch.equal(reference.vector(module.net), reference.train(name, level, **options))


@pytest.mark.parametrize(("name", "level"), CASES)
def test_float16_with_lightnings_scaler_equals_float32_but_for_rounding(name, level):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=10**6)
    found = []
    for plugins in ([], [MixedPrecision("16-mixed", "cpu", scaler)]):
        module = Module(reference.build(name), level)
        trainer(plugins=plugins).fit(module.float(), reference.loader(dtype=torch.float32))
        found.append(reference.vector(module.net))
    torch.testing.assert_close(*found, rtol=0.02, atol=0.002)
    assert not torch.equal(*found)
    assert scaler.get_scale() == 2.0**10  # no step was skipped


# When the last checkpoint is written: after an epoch, after its validation, after its last step, and in its midst.
WHEN = [
    {"every_n_epochs": 1},
    {"save_on_train_epoch_end": False},
    {"every_n_train_steps": 6},
    {"every_n_train_steps": 8},
]
RESUMED = [
    *((*case, WHEN[3]) for case in CASES),
    *(("dwa", "features", when) for when in WHEN),
    # After an epoch's last step Lightning leaves the validation out, and no metrics are there to resume with.
    *(("dtp", "features", when) for when in (WHEN[0], WHEN[1], WHEN[3])),
]


@pytest.mark.parametrize(("name", "level", "when"), RESUMED, ids=str)
def test_resumes_from_a_checkpoint_bit_for_bit(name, level, when, tmp_path):
    def fit(epochs, checkpoint=None, **options):
        module, batches = Module(reference.build(name), level, gamma=0.5), reference.same_batches()
        callbacks = [BalancerCallback(module.balancer, METRICS), *options.pop("callbacks", [])]
        trainer(max_epochs=epochs, callbacks=callbacks, **options).fit(module, batches, batches, ckpt_path=checkpoint)
        return module.state_dict()

    saved = ModelCheckpoint(tmp_path, save_top_k=-1, **when)
    fit(2, enable_checkpointing=True, callbacks=[saved])
    whole, resumed = fit(4), fit(4, saved.best_model_path)
    assert isonomy.testing.same_state(whole, resumed)


def test_an_epoch_ends_with_its_metrics_and_the_next_learning_rate():
    validated = []

    class Validated(Callback):
        def on_validation_end(self, trainer, _):
            if not trainer.sanity_checking:
                validated.append([float(trainer.callback_metrics[name]) for name in ("val_a", "val_b")])

    module, callback = spied()
    trainer(max_epochs=3, callbacks=[callback, Validated()]).fit(module, reference.loader(), reference.loader())
    assert len(validated) == 3
    assert module.balancer.stages[0].heard.tolist() == [[*validated[0], 0.005], [*validated[1], 0.0025]]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_logs_the_report_at_lightnings_own_interval(accumulate, tmp_path):
    module = Module(reference.build("imtl"))
    callback = BalancerCallback(module.balancer, prefix="mtl/")
    trainer(
        callbacks=[callback],
        logger=CSVLogger(tmp_path, name="", version=""),
        log_every_n_steps=3,
        accumulate_grad_batches=accumulate,
    ).fit(module, reference.loader())
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [step for step in (2, 5, 8, 11) if step < 12 / accumulate]
    assert float(rows[-1]["mtl/norm/b"]) == pytest.approx(float(module.balancer.report.norms[1]), rel=1e-6)
    assert all(row.keys() - {"epoch", "step"} == module.balancer.report.as_dict("mtl/").keys() for row in rows)


def test_nothing_is_logged_while_every_step_is_skipped():
    module = Module(isonomy.build("imtl", ["a", "b"], nonfinite="skip"))
    with torch.no_grad():
        module.net.encoder[0].weight.fill_(torch.nan)
    trainer(callbacks=[BalancerCallback(module.balancer)], log_every_n_steps=1).fit(module, reference.loader())
    assert module.balancer.steps == 0


def test_a_metric_that_is_not_logged_is_named():
    module, _ = spied()
    callback = BalancerCallback(module.balancer, {"a": "val_a", "b": "val_c"})
    with pytest.raises(isonomy.IsonomyError, match="takes task 'b' from 'val_c', which no validation has logged"):
        trainer(callbacks=[callback]).fit(module, reference.loader(), reference.loader())


def test_a_module_that_lightning_leaves_in_evaluation_mode_is_refused():
    module, callback = spied()
    with pytest.raises(isonomy.IsonomyError, match="in evaluation mode"):
        trainer(callbacks=[callback]).fit(module.eval(), reference.loader())
