"""The Trainer of Transformers trains as a plain loop does, and resumes."""

import json
import math

import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

import isonomy
from isonomy.integrations.transformers import BalancerCallback
from tests.integrations import reference
from tests.integrations.reference import BATCH, CASES, CLIP, EPOCHS
from tests.integrations.spy import Spy


class Balanced(Trainer):
    loss_is_scaled_for_ga = False

    def __init__(self, name, level, **options):
        super().__init__(**options)
        self.balancer, self.level = reference.build(name) if isinstance(name, str) else name, level

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        out = model(inputs["x"])
        at = reference.shared(self.model, out, self.level)
        found = reference.losses(out, inputs["y"])
        loss = self.balancer(found, shared=at, grad_scaler=self.accelerator.scaler)
        return (loss, {"loss": loss, "a": out["a"], "b": out["b"]}) if return_outputs else loss


def trainer(folder, name, level="features", data=None, callbacks=(), metrics=None, report=True, **options):
    arguments = TrainingArguments(
        **{
            "output_dir": str(folder),
            "use_cpu": True,
            "per_device_train_batch_size": BATCH,
            "num_train_epochs": EPOCHS,
            "train_sampling_strategy": "sequential",
            "lr_scheduler_type": "constant",
            "max_grad_norm": 0.0,
            "save_strategy": "no",
            "remove_unused_columns": False,
            "disable_tqdm": True,
            "report_to": "none",
            "logging_strategy": "no",
            "label_names": ["y"],
        }
        | options
    )
    net = reference.Net()
    made = Balanced(
        name,
        level,
        model=net,
        args=arguments,
        train_dataset=data or reference.Data(),
        eval_dataset=reference.Data(),
        optimizers=(reference.sgd(net.parameters()), None),
        compute_metrics=lambda found: {
            task: math.exp(-output.std()) for task, output in zip("ab", found.predictions, strict=True)
        },
        callbacks=list(callbacks),
    )
    if report:
        made.callback_handler.callbacks.insert(0, BalancerCallback(made.balancer, metrics))
    return made


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"clip": CLIP}], ids=str)
@pytest.mark.parametrize(("name", "level"), CASES)
def test_equals_the_plain_loop(name, level, options, tmp_path):
    made = trainer(
        tmp_path,
        name,
        level,
        gradient_accumulation_steps=options.get("accumulate", 1),
        max_grad_norm=options.get("clip", 0.0),
    )
    made.train()
    assert torch.equal(reference.vector(made.model), reference.train(name, level, **options))


# Where the checkpoint is that training resumes from: after an epoch, after its last step, and in its midst.
WHEN = {
    "epoch": {"save_strategy": "epoch"},
    "last step": {"save_strategy": "steps", "save_steps": 6},
    "step": {"save_strategy": "steps", "save_steps": 8},
}
RESUMED = [
    *((*case, "step") for case in CASES),
    *(("dwa", "features", when) for when in WHEN),
    # After an epoch's last step the Trainer leaves the evaluation out, and no metrics are there to resume with.
    *(("dtp", "features", when) for when in ("epoch", "step")),
]


@pytest.mark.parametrize(("name", "level", "when"), RESUMED, ids=str)
def test_resumes_from_a_checkpoint_bit_for_bit(name, level, when, tmp_path):
    metrics = {"a": "eval_a", "b": "eval_b"} if name == "dtp" else None

    def fit(checkpoint=None):
        options = WHEN[when] | {"num_train_epochs": 3, "eval_strategy": "epoch"}
        made = trainer(tmp_path, name, level, metrics=metrics, **options)
        made.train(resume_from_checkpoint=checkpoint)
        return made

    whole, resumed = fit(), fit(str(tmp_path / f"checkpoint-{WHEN[when].get('save_steps', 6)}"))
    assert torch.equal(reference.vector(whole.model), reference.vector(resumed.model))
    assert isonomy.testing.same_state(whole.balancer.state_dict(), resumed.balancer.state_dict())


def test_an_epoch_ends_with_its_metrics_and_the_next_learning_rate(tmp_path):
    made = trainer(
        tmp_path,
        isonomy.Balancer(Spy(), tasks=["a", "b"]),
        metrics={"b": "eval_b", "a": "eval_a"},
        num_train_epochs=3,
        eval_strategy="epoch",
        lr_scheduler_type="linear",
    )
    made.train()
    evaluated = [[entry["eval_a"], entry["eval_b"]] for entry in made.state.log_history if "eval_a" in entry]
    assert len(evaluated) == 3
    heard = made.balancer.stages[0].heard
    expected = torch.tensor([[*evaluated[0], 0.01 * 2 / 3], [*evaluated[1], 0.01 / 3]], dtype=torch.float64)
    torch.testing.assert_close(heard, expected, rtol=1e-12, atol=0)


def test_logs_the_report_with_what_the_trainer_logs(tmp_path):
    heard = []

    class Tracker(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **_):
            heard.append(dict(logs))

    made = trainer(
        tmp_path, "imtl", callbacks=[Tracker()], logging_strategy="steps", logging_steps=4, eval_strategy="epoch"
    )
    made.train()
    numbers = made.balancer.report.as_dict("balancer/")
    training = [logs for logs in heard if "loss" in logs]
    assert [entry["step"] for entry in made.state.log_history if "loss" in entry] == [4, 8, 12]
    assert all(numbers.keys() <= logs.keys() for logs in training)
    assert all(numbers.keys().isdisjoint(logs) for logs in heard if "loss" not in logs)
    assert {key: training[-1][key] for key in numbers} == numbers
    assert [entry for entry in made.state.log_history if "loss" in entry][-1].items() >= numbers.items()


def test_evaluation_is_of_the_plain_sum_and_changes_nothing(tmp_path):
    made = trainer(tmp_path, "imtl", per_device_eval_batch_size=reference.SAMPLES)
    before = made.balancer.state_dict()
    found = made.evaluate()
    data = reference.Data()
    with torch.no_grad():
        plain = sum(reference.losses(made.model(data.x), data.y).values())
    assert found["eval_loss"] == pytest.approx(float(plain), rel=1e-6)
    assert isonomy.testing.same_state(before, made.balancer.state_dict())


def saved(folder):
    """A run of two epochs with a checkpoint after the first."""
    trainer(folder, "imtl", save_strategy="epoch", logging_strategy="epoch").train()
    return folder / "checkpoint-6"


def test_resumes_from_another_folder_if_it_is_named(tmp_path):
    checkpoint = saved(tmp_path / "old")
    with pytest.raises(isonomy.IsonomyError, match=r"resumes after step 6, and .*new.checkpoint-6 does not hold"):
        trainer(tmp_path / "new", "imtl").train(resume_from_checkpoint=str(checkpoint))
    made = trainer(tmp_path / "new", "imtl", resume_from_checkpoint=str(checkpoint))
    made.train(resume_from_checkpoint=str(checkpoint))
    assert made.balancer.steps == 12


def test_another_runs_state_is_not_taken(tmp_path):
    checkpoint = saved(tmp_path / "old")
    other = saved(tmp_path / "new")
    history = json.loads((other / "trainer_state.json").read_text())
    history["log_history"][0]["loss"] += 1.0
    (other / "trainer_state.json").write_text(json.dumps(history))
    with pytest.raises(isonomy.IsonomyError, match="does not hold the balancer's state of it"):
        trainer(tmp_path / "new", "imtl").train(resume_from_checkpoint=str(checkpoint))


def test_a_balancer_inside_the_model_is_refused_before_anything_is_lost(tmp_path):
    made = trainer(tmp_path, "imtl")
    made.model.balancer = made.balancer
    with pytest.raises(isonomy.IsonomyError, match="make it an attribute of the Trainer"):
        made.train()


def test_a_checkpoint_without_the_callback_is_refused(tmp_path):
    checkpoint = saved(tmp_path)
    (checkpoint / "balancer.pt").unlink()
    with pytest.raises(isonomy.IsonomyError, match="does not hold"):
        trainer(tmp_path, "imtl").train(resume_from_checkpoint=str(checkpoint))


def test_a_balancer_in_evaluation_mode_is_refused(tmp_path):
    made = trainer(tmp_path, "imtl")
    made.balancer.eval()
    with pytest.raises(isonomy.IsonomyError, match="in evaluation mode"):
        made.train()
