"""How people steer a run and read it, each tried as they would: settings, callbacks, tables."""

import sys
import types

import pytest
import torch
from small import Cut, grey, small, weights

import vaelib

# Settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "says"),
    [
        ({"optimizer": "adam"}, r"optimizer is 'adam'; expected a function of the parameters"),
        ({"optimizer": torch.optim.SGD([torch.zeros(1)], 0.1)}, "SGD that is made already; exp"),
        ({"optimizer": torch.optim.LBFGS}, "LBFGS, whose step needs a closure"),
        ({"optimizer": lambda p: None}, "optimizer returned a NoneType; expected a torch.optim"),
        (
            {"schedule": torch.optim.lr_scheduler.CosineAnnealingLR},
            "torch's CosineAnnealingLR; exp",
        ),
        ({"schedule": 0.5}, "schedule is 0.5; expected a function from the share"),
        ({"objective": "elbo"}, "objective is 'elbo'; expected a function"),
    ],
)
def test_settings_of_another_form_get_the_right_one(keywords, says):
    model = small()
    before = weights(model).clone()
    with pytest.raises(TypeError, match=says):
        vaelib.fit(model, grey(), **keywords)
    assert torch.equal(weights(model), before)


def test_a_schedule_that_says_words_and_a_callback_that_says_a_tensor():
    with pytest.raises(ValueError, match="schedule returned 'fast' for 0; expected a finite"):
        vaelib.fit(small(), grey(), schedule=lambda t: "fast")
    stopped = vaelib.fit(small(), grey(), epochs=5, callback=lambda *_: torch.tensor(True))
    assert stopped.epoch == [1]


# The end of a run --------------------------------------------------------------------------------


def test_a_callback_that_returns_true_ends_the_run_and_the_folder_is_finished(tmp_path):
    calls = []

    def callback(model, history):
        calls.append(history.epoch[-1])
        return history.epoch[-1] == 2

    model, again = small(), small()
    history = vaelib.fit(model, grey(), epochs=9, out=tmp_path, callback=callback)
    assert history.epoch == calls == [1, 2] and not model.training
    assert vaelib.fit(again, grey(), epochs=9, out=tmp_path, callback=callback).epoch == [1, 2]
    assert calls == [1, 2]
    assert torch.equal(weights(again), weights(model))
    assert vaelib.fit(small(), grey(), epochs=3, callback=lambda *_: [1]).epoch == [1, 2, 3]


class Worse:
    """Validation that falls after the third epoch."""

    def __init__(self):
        self.epoch = 0

    def __call__(self, draw):
        value = vaelib.elbo(draw)
        return value if torch.is_grad_enabled() else 0 * value - abs(self.epoch - 3)


def test_early_stopping_waits_and_keeps_the_best_weights(tmp_path):
    objective, seen = Worse(), {}
    stopper = vaelib.EarlyStopping(patience=2)

    def callback(model, history):
        seen[history.epoch[-1]] = weights(model).clone()
        objective.epoch += 1
        return stopper(model, history)

    objective.epoch = 1
    model = small()
    history = vaelib.fit(
        model, grey(), objective=objective, epochs=50, validation=grey(10), callback=callback
    )
    assert history.epoch[-1] == 5 and stopper.best_epoch == 3
    assert torch.equal(weights(model), seen[3])
    with pytest.raises(ValueError, match="without validation data"):
        vaelib.fit(small(), grey(), epochs=1, callback=vaelib.EarlyStopping())
    with pytest.raises(ValueError, match="patience=0"):
        vaelib.EarlyStopping(0)


def test_early_stopping_begins_anew_with_another_run():
    stopper = vaelib.EarlyStopping(patience=3)
    first, second = small(), small()
    vaelib.fit(first, grey(), epochs=4, validation=grey(10), callback=stopper)
    best = stopper.best
    stopper.best = best + 1e6
    vaelib.fit(second, grey(), epochs=2, validation=grey(10), callback=stopper)
    assert stopper.best < best


def test_a_callbacks_patience_survives_a_cut(tmp_path):
    class Stopper(vaelib.EarlyStopping):
        def __init__(self, cut):
            super().__init__(patience=2)
            self.cut = cut

        def __call__(self, model, history):
            history.validation[-1] = -abs(history.epoch[-1] - 2.0)  # the second is the best
            if history.epoch[-1] == self.cut:
                raise Cut
            return super().__call__(model, history)

    def run(model, cut=None, out=None):
        keywords = {"epochs": 9, "validation": grey(10), "ema": 0.5, "out": out}
        return vaelib.fit(model, grey(), callback=Stopper(cut), **keywords)

    whole, model = small(), small()
    history = run(whole)
    assert history.epoch[-1] == 4
    with pytest.raises(Cut):
        run(small(), cut=3, out=tmp_path)
    resumed = run(model, out=tmp_path)
    assert resumed.epoch == [1, 2, 3, 4]
    assert torch.equal(weights(model), weights(whole))


def test_a_callback_whose_state_no_checkpoint_keeps_is_refused(tmp_path):
    class Odd:
        def state_dict(self):
            return {"file": object()}

        def load_state_dict(self, state):
            pass

        def __call__(self, model, history):
            pass

    with pytest.raises(TypeError, match="state of the callback holds a object; expected tensors"):
        vaelib.fit(small(), grey(), callback=Odd())


# Tables ------------------------------------------------------------------------------------------


def test_a_history_is_a_frame_where_pandas_is_there(monkeypatch, tmp_path):
    history = vaelib.fit(small(), grey(), epochs=2)
    monkeypatch.setitem(sys.modules, "pandas", types.SimpleNamespace(DataFrame=dict))
    assert history.to_frame() == history.columns()
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas, or use to_csv"):
        history.to_frame()
    history.to_csv(tmp_path / "history.csv")
    assert (tmp_path / "history.csv").read_text().count("\n") == 3
