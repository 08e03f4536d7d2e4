"""What holds for every shape, type, batch, number of draws, seed and place of the cut."""

import contextlib
import functools
import math
import tempfile

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from torture import Cut, amount, measured, same_bits, state

import vaelib

few = settings(max_examples=amount(12, 1000), deadline=None, derandomize=True, database=None)


@st.composite
def cases(draw):
    """A model, its data and the settings of a run."""
    return {
        "x_shape": draw(st.sampled_from([(1, 4, 4), (6,), (3, 2, 2), (1,), (2, 1, 3, 2)])),
        "n": draw(st.integers(1, 40)),
        "data": draw(st.sampled_from([torch.uint8, torch.float32, torch.float64])),
        "dtype": draw(st.sampled_from([torch.float32, torch.float64])),
        "bernoulli": draw(st.booleans()),
        "latent_dim": draw(st.integers(1, 4)),
        "hidden": tuple(draw(st.lists(st.integers(1, 9), max_size=2))),
        "streamed": draw(st.booleans()),
        "keywords": {
            "batch_size": draw(st.integers(1, 60)),
            "num_samples": draw(st.integers(1, 3)),
            "accumulate": draw(st.integers(1, 5)),
            "epochs": draw(st.integers(1, 4)),
            "seed": draw(st.integers(0, 2**40)),
            "ema": draw(st.sampled_from([None, 0.5, 0.999])),
            "clip": draw(st.sampled_from([None, 0.1])),
            "skip": draw(st.sampled_from([None, 1.0])),
            "schedule": draw(st.sampled_from([None, half])),
            "optimizer": draw(st.sampled_from([None, momentum, rmsprop])),
            "objective": draw(st.sampled_from([vaelib.elbo, vaelib.iwae, warmed])),
        },
    }


def half(t):
    return 1 - t / 2


def momentum(parameters):
    return torch.optim.SGD(parameters, 1e-3, momentum=0.9)


def rmsprop(parameters):
    return torch.optim.RMSprop(parameters, 1e-3)


def warmed(draw, step):
    return draw.log_px_z.mean(0) - (step / 10).clamp(max=1) * draw.kl


def model_of(case, seed=0, dtype=None):
    torch.manual_seed(seed)
    return vaelib.mlp_vae(
        case["latent_dim"],
        case["hidden"],
        x_shape=case["x_shape"],
        likelihood=vaelib.bernoulli if case["bernoulli"] else vaelib.gaussian(0.7),
    ).to(dtype or case["dtype"])


def data_of(case):
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, 256, (case["n"], *case["x_shape"]), generator=generator)
    x.view(-1)[0] = 255  # uint8 data of which no pixel is above 1 are taken for binary ones
    if case["data"] == torch.uint8:
        x = x.to(torch.uint8)
    elif case["bernoulli"]:
        x = x.to(case["data"]) / 255
    else:  # floats are not converted: they have to be the model's
        x = (x.double() / 255).to(case["dtype"])
    return torch.utils.data.TensorDataset(x) if case["streamed"] else x


@few
@given(case=cases(), cut=st.integers(0, 100))
def test_a_run_cut_after_any_step_ends_with_the_bits_of_an_uncut_one(case, cut):
    keywords, calls = case["keywords"], 0
    whole = model_of(case)
    history = vaelib.fit(whole, data_of(case), **keywords)
    total = history.step[-1]
    assert total == keywords["epochs"] * math.ceil(case["n"] / keywords["batch_size"])

    @functools.wraps(keywords["objective"])  # under its name: the same run
    def cutting(*arguments, **named):
        nonlocal calls
        calls += 1
        if calls == cut % total + 1:  # in a step, perhaps between two parts of its batch
            raise Cut
        return keywords["objective"](*arguments, **named)

    with tempfile.TemporaryDirectory() as out:
        with contextlib.suppress(Cut):
            vaelib.fit(
                model_of(case),
                data_of(case),
                out=out,
                save_every=1e-9,
                **(keywords | {"objective": cutting}),
            )
        model = model_of(case, seed=9)
        resumed = vaelib.fit(model, data_of(case), out=out, **keywords)
    assert same_bits(state(model), state(whole))
    assert measured(resumed) == measured(history)
    if keywords["ema"] is not None:
        assert same_bits(resumed.ema, history.ema)
    assert all(t.dtype == case["dtype"] for t in state(model).values())


@few
@given(case=cases(), parts=st.integers(2, 50))
def test_a_batch_computed_in_parts_gives_the_whole_batchs_weights_to_rounding(case, parts):
    """In float64; a rounding error of 1e-16 grows in a few steps to far less than 1e-9.

    With gradient descent: Adam divides a gradient of 1e-16, where it should be 0, by itself.
    """
    weights, histories = [], []
    keywords = case["keywords"] | {"optimizer": momentum, "skip": None}
    if case["data"] == torch.float32:
        case = case | {"data": torch.float64}
    case = case | {"dtype": torch.float64}
    for accumulate in (1, parts):
        model = model_of(case)
        history = vaelib.fit(model, data_of(case), **(keywords | {"accumulate": accumulate}))
        weights.append(state(model) | {f"ema.{n}": t for n, t in (history.ema or {}).items()})
        histories.append(measured(history))
    assert_close(weights[1], weights[0], rtol=1e-9, atol=1e-9)
    for name, values in histories[0].items():
        assert_close(histories[1][name], values, rtol=1e-9, atol=1e-9, msg=name)


@few
@given(case=cases(), first=st.integers(1, 3), then=st.integers(1, 3))
def test_a_run_prolonged_equals_one_that_was_as_long_from_the_start(case, first, then):
    keywords = case["keywords"] | {"schedule": None, "epochs": first + then}
    whole = model_of(case)
    history = vaelib.fit(whole, data_of(case), **keywords)
    with tempfile.TemporaryDirectory() as out:
        model = model_of(case)
        vaelib.fit(model, data_of(case), out=out, **(keywords | {"epochs": first}))
        resumed = vaelib.fit(model_of(case, seed=3), data_of(case), out=out, **keywords)
        model = model_of(case, seed=4)
        vaelib.fit(model, data_of(case), out=out, **keywords)  # finished: it is only read
    assert same_bits(state(model), state(whole))
    assert measured(resumed) == measured(history)


@few
@given(case=cases())
def test_what_is_saved_is_what_is_loaded(case):
    model = model_of(case)
    with tempfile.TemporaryDirectory() as folder:
        vaelib.save(model, f"{folder}/model.safetensors")
        loaded = vaelib.load(f"{folder}/model.safetensors")
        other = vaelib.load(f"{folder}/model.safetensors", into=model_of(case, seed=5))
    assert same_bits(state(loaded), state(model))
    assert same_bits(state(other), state(model))


@few
@given(case=cases())
def test_the_callers_randomness_is_neither_used_nor_moved(case):
    weights = []
    for seed in (1, 2):
        model, data = model_of(case), data_of(case)
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        vaelib.fit(model, data, **case["keywords"])
        assert torch.equal(torch.get_rng_state(), before)
        weights.append(state(model))
    assert same_bits(*weights)
