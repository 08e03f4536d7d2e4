"""What callers may well pass: NumPy's numbers, other optimizers, tied weights, own objectives."""

import functools
import math
import re

import numpy as np
import pytest
import torch
from torch import nn
from torture import Cut, grey, measured, same_bits, small, state

import vaelib

KEYWORDS = {"epochs": 3, "batch_size": 25}


def cut_and_taken_up(make, out, **keywords):
    """The model and history of a run that was cut in the middle of its second epoch."""
    calls = []

    @functools.wraps(keywords.get("objective", vaelib.elbo))
    def cutting(*arguments, **named):
        calls.append(1)
        if len(calls) == 7:
            raise Cut
        return keywords.get("objective", vaelib.elbo)(*arguments, **named)

    own = KEYWORDS | keywords
    with pytest.raises(Cut):
        vaelib.fit(make(), grey(), out=out, save_every=1e-9, **(own | {"objective": cutting}))
    model = make()
    return model, vaelib.fit(model, grey(), out=out, **own)


def assert_same_bits_after_a_cut(make, out, **keywords):
    whole = make()
    history = vaelib.fit(whole, grey(), **(KEYWORDS | keywords))
    model, resumed = cut_and_taken_up(make, out, **keywords)
    assert same_bits(state(model), state(whole))
    assert measured(resumed) == measured(history)
    return whole


@pytest.mark.parametrize("seed", [-(2**63), -1, 0, 2**63 - 1])
def test_any_seed_of_64_bits_is_taken_up(tmp_path, seed):
    assert_same_bits_after_a_cut(small, tmp_path, seed=seed)


@pytest.mark.parametrize("seed", [-(2**63) - 1, 2**63, 2**64 - 1])
def test_a_larger_seed_is_refused_in_a_sentence(seed):
    with pytest.raises(ValueError, match=f"seed is {seed}; expected .* 63 bits"):
        vaelib.fit(small(), grey(), seed=seed)


def test_checkpoints_at_the_ends_of_epochs_only(tmp_path):
    vaelib.fit(small(), grey(), out=tmp_path, save_every=math.inf, **KEYWORDS)
    assert [p.name for p in sorted(tmp_path.glob("step*"))] == [
        "step_000000008.safetensors",
        "step_000000012.safetensors",
    ]


def test_state_that_no_checkpoint_keeps_is_refused_before_the_first_step():
    class Counting(nn.Identity):
        def get_extra_state(self):
            return {"calls": 3}

    model = small()
    model.counting = Counting()
    with pytest.raises(TypeError, match="counting._extra_state, a dict; expected tensors"):
        vaelib.fit(model, grey())


OPTIMIZERS = {
    "SGD": {},
    "SGD, nesterov": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "Adam": {},
    "Adam, amsgrad": {"amsgrad": True},
    "Adam, foreach": {"foreach": True},
    "AdamW": {"fused": True},
    "NAdam": {},
    "RAdam": {},
    "Adamax": {},
    "Adagrad": {},
    "Adadelta": {},
    "Adafactor": {},
    "ASGD": {},
    "RMSprop": {"momentum": 0.5, "centered": True},
    "Rprop": {},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_with_every_optimizer_of_torchs_a_cut_run_ends_with_the_same_bits(tmp_path, name):
    made = getattr(torch.optim, name.split(",")[0])
    assert_same_bits_after_a_cut(
        small, tmp_path, optimizer=lambda p: made(p, lr=1e-3, **OPTIMIZERS[name])
    )


def test_each_group_of_parameters_keeps_its_own_rate_under_a_schedule(tmp_path):
    rates = []

    def optimizer(parameters):
        first, *rest = parameters
        made = torch.optim.Adam([{"params": [first], "lr": 0.1}, {"params": rest}], lr=0.01)
        made.register_step_pre_hook(
            lambda o, *_: rates.append([group["lr"] for group in o.param_groups])
        )
        return made

    keywords = {"optimizer": optimizer, "schedule": lambda t: 1 - t}
    assert_same_bits_after_a_cut(small, tmp_path, **keywords)
    factors = [1 - i / 12 for i in range(12)]
    expected = [pytest.approx([0.1 * f, 0.01 * f]) for f in factors]
    assert rates == [*expected, *expected[:6], *expected[6:]]


def test_an_optimizer_whose_rate_is_a_tensor_is_saved_or_refused_before_the_first_step(tmp_path):
    steps = []

    def optimizer(parameters):
        made = torch.optim.Adam(parameters, lr=torch.tensor(1e-3))
        made.register_step_pre_hook(lambda *_: steps.append(1))
        return made

    try:
        vaelib.fit(small(), grey(), optimizer=optimizer, out=tmp_path / "refused", epochs=1)
    except (ValueError, TypeError) as error:
        assert re.search("optimizer|lr", str(error))
        assert steps == []
    else:
        assert_same_bits_after_a_cut(small, tmp_path, optimizer=optimizer)


@pytest.mark.parametrize(
    "schedule",
    [lambda t: np.cos(t), lambda t: np.float32(1 - t), lambda t: torch.tensor(1 - t), lambda t: 1],
)
def test_a_schedule_may_return_any_number(tmp_path, schedule):
    assert_same_bits_after_a_cut(small, tmp_path, schedule=schedule)


def test_numbers_of_numpys_are_numbers(tmp_path):
    keywords = {"seed": np.int64(3), "batch_size": np.int32(25), "epochs": np.int64(3)}
    keywords |= {"lr": np.float64(1e-3), "accumulate": np.int64(2)}
    model = assert_same_bits_after_a_cut(small, tmp_path, **keywords)
    plain = small()
    vaelib.fit(plain, grey(), seed=3, batch_size=25, epochs=3, accumulate=2)
    assert same_bits(state(model), state(plain))


@pytest.mark.parametrize("value", [None, 0, -1, math.nan, "300"])
def test_a_wrong_save_every_is_an_error_before_the_first_step(tmp_path, value):
    model = small()
    with pytest.raises((ValueError, TypeError), match="save_every is"):
        vaelib.fit(model, grey(), out=tmp_path, save_every=value)
    assert same_bits(state(model), state(small()))


class TiedDecoder(nn.Module):
    """Its first weight is the encoder's, transposed."""

    def __init__(self, first):
        super().__init__()
        self.first = first
        self.inner = nn.Linear(2, 8)

    def forward(self, z):
        return (self.inner(z).relu() @ self.first.weight).view(-1, 1, 4, 4)


def tied():
    torch.manual_seed(0)
    first = nn.Linear(16, 8)
    encoder = nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Linear(8, 4))
    return vaelib.VAE(encoder, TiedDecoder(first), 2)


def test_tied_weights_are_averaged_under_each_of_their_names(tmp_path):
    keywords = {"ema": 0.9, "lr": 0.05, "validation": grey(20)}
    model = tied()
    history = vaelib.fit(model, grey(), **(KEYWORDS | keywords))
    averages = history.ema
    assert torch.equal(averages["encoder.1.weight"], averages["decoder.first.weight"])
    assert not torch.equal(averages["decoder.first.weight"], model.decoder.first.weight)
    resumed = cut_and_taken_up(tied, tmp_path, **keywords)[1]
    assert same_bits(resumed.ema, averages)
    assert measured(resumed) == measured(history)

    # And validation used the averages: the same number comes from a model that has them.
    model.load_state_dict(averages)
    never = {"optimizer": lambda p: torch.optim.SGD(p, 1e-30), "validation": grey(20)}
    again = vaelib.fit(model, grey(), epochs=1, **never)
    assert again.validation[-1] == pytest.approx(history.validation[-1], rel=1e-6)


def test_the_average_is_the_recursion_of_its_definition():
    """a <- d a + (1 - d) w, with d = min(ema, (1 + t) / (10 + t)) in step t."""
    seen = []

    def objective(draw):
        seen.append(state(model))
        return vaelib.elbo(draw)

    model = small(dtype=torch.float64)
    history = vaelib.fit(model, grey(), objective=objective, ema=0.3, **KEYWORDS)
    average = seen[0]
    for t, weights in enumerate([*seen[1:], state(model)]):
        d = min(0.3, (1 + t) / (10 + t))
        average = {n: d * average[n] + (1 - d) * weights[n] for n in weights}
    for name, t in average.items():
        torch.testing.assert_close(history.ema[name], t, rtol=1e-12, atol=1e-12)


def weighted(draw, beta=1.0, step=None):
    assert isinstance(beta, float)
    assert step.shape == ()
    return draw.log_px_z.mean(0) - beta * draw.kl


def by_name(draw, *, step):
    return weighted(draw, 1.0, step)


@pytest.mark.parametrize(
    "objective",
    [
        weighted,
        by_name,
        functools.partial(weighted, beta=4.0),
        lambda d, step: weighted(d, 1.0, step),
    ],
)
@pytest.mark.parametrize("validation", [None, grey(20)])
def test_the_step_is_given_to_the_argument_of_its_name(objective, validation):
    history = vaelib.fit(small(), grey(), objective=objective, validation=validation, **KEYWORDS)
    assert all(math.isfinite(v) for v in history.train)


def with_dropout():
    model = small()
    model.encoder.append(nn.Dropout(0.2))
    return model


def test_a_callback_may_draw_at_random_without_changing_the_run(tmp_path):
    def callback(model, history):
        torch.rand(len(history.epoch))
        model.eval()

    model, observed = with_dropout(), with_dropout()
    vaelib.fit(model, grey(), **KEYWORDS)
    vaelib.fit(observed, grey(), callback=callback, **KEYWORDS)
    assert same_bits(state(observed), state(model))
    resumed, _ = cut_and_taken_up(with_dropout, tmp_path, callback=callback)
    assert same_bits(state(resumed), state(model))


def test_a_callback_that_fails_after_drawing_costs_no_bit(tmp_path):
    def failing(model, history):
        torch.rand(3)
        if len(history.epoch) == 2:
            raise Cut

    def callback(model, history):
        torch.rand(3)

    whole, model = with_dropout(), with_dropout()
    vaelib.fit(whole, grey(), callback=callback, **KEYWORDS)
    with pytest.raises(Cut):
        vaelib.fit(with_dropout(), grey(), callback=failing, out=tmp_path, **KEYWORDS)
    vaelib.fit(model, grey(), callback=callback, out=tmp_path, **KEYWORDS)
    assert same_bits(state(model), state(whole))


def test_an_address_in_a_models_text_does_not_make_it_another_model(tmp_path):
    class Activation(nn.Module):
        def __init__(self):
            super().__init__()
            self.function = lambda x: x.relu()

        def forward(self, x):
            return self.function(x)

        def extra_repr(self):
            return str(self.function)

    def make():
        model = small()
        model.encoder[2] = Activation()
        return model

    first, kept = make(), make()  # both alive, so at two addresses
    assert str(first) != str(kept)
    vaelib.fit(first, grey(), epochs=1, out=tmp_path)
    assert vaelib.fit(kept, grey(), epochs=2, out=tmp_path).epoch == [1, 2]


@pytest.mark.parametrize("grey_dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_model_of_any_float_is_validated_on_the_data_it_is_trained_on(dtype, grey_dtype):
    x = grey() if grey_dtype == torch.uint8 else grey() / 255
    history = vaelib.fit(small(dtype=dtype), x, validation=x[:20], epochs=1)
    assert len(history.validation) == 1


def test_a_model_is_in_eval_mode_after_a_run_and_as_it_was_after_an_error():
    for training in (True, False):
        model = small().train(training)
        with pytest.raises(ZeroDivisionError):
            vaelib.fit(model, grey(), callback=lambda *_: 1 / 0)
        assert model.training == training
        vaelib.fit(model, grey(), epochs=1)
        assert not model.training


def test_frozen_parameters_stay_and_are_saved(tmp_path):
    def make():
        model = small()
        model.encoder[1].weight.requires_grad_(False)
        return model

    model = assert_same_bits_after_a_cut(make, tmp_path, ema=0.9)
    assert torch.equal(model.encoder[1].weight, small().encoder[1].weight)


def test_a_parameter_without_a_gradient_is_no_obstacle(tmp_path):
    def make():
        model = small()
        model.spare = nn.Linear(3, 3)
        return model

    assert_same_bits_after_a_cut(make, tmp_path, ema=0.9, clip=1.0)
