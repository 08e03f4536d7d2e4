"""NaN and infinity, wherever they arise: the weights stay, and the error leads to the cause."""

import math
import re

import pytest
import torch
from torch import nn
from torture import grey, same_bits, small, state

import vaelib

NAN = float("nan")
KEYWORDS = {"epochs": 2, "batch_size": 25, "ema": 0.9}  # 8 steps
FIRST_HALF = torch.tensor([1.0, 1.0, 0.0, 0.0])  # of the encoder's output: the mean
BAD = 5  # in the second epoch, when Adam has a state


def nan_objective(when):
    def objective(draw, step):
        return vaelib.elbo(draw) + torch.where(step == when, NAN, 0.0)

    return objective


def infinite_objective(when):
    def objective(draw, step):
        return vaelib.elbo(draw) + torch.where(step == when, math.inf, 0.0)

    return objective


def nan_gradient(when):
    """The objective is finite; its gradient is 0 / 0, the root's at 0."""

    def objective(draw, step):
        root = (draw.z.pow(2).sum((0, 2)) * (step != when)).sqrt()
        return vaelib.elbo(draw) + torch.where(step == when, root, root.detach())

    return objective


def one_bad_example(when):
    """Only one of the batch, and its gradient by way of one part in `accumulate`."""

    def objective(draw, step):
        last = torch.arange(draw.z.shape[1]) == draw.z.shape[1] - 1
        return vaelib.elbo(draw) + torch.where(last & (step == when), NAN, 0.0)

    return objective


# An objective, or a model, that goes wrong in the step given; and what the error blames.
OBJECTIVES = {
    nan_objective: r"the objective is nan .* look into the objective",
    infinite_objective: r"the objective is inf .* look into the objective",
    nan_gradient: r"the gradient's norm nan; .* only the gradient is not: look for a root",
    one_bad_example: r"the objective is nan .* look into the objective",
}


class Steps:
    """Counts the forward passes in training and goes wrong in one."""

    def __init__(self, model, when):
        self.when, self.count = when, 0
        model.register_forward_pre_hook(self.begin)

    def begin(self, model, _):
        self.bad = model.training and self.count == self.when
        self.count += model.training


def going_wrong(when, part, change):
    """A model of which the part's output is changed in the step given."""
    model = small()
    steps = Steps(model, when)
    getattr(model, part).register_forward_hook(
        lambda module, _, out: change(out) if getattr(steps, "bad", False) else out
    )
    return model


def overflowing_likelihood(when):
    """Logits of 3e38: their softplus, summed over pixels, is infinite."""
    return going_wrong(when, "decoder", lambda out: out.abs() * 0 + 3e38)


def overflowing_kl(when):
    """A mean of 1e20: its square is more than float32 holds, and the logits are not."""
    return going_wrong(when, "encoder", lambda out: out * 0 + 1e20 * FIRST_HALF)


def overflowing_posterior(when):
    """A log-variance of 400: sigma is infinite, and so is all that follows from it."""
    return going_wrong(when, "encoder", lambda out: out * 0 + 400)


MODELS = {
    overflowing_likelihood: r"log p\(x\|z\) is not",
    overflowing_kl: r"the KL is not: q\(z\|x\)'s log-variance or mean overflows",
    overflowing_posterior: r"q\(z\|x\)'s log-variance or mean overflows",  # it is the cause
}


def weights_before_each_step(model):
    """A dict that fills as the model trains, whether the run ends by itself or by an error."""
    seen = {}
    model.register_forward_pre_hook(
        lambda m, _: seen.update({len(seen): state(m)}) if m.training else None
    )
    return seen


@pytest.mark.parametrize("optimizer", [None, "sgd", "adamw"])
@pytest.mark.parametrize("make", OBJECTIVES)
def test_an_objective_that_is_not_finite_stops_the_run_and_changes_nothing(
    tmp_path, make, optimizer
):
    makers = {
        None: None,
        "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
        "adamw": lambda p: torch.optim.AdamW(p, 1e-3),
    }
    model = small()
    weights = weights_before_each_step(model)
    with pytest.raises(vaelib.NonFiniteError, match=OBJECTIVES[make]) as caught:
        vaelib.fit(
            model,
            grey(),
            objective=make(BAD),
            optimizer=makers[optimizer],
            out=tmp_path,
            **KEYWORDS,
        )
    assert_the_error_leads_to_the_cause(caught.value, tmp_path / "step_000000004.safetensors")
    assert len(weights) == BAD + 1
    assert same_bits(state(model), weights[BAD])
    assert [p.name for p in sorted(tmp_path.glob("step_*"))] == [
        "step_000000000.safetensors",
        "step_000000004.safetensors",
    ]


@pytest.mark.parametrize("make", MODELS)
def test_a_model_that_overflows_stops_the_run_and_changes_nothing(make):
    model = make(BAD)
    weights = weights_before_each_step(model)
    with pytest.raises(vaelib.NonFiniteError, match=MODELS[make]) as caught:
        vaelib.fit(model, grey(), **KEYWORDS)
    assert_the_error_leads_to_the_cause(caught.value, "none was asked for with out=")
    assert same_bits(state(model), weights[BAD])


def assert_the_error_leads_to_the_cause(error, checkpoint):
    """Step, batch, examples and checkpoint: as an order drawn from the seed 0 has them."""
    text = str(error)
    assert "At step 5 (epoch 2, batch 2 of 4)" in text
    assert f"Last checkpoint: {checkpoint}." in text
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(100, generator=generator) for _ in range(2)]
    assert error.indices.tolist() == orders[1][25:50].tolist()
    assert (
        error.indices[:8].tolist() == [int(i) for i in re.findall(r"\d+", text.split("[")[1])][:8]
    )
    assert isinstance(error, FloatingPointError)


def test_the_indices_are_those_of_the_examples_that_the_model_saw():
    """Whatever the order's making: each image carries its number."""
    x = torch.arange(100.0).view(100, 1, 1, 1).expand(100, 1, 4, 4).contiguous() / 100
    model, seen = small(likelihood=vaelib.gaussian(1.0)), []
    model.register_forward_pre_hook(lambda m, a: seen.append(a[0][:, 0, 0, 0]))
    with pytest.raises(vaelib.NonFiniteError) as caught:
        vaelib.fit(model, x, objective=nan_objective(BAD), **KEYWORDS)
    assert (seen[-1] * 100).round().long().tolist() == caught.value.indices.tolist()


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("optimizer", [None, lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)])
@pytest.mark.parametrize("make", OBJECTIVES)
def test_told_to_skip_it_leaves_the_update_out_and_counts_it(make, optimizer, accumulate):
    model = small()
    weights = weights_before_each_step(model)
    history = vaelib.fit(
        model,
        grey(),
        objective=make(BAD),
        on_nan="skip",
        clip=1.0,
        optimizer=optimizer,
        accumulate=accumulate,
        **KEYWORDS,
    )
    assert history.skipped == [0, 1]
    w = [weights[i * accumulate] for i in range(8)]
    for step in range(7):
        assert same_bits(w[step], w[step + 1]) == (step == BAD)
    assert all(t.isfinite().all() for t in [*state(model).values(), *history.ema.values()])
    for name, values in history.columns().items():
        assert all(math.isfinite(v) for v in values), name


@pytest.mark.parametrize("make", MODELS)
def test_a_model_that_overflows_once_trains_on_where_told_to_skip(make):
    model = make(BAD)
    history = vaelib.fit(model, grey(), on_nan="skip", **KEYWORDS)
    assert history.skipped == [0, 1]
    assert all(t.isfinite().all() for t in state(model).values())
    assert math.isfinite(history.train[1])
    assert math.isfinite(history.rate[1])


def test_a_skipped_update_leaves_the_optimizers_state_too(tmp_path):
    """Skipping a step is not making one of zero: Adam's moments and its count stay."""
    from vaelib.io import read_tensors

    vaelib.fit(
        small(), grey(), objective=nan_objective(BAD), on_nan="skip", out=tmp_path, **KEYWORDS
    )
    tensors, _ = read_tensors(tmp_path / "step_000000008.safetensors")
    counts = {float(t) for name, t in tensors.items() if name.endswith(".step")}
    assert counts == {7.0}


def test_an_epoch_in_which_everything_is_skipped_is_survived(tmp_path):
    model = small()
    keywords = {"objective": lambda d: vaelib.elbo(d) * NAN, "on_nan": "skip", "out": tmp_path}
    history = vaelib.fit(model, grey(), **keywords, **KEYWORDS)
    assert history.skipped == [4, 4]
    assert same_bits(state(model), state(small()))
    again = vaelib.fit(model, grey(), **keywords, **KEYWORDS)  # NaN goes into the file and back
    assert again.skipped == [4, 4]
    assert math.isnan(again.train[0])


def test_an_update_with_a_norm_above_skip_is_left_out_and_counted():
    """Two steps have a gradient a thousand times as long as the rest."""

    def objective(draw, step):
        return vaelib.elbo(draw) * torch.where((step == 2) | (step == 6), 1000.0, 1.0)

    model = small()
    weights = weights_before_each_step(model)
    history = vaelib.fit(model, grey(), objective=objective, skip=200.0, clip=5.0, **KEYWORDS)
    assert history.skipped == [1, 1]
    for step in range(7):
        assert same_bits(weights[step], weights[step + 1]) == (step in (2, 6))
    none = vaelib.fit(small(), grey(), objective=objective, skip=1e9, **KEYWORDS)
    assert none.skipped == [0, 0]
    every = small()
    assert vaelib.fit(every, grey(), skip=1e-9, **KEYWORDS).skipped == [4, 4]
    assert same_bits(state(every), state(small()))


def test_clip_scales_a_gradient_to_the_norm_and_a_shorter_one_is_left():
    """With plain gradient descent the step's length is the rate times the norm."""
    lengths, norms = {}, {}
    for clip in (None, 0.1, 1e9):
        model = small()
        before = torch.cat([p.detach().clone().flatten() for p in model.parameters()])
        history = vaelib.fit(
            model,
            grey(),
            clip=clip,
            optimizer=lambda p: torch.optim.SGD(p, 0.01),
            epochs=1,
            batch_size=100,
        )
        after = torch.cat([p.detach().flatten() for p in model.parameters()])
        lengths[clip], norms[clip] = (after - before).norm().item(), history.grad_norm[0]
    assert norms[None] == norms[0.1] == norms[1e9] > 0.2
    assert lengths[None] == pytest.approx(0.01 * norms[None], rel=1e-4)  # float32
    assert lengths[0.1] == pytest.approx(0.01 * 0.1, rel=1e-4)
    assert lengths[1e9] == pytest.approx(lengths[None], rel=1e-6)


def test_numbers_that_float64_holds_are_finite_in_a_model_of_float64():
    """Also above 3.4e38, where float32 ends."""

    def objective(draw):
        return vaelib.elbo(draw) * 1e39

    history = vaelib.fit(small(dtype=torch.float64), grey(), objective=objective, epochs=1)
    assert history.skipped == [0]
    assert history.train[0] == pytest.approx(1e39 * history.elbo[0], rel=1e-9)


def test_a_posterior_so_narrow_that_its_kl_is_infinite_trains_where_no_kl_is_asked_for():
    """sigma = exp(-55) is a number in float32, and its square is 0: no step may need the square."""
    model, norms = small(), []
    with torch.no_grad():
        model.encoder[-1].weight[2:] = 0
        model.encoder[-1].bias[2:] = -110
    vaelib.fit(
        model,
        grey(),
        objective=lambda d: d.log_px_z.mean(0),
        epochs=1,
        callback=lambda m, h: norms.extend(h.grad_norm),
    )
    assert math.isfinite(norms[0])


def test_batch_statistics_are_not_spoilt_by_a_step_that_is_skipped():
    """A layer's running mean is state as well: one infinite batch must not end it."""

    class Model(vaelib.VAE):
        pass

    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    decoder = nn.Sequential(nn.Linear(2, 16), nn.Unflatten(1, (1, 4, 4)))
    model = Model(encoder, decoder, 2)
    steps = Steps(model, BAD)
    encoder[1].register_forward_hook(
        lambda module, _, out: out * math.inf if getattr(steps, "bad", False) else out
    )
    history = vaelib.fit(model, grey(), on_nan="skip", **KEYWORDS)
    assert history.skipped == [0, 1]
    assert all(t.isfinite().all() for t in state(model).values())


def test_a_schedule_that_is_not_finite_does_not_spoil_the_weights():
    def schedule(t):
        return NAN if t >= 0.5 else 1.0

    model = small()
    with pytest.raises((ValueError, FloatingPointError)):
        vaelib.fit(model, grey(), schedule=schedule, **KEYWORDS)
    assert all(t.isfinite().all() for t in state(model).values())
