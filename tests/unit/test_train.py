"""`fit`: it learns, it repeats itself, it takes up where it was, it refuses what it cannot do."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from oracles import Ppca
from torch import nn
from torch.testing import assert_close

import vaelib
from vaelib.batches import draw_ink
from vaelib.optimizers import FusedAdam


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("VAELIB_PROGRESS", "0")


def small(seed=0, **keywords):
    torch.manual_seed(seed)
    return vaelib.mlp_vae(2, (8,), x_shape=(1, 4, 4), **keywords)


@pytest.fixture
def x():
    generator = torch.Generator().manual_seed(5)
    return (torch.rand(100, 1, 4, 4, generator=generator) * 256).to(torch.uint8)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_a_linear_vae_reaches_ppcas_likelihood():
    """Its maximum is known: the eigenvalues of the data's covariance (Tipping & Bishop, 1999)."""
    ppca = Ppca(num_pixels=4, latent_dim=1, sigma=0.5)
    x = ppca.sample(1000).float()
    cov = torch.cov(x.T.double(), correction=0)
    values, vectors = torch.linalg.eigh(cov)
    W = vectors[:, -1:] * (values[-1] - 0.25).sqrt()
    fitted = torch.distributions.MultivariateNormal(
        x.double().mean(0), W @ W.T + 0.25 * torch.eye(4, dtype=torch.float64)
    )
    best = fitted.log_prob(x.double()).mean().item()
    torch.manual_seed(0)
    model = vaelib.VAE(nn.Linear(4, 2), nn.Linear(1, 4), 1, likelihood=vaelib.gaussian(0.5))
    history = vaelib.fit(
        model, x, epochs=150, batch_size=100, lr=1e-2, num_samples=4, schedule=lambda t: 1 - t
    )
    reached = vaelib.log_marginal(model, x, num_samples=200).mean
    assert reached <= best + 1e-4
    assert reached > best - 0.01
    assert len(history.train) == len(history.seconds) == 150


def test_same_seed_same_bits_and_the_callers_randomness_is_left_alone(x):
    runs = []
    for _ in range(2):
        model = small()
        state = torch.get_rng_state()
        history = vaelib.fit(model, x, epochs=2, batch_size=32, num_samples=2)
        assert torch.equal(torch.get_rng_state(), state)
        assert not model.training
        runs.append((weights(model), history.train))
    assert torch.equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    other = small()
    vaelib.fit(other, x, epochs=2, batch_size=32, num_samples=2, seed=1)
    assert not torch.equal(weights(other), runs[0][0])


def test_every_example_comes_once_an_epoch_and_grey_is_drawn_anew():
    seen = []

    class Spy(nn.Linear):
        def forward(self, batch):
            if self.training:
                seen.append(batch.clone())
            return super().forward(batch)

    grey = torch.full((10, 4), 0.5)
    grey[:, :3] = torch.tensor([[i >> b & 1 for b in range(3)] for i in range(10)]).float()
    model = vaelib.VAE(Spy(4, 2), nn.Linear(1, 4), 1)
    vaelib.fit(model, grey, epochs=40, batch_size=4)
    assert [len(batch) for batch in seen[:3]] == [4, 4, 2]
    for epoch in range(40):
        batches = torch.cat(seen[3 * epoch : 3 * epoch + 3])
        assert_close(batches[:, :3].sum(0), grey[:, :3].sum(0))
    ink = torch.cat(seen)[:, 3]
    assert set(ink.tolist()) == {0.0, 1.0}
    assert abs(ink.mean() - 0.5) < 4 * 0.5 / 20  # 400 draws


def test_validation_objective_is_measured_in_eval_mode(x):
    history = vaelib.fit(small(), x[:80], validation=x[80:], epochs=2, batch_size=32)
    assert len(history.validation) == 2
    model = small()
    history = vaelib.fit(model, x[:80], validation=x[80:], epochs=1, batch_size=32)
    bits = vaelib.data.binarize(x[80:])
    values = [vaelib.elbo(model.draw(bits)).mean().item() for _ in range(400)]
    assert abs(history.validation[0] - np.mean(values)) < 4 * np.std(values)


def test_an_objective_may_take_the_step(x):
    steps = []

    def warmed(draw, step):
        steps.append(step)
        return draw.log_px_z.mean(0) - (step / 10).clamp(max=1) * draw.kl

    vaelib.fit(small(), x, objective=warmed, epochs=2, batch_size=50)
    assert [int(s) for s in steps] == [0, 1, 2, 3]
    assert steps[0].shape == ()


def test_the_schedule_scales_the_learning_rate(x):
    rates = []

    def adam(parameters):
        optimizer = torch.optim.SGD(parameters, lr=0.5)
        optimizer.register_step_pre_hook(lambda o, *_: rates.append(o.param_groups[0]["lr"]))
        return optimizer

    vaelib.fit(small(), x, epochs=2, batch_size=50, optimizer=adam, schedule=lambda t: 1 - t)
    assert rates == pytest.approx([0.5, 0.375, 0.25, 0.125])


class Cut(Exception):
    pass


@pytest.mark.parametrize("optimizer", [None, lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)])
def test_a_cut_run_ends_with_the_same_bits(x, tmp_path, optimizer):
    keywords = {"epochs": 4, "batch_size": 32, "optimizer": optimizer, "validation": x[:20]}
    whole = small()
    history = vaelib.fit(whole, x, out=tmp_path / "whole", **keywords)

    def cut(model, history):
        if len(history.train) == 2:
            raise Cut

    with pytest.raises(Cut):
        vaelib.fit(small(), x, out=tmp_path / "cut", callback=cut, **keywords)
    model = small(seed=9)  # whatever it holds, the checkpoint replaces it
    resumed = vaelib.fit(model, x, out=tmp_path / "cut", **keywords)
    assert torch.equal(weights(model), weights(whole))
    assert resumed.train == history.train
    assert resumed.validation == history.validation

    model, epochs = small(seed=9), []
    done = vaelib.fit(
        model, x, out=tmp_path / "cut", callback=lambda *_: epochs.append(1), **keywords
    )
    assert epochs == []  # a finished run returns at once
    assert done.train == history.train
    assert torch.equal(weights(model), weights(whole))
    assert not model.training


def test_a_finished_run_goes_on_where_no_schedule_forbids(x, tmp_path):
    whole = small()
    vaelib.fit(whole, x, epochs=3)
    model = small()
    vaelib.fit(model, x, epochs=2, out=tmp_path)
    vaelib.fit(model, x, epochs=3, out=tmp_path)
    assert torch.equal(weights(model), weights(whole))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"batch_size": 16}, "begun with batch_size = 128, but this call has 16"),
        ({"seed": 1}, "begun with seed = 0"),
        ({"lr": 0.1}, "begun with lr = 0.001"),
        ({"objective": vaelib.iwae}, "begun with objective = elbo"),
        ({"epochs": 1}, "holds 2 epochs, but this call asks for 1"),
        ({"schedule": lambda t: 1 - t}, "begun with schedule = None"),
    ],
)
def test_a_changed_setting_is_refused_and_the_run_untouched(x, tmp_path, change, says):
    vaelib.fit(small(), x, epochs=2, out=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=says):
        vaelib.fit(small(), x, **({"epochs": 2} | change), out=tmp_path)
    with pytest.raises(ValueError, match="begun with data"):
        vaelib.fit(small(), x[:50], epochs=2, out=tmp_path)
    with pytest.raises(ValueError, match=r"begun with model = .*out_features=8.* has .*=400"):
        vaelib.fit(vaelib.mlp_vae(3, x_shape=(1, 4, 4)), x, epochs=2, out=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_history_agrees_with_itself(x, tmp_path):
    history = vaelib.fit(
        small(), x, epochs=3, batch_size=32, validation=x[:20], schedule=lambda t: 1 - t
    )
    assert history.epoch == [1, 2, 3] and history.step == [4, 8, 12]
    assert history.elbo == pytest.approx(history.train)  # the objective is the ELBO
    assert history.elbo == pytest.approx([-r - d for r, d in zip(history.rate, history.distortion)])
    assert history.loss == [-value for value in history.train]
    assert history.lr == pytest.approx([1e-3 * (1 - (4 * e - 1) / 12) for e in (1, 2, 3)])
    assert all(n > 0 for n in history.grad_norm + history.examples_per_second)
    history.to_csv(tmp_path / "run.csv")
    table = np.genfromtxt(tmp_path / "run.csv", delimiter=",", names=True)
    assert table["validation"] == pytest.approx(history.validation)
    assert history.plot().get_ylabel() == "objective (nats)"


def test_the_first_step_is_adams_on_the_objective_alone(x):
    """Adam's first step, written out on the batch and noise that fit handed to the model."""
    model, start, handed = small().double(), small().double(), []
    model.register_forward_pre_hook(
        lambda m, *call: handed.append(call) if m.training else None, with_kwargs=True
    )
    vaelib.fit(model, x, epochs=1, batch_size=100, lr=1e-3)
    ((positional, named),) = handed
    vaelib.elbo(start(*positional, **named)).mean().neg().backward()
    for new, old in zip(model.parameters(), start.parameters(), strict=True):
        step = 1e-3 * old.grad / (old.grad.abs() + 1e-8)
        assert_close(new.detach(), (old - step).detach(), rtol=0, atol=1e-12)


def test_bf16_touches_the_networks_alone(x):
    model = small()
    history = vaelib.fit(model, x, epochs=2, batch_size=32, precision="bf16")
    exact = vaelib.fit(small(), x, epochs=2, batch_size=32)
    assert weights(model).dtype == torch.float32
    assert history.train != exact.train
    assert history.train == pytest.approx(exact.train, rel=1e-2)  # bf16 keeps 8 bits


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_ink_has_the_chance_that_the_grey_says(dtype):
    """Over every one of the 2^16 words, so that nothing is left to chance."""
    words = torch.arange(-(2**15), 2**15).to(torch.int16)
    for grey in range(256):
        level = torch.tensor(grey, dtype=torch.uint8) if dtype == torch.uint8 else None
        level = torch.tensor(grey / 255) if level is None else level
        ink = draw_ink(level.expand(2**16), torch.float32, words.clone())
        assert abs(ink.double().mean().item() - grey / 255) < 2e-5
        assert grey not in (0, 255) or ink.mean() == grey / 255


@pytest.mark.parametrize(
    ("keywords", "error", "says"),
    [
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"num_samples": 0}, ValueError, "num_samples is 0"),
        ({"epochs": -1}, ValueError, "epochs is -1"),
        ({"epochs": 1.5}, TypeError, "epochs is 1.5"),
        ({"lr": -1e-3}, ValueError, "lr is -0.001"),
        ({"lr": float("nan")}, ValueError, "lr is nan"),
        ({"clip": 0.0}, ValueError, "clip is 0.0"),
        ({"skip": -1}, ValueError, "skip is -1"),
        ({"ema": 1.0}, ValueError, "ema is 1.0"),
        ({"accumulate": 0}, ValueError, "accumulate is 0"),
        ({"precision": "fp8"}, ValueError, "expected one of 'float32', 'bf16'"),
        ({"on_nan": "ignore"}, ValueError, "expected one of 'stop', 'skip'"),
        ({"objective": lambda d: vaelib.elbo(d).mean()}, ValueError, "one number an example"),
    ],
)
def test_bad_settings_get_one_clear_sentence(x, keywords, error, says):
    model = small()
    before = weights(model)
    with pytest.raises(error, match=says):
        vaelib.fit(model, x, **keywords)
    assert torch.equal(weights(model), before)


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (torch.rand(3, 16), ValueError, "the model is over"),
        (torch.rand(0, 1, 4, 4), ValueError, "N at least 1"),
        (torch.rand(3, 1, 4, 4) * 255, ValueError, "divide by 255"),
        (torch.rand(3, 1, 4, 4) - 0.5, ValueError, r"in \[0, 1\]"),
        (torch.full((3, 1, 4, 4), torch.nan), ValueError, "missing pixels"),
        (torch.ones(3, 1, 4, 4, dtype=torch.uint8), ValueError, "binary already"),
        (torch.full((3, 1, 4, 4), 200), TypeError, "int64 from 200 to 200"),
        ("data/mnist", TypeError, "str; expected Images"),
        (None, TypeError, "NoneType; expected Images"),
    ],
)
def test_bad_data_get_one_clear_sentence(data, error, says):
    with pytest.raises(error, match=says):
        vaelib.fit(small(), data)


def test_nothing_to_train_is_said():
    model = small().requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        vaelib.fit(model, torch.zeros(3, 1, 4, 4))


def test_no_epochs_is_no_training(x):
    model = small()
    before = weights(model)
    assert vaelib.fit(model, x, epochs=0).train == []
    assert torch.equal(weights(model), before)


@pytest.mark.slow
@pytest.mark.filterwarnings("default:Guards may run slower on Python 3.13.0")  # torch's own
def test_compiled_training_agrees_with_eager(x):
    """To rounding, which 40 steps of Adam amplify; the short last batch included."""
    eager, compiled = small(), small()
    keywords = {"epochs": 10, "batch_size": 32, "num_samples": 2}
    expected = vaelib.fit(eager, x, **keywords)
    history = vaelib.fit(compiled, x, compile=True, **keywords)
    assert history.train == pytest.approx(expected.train, rel=1e-4)
    assert_close(weights(compiled), weights(eager), rtol=0, atol=1e-3)


@pytest.mark.slow
def test_without_a_compiler_fit_warns_and_runs_eager(tmp_path):
    """In a process of its own, where the C++ compiler cannot be found."""
    script = (
        "import torch, vaelib, warnings\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    model = vaelib.mlp_vae(2, (8,), x_shape=(1, 4, 4))\n"
        "    history = vaelib.fit(model, torch.ones(20, 1, 4, 4), epochs=2, compile=True)\n"
        "said = [str(w.message) for w in caught if 'torch.compile failed' in str(w.message)]\n"
        "assert len(said) == 1, said\n"
        "assert len(history.train) == 2\n"
    )
    environment = dict(os.environ, CXX="no-such-compiler", TORCHINDUCTOR_CACHE_DIR=str(tmp_path))
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)


def test_fused_adam_is_torchs_adam():
    """Bit for bit, also where a parameter has no gradient for a while, and after loading."""
    torch.manual_seed(0)
    shapes = [(3, 4), (4,), ()]
    start = [torch.randn(shape) for shape in shapes]
    runs = []
    for adam in (FusedAdam, lambda p, lr: torch.optim.Adam(p, lr=lr, fused=True)):
        parameters = [nn.Parameter(p.clone()) for p in start]
        optimizer = adam(parameters, lr=0.01)
        generator = torch.Generator().manual_seed(1)
        for step in range(20):
            for i, p in enumerate(parameters):
                gradient = torch.randn(p.shape, generator=generator)
                p.grad = None if i == 1 and step in (7, 8) else gradient
            if step == 4 or step == 15:
                state = optimizer.state_dict()
                optimizer = adam(parameters, lr=0.5)
                optimizer.load_state_dict(state)
            optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / 20)
            optimizer.step()
        runs.append((parameters, optimizer.state_dict()))
    assert_close(runs[0], runs[1], rtol=0, atol=0)
