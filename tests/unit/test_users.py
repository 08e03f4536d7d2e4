"""What people who train VAEs run into, each tried as they would try it."""

import functools
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, Dataset, TensorDataset

import vaelib
from vaelib.data import Images


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("VAELIB_PROGRESS", "0")


def table_vae(dim=6, **keywords):
    torch.manual_seed(0)
    return vaelib.mlp_vae(2, (8,), x_shape=(dim,), likelihood=vaelib.gaussian(0.5), **keywords)


def small(**keywords):
    torch.manual_seed(0)
    return vaelib.mlp_vae(2, (8,), x_shape=(1, 4, 4), **keywords)


def grey(n=40):
    generator = torch.Generator().manual_seed(5)
    return (torch.rand(n, 1, 4, 4, generator=generator) * 256).to(torch.uint8)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# Data --------------------------------------------------------------------------------------------


def test_a_float64_table_and_a_float32_model():
    table = np.random.default_rng(0).normal(size=(50, 6))  # as scikit-learn gives it
    model, same = table_vae(), table_vae()
    vaelib.fit(model, table, validation=table[:10], epochs=2)
    vaelib.fit(same, torch.from_numpy(table).float(), epochs=2)
    assert torch.equal(weights(model), weights(same))
    assert model.encode(table).mean.dtype == torch.float32
    assert vaelib.log_marginal(model, table, 20).values.shape == (50,)
    found = vaelib.report(model, table, table[:20], num_samples=20, ais_images=2)
    assert found["nll"].value > 0


def test_a_float64_model_and_bytes():
    model = small().double()
    vaelib.fit(model, grey(), epochs=1)
    estimate = vaelib.log_marginal(model, grey(), 20)
    assert estimate.values.dtype == torch.float64
    assert model.encode(grey()).mean.dtype == torch.float64


def test_counts_stay_counts():
    """int64 data: a Poisson likelihood, and a network whose first layer casts."""

    def poisson(log_rate):
        return torch.distributions.Poisson(log_rate.exp())

    torch.manual_seed(0)
    counts = torch.poisson(torch.full((60, 6), 3.0)).long()
    seen = []

    class Spy(vaelib.VAE):
        def infer(self, x, num_samples=1, noise=None, y=None):
            seen.append(x)
            return super().infer(x, num_samples, noise, y)

    parts = vaelib.mlp_vae(2, (8,), x_shape=(6,))
    model = Spy(parts.encoder, parts.decoder, 2, poisson)
    vaelib.fit(model, counts, epochs=1, batch_size=20, lr=1e-3, clip=1.0)
    assert all(x.dtype == torch.int64 for x in seen)
    assert max(x.max() for x in seen) == counts.max()
    assert vaelib.log_marginal(model, counts, 5).values.isfinite().all()
    int32 = vaelib.log_marginal(model, counts.numpy().astype(np.int32), 5)
    assert torch.equal(int32.values, vaelib.log_marginal(model, counts, 5).values)


def test_nan_is_missing_where_the_model_says_so_and_an_error_elsewhere():
    class Observed(torch.distributions.Normal):
        def log_prob(self, value):
            known = ~value.isnan()
            return torch.where(known, super().log_prob(torch.where(known, value, self.loc)), 0.0)

    class Filled(nn.Linear):
        def forward(self, x):
            return super().forward(x.nan_to_num(0.0))

    def observed(mean):
        return Observed(mean, 0.5)

    torch.manual_seed(0)
    x = torch.randn(40, 6)
    x[::3, 1] = torch.nan
    model = vaelib.VAE(Filled(6, 4), nn.Linear(2, 6), 2, observed)
    with pytest.raises(ValueError, match=r"NaN or infinite.* missing = True"):
        vaelib.fit(model, x, epochs=1)
    with pytest.raises(ValueError, match="missing = True"):
        model.draw(x)
    model.missing = True
    history = vaelib.fit(model, x, validation=x, epochs=3)
    assert np.isfinite(history.train + history.validation).all()
    assert weights(model).isfinite().all()
    assert vaelib.log_marginal(model, x, 10).values.isfinite().all()
    bits = vaelib.data.binarize(torch.tensor([[0.0, torch.nan, 1.0]]), missing=True)
    assert_close(bits, torch.tensor([[0.0, torch.nan, 1.0]]), equal_nan=True)


def test_examples_and_labels_of_different_number():
    with pytest.raises(ValueError, match="10 examples and 9 labels; expected a label for each"):
        Images(grey(10), torch.zeros(9))


def test_images_print_in_a_line():
    assert repr(Images(grey(10), torch.arange(10))) == (
        "Images(x: uint8 [10, 1, 4, 4], 1 to 254; y: int64 [10], 0 to 9)"
    )


def test_colour_photographs_under_the_default_likelihood_get_one_warning(recwarn):
    x = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8)
    model = vaelib.mlp_vae(2, (8,), x_shape=(3, 8, 8))
    with pytest.warns(UserWarning, match=r"every pixel becomes a bit.*discretized_logistic"):
        vaelib.fit(model, x, epochs=2)
    assert len(recwarn) == 0
    vaelib.fit(model, (x > 127).float(), epochs=1)  # bits are bits
    continuous = vaelib.mlp_vae(
        2, (8,), x_shape=(3, 8, 8), likelihood=vaelib.likelihoods.discretized_logistic()
    )
    vaelib.fit(continuous, x, epochs=1)


def test_a_data_loader_is_refused_with_the_way_out():
    loader = DataLoader(TensorDataset(grey()), batch_size=8)
    with pytest.raises(TypeError, match=r"a DataLoader; expected .* pass its .dataset"):
        vaelib.fit(small(), loader)
    vaelib.fit(small(), loader.dataset, epochs=1)


class OnDisk:
    """What h5py and zarr have in common: shape, dtype, and slices in order."""

    def __init__(self, x):
        self.x, self.shape, self.dtype, self.reads = x.numpy(), tuple(x.shape), x.numpy().dtype, []

    def __len__(self):
        return len(self.x)

    def __getitem__(self, rows):
        assert isinstance(rows, slice) and rows.step in (None, 1) and 0 <= rows.start < rows.stop
        self.reads.append(rows.stop - rows.start)
        return self.x[rows]


def test_an_array_on_disk_is_read_a_batch_at_a_time():
    resident, streamed, array = small(), small(), OnDisk(grey(40))
    vaelib.fit(resident, grey(40), epochs=2, batch_size=16)
    vaelib.fit(streamed, array, epochs=2, batch_size=16)
    assert torch.equal(weights(streamed), weights(resident))
    assert max(array.reads[1:]) <= 16 or max(array.reads) <= 40  # never more than was asked for
    assert sum(array.reads) == 3 * 40  # a sample beforehand, and two epochs
    assert_close(
        vaelib.log_marginal(streamed, array, 5).values,
        vaelib.log_marginal(resident, grey(40), 5).values,
    )


class Items(Dataset):
    def __init__(self, item, n=40):
        self.item, self.n = item, n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return self.item(i)


def _raises(i):
    if i == 7:
        raise KeyError("label of 7")
    return grey()[i]


@pytest.mark.parametrize(
    ("item", "error", "says"),
    [
        (lambda i: grey()[i][:, : 4 - (i == 9)], ValueError, r"Example 9 has shape \[1, 3, 4\]"),
        (lambda i: {"image": grey()[i]}, TypeError, r"Example \d+ is a dict with image; expected"),
        (lambda i: "7.png", TypeError, r"Example \d+ is a str; expected a tensor"),
        (_raises, ValueError, r"failed to give example 7 \(KeyError: 'label of 7'\).*dataset\[7\]"),
    ],
)
def test_items_that_do_not_fit_are_named(item, error, says):
    with pytest.raises(error, match=says):
        vaelib.fit(small(), Items(item))


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


def test_a_decoder_that_wants_a_feature_map_gets_the_way_out():
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 16))
    wants = nn.Sequential(nn.ConvTranspose2d(2, 1, 2, stride=2))
    with pytest.raises(ValueError, match=r"decoder failed on z of shape .*nn.Unflatten\(1, "):
        vaelib.fit(vaelib.VAE(encoder, wants, 8), grey(), epochs=1)
    spatial = nn.Sequential(nn.Unflatten(1, (2, 2, 2)), *wants)
    vaelib.fit(vaelib.VAE(encoder, spatial, 8), grey(), epochs=1)


# Objectives --------------------------------------------------------------------------------------


def test_training_downhill_gets_one_warning_and_others_none(recwarn):
    def minus(draw):
        return -vaelib.elbo(draw)

    with pytest.warns(UserWarning, match="falls as log p"):
        vaelib.fit(small(), grey(), objective=minus, epochs=2)
    linear = vaelib.objectives.linear
    for objective in (
        functools.partial(vaelib.elbo, beta=50.0),
        functools.partial(vaelib.elbo, beta=linear(10)),
        functools.partial(vaelib.elbo, capacity=linear(10, end=3.0), beta=10),
        vaelib.iwae,
        vaelib.stl,
    ):
        vaelib.fit(small(), grey(), objective=objective, num_samples=2, epochs=1)
    assert len(recwarn) == 0


class Learnt(nn.Module):
    """An objective with a parameter, whose best value is known, and two terms."""

    def __init__(self):
        super().__init__()
        self.level = nn.Parameter(torch.tensor(3.0))
        self.register_buffer("calls", torch.zeros(()))
        self.steps = []

    def forward(self, draw, step):
        if self.training:
            self.calls += 1
            self.steps.append(int(step))
        return {"bound": vaelib.elbo(draw), "level": -(self.level - 1).square().expand(len(draw.x))}


def test_an_objectives_parameters_train_and_its_terms_are_logged():
    objective, groups = Learnt(), []

    def optimizer(parameters):
        made = torch.optim.Adam(parameters, lr=0.05)
        groups.extend((group["name"], len(group["params"])) for group in made.param_groups)
        return made

    keywords = {"epochs": 40, "batch_size": 20, "optimizer": optimizer, "validation": grey(20)}
    history = vaelib.fit(small(), grey(), objective=objective, **keywords)
    assert groups == [("model", 8), ("objective", 1)]
    assert abs(objective.level.item() - 1) < 0.05
    assert objective.steps == list(range(80))
    assert objective.calls == 80 and not objective.training
    assert list(history.terms) == ["bound", "level"]
    for bound, level, whole, elbo in zip(*history.terms.values(), history.train, history.elbo):
        assert whole == pytest.approx(bound + level, rel=1e-5)
        assert bound == pytest.approx(elbo, rel=1e-5)
    assert "term: level" in history.columns()


@pytest.mark.parametrize("optimizer", [None, vaelib.optimizers.Muon])
def test_a_cut_run_keeps_the_objectives_parameters_to_the_bit(tmp_path, optimizer):
    keywords = {"epochs": 3, "batch_size": 10, "optimizer": optimizer, "clip": 1.0}
    whole, expected = small(), Learnt()
    first = vaelib.fit(whole, grey(), objective=expected, **keywords)

    class Cut(Exception):
        pass

    def cut(model, history):
        if history.epoch[-1] == 2:
            raise Cut

    with pytest.raises(Cut):
        vaelib.fit(small(), grey(), objective=Learnt(), out=tmp_path, callback=cut, **keywords)
    model, objective = small(), Learnt()
    second = vaelib.fit(model, grey(), objective=objective, out=tmp_path, **keywords)
    assert objective.steps == [8, 9, 10, 11]
    assert torch.equal(weights(model), weights(whole))
    assert torch.equal(objective.level, expected.level) and objective.calls == 12
    assert second.terms == first.terms


def test_each_player_is_clipped_by_itself():
    """The objective's gradient is a thousand times the model's, and does not shorten it."""

    class Steep(Learnt):
        def forward(self, draw, step):
            return super().forward(draw, step) | {"steep": (1e6 * self.level).expand(len(draw.x))}

    def sgd(parameters):
        return torch.optim.SGD(parameters, lr=1.0)

    keywords = {"epochs": 1, "batch_size": 40, "optimizer": sgd, "clip": 0.5}
    alone, beside, objective = small(), small(), Steep()
    vaelib.fit(alone, grey(), **keywords)
    vaelib.fit(beside, grey(), objective=objective, **keywords)
    assert_close(weights(beside), weights(alone))
    assert objective.level.item() == pytest.approx(3.5)


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


def test_a_callbacks_patience_survives_a_cut(tmp_path):
    class Cut(Exception):
        pass

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


def test_a_refused_run_leaves_no_run_behind(tmp_path):
    def wrong(draw):
        return vaelib.elbo(draw).mean()

    with pytest.raises(ValueError, match=r"returned shape \[\]"):
        vaelib.fit(small(), grey(), objective=wrong, out=tmp_path)
    assert vaelib.fit(small(), grey(), epochs=1, out=tmp_path).epoch == [1]


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


# Descriptions ------------------------------------------------------------------------------------


def test_a_run_and_a_file_say_which_posterior_they_have(tmp_path):
    model = small(posterior=vaelib.posteriors.laplace)
    vaelib.fit(model, grey(), epochs=1, out=tmp_path / "run")
    with pytest.raises(ValueError, match=r"posterior: laplace.*posterior: normal"):
        vaelib.fit(small(), grey(), epochs=1, out=tmp_path / "run")
    vaelib.save(model, tmp_path / "model.safetensors")
    loaded = vaelib.load(tmp_path / "model.safetensors")
    assert loaded.posterior is vaelib.posteriors.laplace
    assert type(loaded.encode(grey()).base_dist).__name__ == "Laplace"


def test_a_file_rebuilds_a_learnt_prior(tmp_path):
    model = small(prior=vaelib.priors.FlowPrior(2, hidden=5, num_layers=3))
    vaelib.fit(model, grey(), epochs=1)
    vaelib.save(model, tmp_path / "model.safetensors")
    loaded = vaelib.load(tmp_path / "model.safetensors")
    z = torch.randn(7, 2)
    assert torch.equal(loaded.pz().log_prob(z), model.pz().log_prob(z))


def test_a_draw_of_your_own_is_not_passed_by():
    class Own(vaelib.VAE):
        calls = 0

        def draw(self, x, num_samples=1):
            Own.calls += 1
            return super().draw(x, num_samples)

    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    decoder = nn.Sequential(nn.Linear(2, 16), nn.Unflatten(1, (1, 4, 4)))
    model = Own(encoder, decoder, 2)
    vaelib.fit(model, grey(), epochs=1, batch_size=10)
    assert Own.calls >= 4
    before = Own.calls
    vaelib.log_marginal(model, grey(), 3)
    assert Own.calls > before


# Compiled ----------------------------------------------------------------------------------------


class Plain(Learnt):
    """Without what is noted for the tests, which no graph can hold."""

    def forward(self, draw, step):
        level = -(self.level - 1 - 0.01 * step).square()
        return {"bound": vaelib.elbo(draw), "level": level.expand(len(draw.x))}


@pytest.mark.slow
def test_an_objectives_parameters_train_in_a_compiled_run_too():
    keywords = {"epochs": 3, "batch_size": 10, "clip": 1.0}
    eager, compiled = Plain(), Plain()
    first = vaelib.fit(small(), grey(45), objective=eager, **keywords)
    second = vaelib.fit(small(), grey(45), objective=compiled, compile=True, **keywords)
    assert_close(compiled.level, eager.level)
    for name, values in first.terms.items():
        assert second.terms[name] == pytest.approx(values, rel=1e-5), name
    assert second.grad_norm == pytest.approx(first.grad_norm, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"posterior": vaelib.posteriors.laplace},
        {"prior": vaelib.priors.FlowPrior(2, hidden=4, num_layers=2)},
        {"likelihood": vaelib.gaussian(0.5)},
    ],
    ids=["plain", "posterior", "prior", "likelihood"],
)
def test_the_losses_compile_to_one_graph(parts):
    """A break would cost a tenth of a step, and a resumed run its bits."""
    model = small(**parts).train()
    noise = None if model.noise_dim is None else torch.randn(1, 8, 2)
    x = (torch.rand(8, 1, 4, 4) < 0.5).float()
    losses = vaelib.losses.Losses(model, vaelib.elbo, 1)
    assert torch._dynamo.explain(losses)(x, noise, None, None).graph_break_count == 0


# What an outsider found ---------------------------------------------------------------------------


class Penalty(nn.Module):
    def __init__(self):
        super().__init__()
        self.b = nn.Parameter(torch.tensor(1.0))

    def forward(self, draw, scale=1.0):
        return vaelib.elbo(draw) - scale * (self.b - 2).square()


@pytest.mark.parametrize(
    "wrapped", [lambda o: o, lambda o: functools.partial(o, scale=3.0), lambda o: o.forward]
)
def test_an_objective_in_a_wrapper_trains_as_well(tmp_path, wrapped):
    objective, again = Penalty(), Penalty()
    keywords = {"epochs": 30, "batch_size": 10, "lr": 0.05, "out": tmp_path}
    vaelib.fit(small(), grey(), objective=wrapped(objective), **keywords)
    assert objective.b.item() == pytest.approx(2, abs=0.05)
    vaelib.fit(small(), grey(), objective=wrapped(again), **keywords)  # finished: read back
    assert again.b.item() == objective.b.item()


def test_a_parameter_that_nobody_would_train_is_refused(tmp_path):
    penalty = Penalty()
    with pytest.raises(ValueError, match=r"depends on a tensor of shape \[\].* an nn.Module"):
        vaelib.fit(small(), grey(), objective=lambda draw: penalty(draw), out=tmp_path)


def test_early_stopping_begins_anew_with_another_run():
    stopper = vaelib.EarlyStopping(patience=3)
    first, second = small(), small()
    vaelib.fit(first, grey(), epochs=4, validation=grey(10), callback=stopper)
    best = stopper.best
    stopper.best = best + 1e6
    vaelib.fit(second, grey(), epochs=2, validation=grey(10), callback=stopper)
    assert stopper.best < best


def test_terms_are_logged_by_name_and_may_not_change():
    calls = []

    def turning(draw):
        calls.append(1)
        bound = vaelib.elbo(draw)
        terms = {"bound": bound, "nothing": 0 * bound}
        return terms if len(calls) % 2 else dict(reversed(terms.items()))

    history = vaelib.fit(small(), grey(), objective=turning, epochs=1, batch_size=10)
    assert history.terms["nothing"] == [0.0]
    with pytest.raises(ValueError, match="terms other, but at first bound; expected the same"):
        calls.clear()
        vaelib.fit(
            small(),
            grey(),
            objective=lambda d: {"other" if calls or calls.append(1) else "bound": vaelib.elbo(d)},
        )


def test_labels_are_missed_on_disk_as_elsewhere():
    class Semi(vaelib.VAE):
        labels = "learnt"

    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    decoder = nn.Sequential(nn.Linear(2, 16), nn.Unflatten(1, (1, 4, 4)))
    model = Semi(encoder, decoder, 2)
    for data in (OnDisk(grey()), grey()):
        with pytest.raises(ValueError, match=r"data have none; expected Images\(x, y\), a label"):
            vaelib.fit(model, data)
    model.labels = "Given"
    with pytest.raises(ValueError, match="labels is 'Given'; expected None, 'given' or 'learnt'"):
        vaelib.fit(model, Images(grey(), torch.zeros(40)))


def _bare(returned):
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, x, num_samples=1):
            return returned

    return Bare()


def _saying(*said):
    class Saying(vaelib.VAE):
        def infer(self, x, num_samples=1, noise=None, y=None):
            return said[0] if len(said) == 1 else said

    model = Saying()
    model.weight = nn.Parameter(torch.zeros(()))
    return model


@pytest.mark.parametrize(
    ("model", "keywords", "says"),
    [
        (_bare(torch.zeros(2)), {}, "model returned a Tensor; expected a vaelib.Draw"),
        (_saying(torch.distributions.Normal(0, 1)), {}, "infer returned Normal; expected p"),
        (_saying(torch.distributions.Normal(0, 1), ()), {}, "infer returned Normal, tuple; exp"),
        (_saying(None), {}, "infer returned NoneType; expected p"),
        (len, {}, "model is a builtin_function_or_method; expected an nn.Module"),
        (small(), {"objective": lambda d: None}, "objective returned None; expected a tensor"),
        (small(), {"objective": lambda d: {"a": 1.0}}, "objective returned {'a': 1.0}; expected"),
        (small(), {"callback": [vaelib.EarlyStopping()]}, "expected a function of model and h"),
    ],
)
def test_what_is_returned_in_another_form_gets_a_sentence(model, keywords, says):
    with pytest.raises(TypeError, match=says):
        vaelib.fit(model, grey(), **keywords)


def test_a_schedule_that_says_words_and_a_callback_that_says_a_tensor():
    with pytest.raises(ValueError, match="schedule returned 'fast' for 0; expected a finite"):
        vaelib.fit(small(), grey(), schedule=lambda t: "fast")
    stopped = vaelib.fit(small(), grey(), epochs=5, callback=lambda *_: torch.tensor(True))
    assert stopped.epoch == [1]


def test_a_model_that_shares_nothing_with_vaelibs_gets_data_in_its_dtype():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = table_vae()

        def forward(self, x, num_samples=1):
            draw = self.inner(x, num_samples)
            assert x.dtype == torch.float32
            return vaelib.Draw.of(x, draw.px_z, *draw.latents)

    table = np.random.default_rng(0).normal(size=(50, 6))
    vaelib.fit(Own(), table, epochs=1)
    assert vaelib.log_marginal(Own(), table, 5).values.isfinite().all()
    assert vaelib.evaluate.active_units(Own(), table) >= 0
