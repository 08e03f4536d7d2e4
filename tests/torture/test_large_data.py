"""Data read a batch at a time: the bits of data that fit, and errors where they occur."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset
from torture import Cut, grey, measured, same_bits, small, state

import vaelib
from vaelib.sources import Streamed

KEYWORDS = {"epochs": 3, "batch_size": 30, "num_samples": 2}  # the last batch has 10


class Rows(Dataset):
    """x, or (x, y), an example at a time."""

    def __init__(self, x, labels=False):
        self.x, self.labels = x, labels

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return (self.x[i], i % 10) if self.labels else self.x[i]


class Arrays(Rows):
    def __getitem__(self, i):
        return self.x[i].numpy()


def memmap(x, tmp_path, mode="r"):
    np.save(tmp_path / "x.npy", x.numpy())
    return np.load(tmp_path / "x.npy", mmap_mode=mode)


WAYS = {
    "memmap, read only": lambda x, p: memmap(x, p),
    "memmap": lambda x, p: memmap(x, p, "r+"),
    "memmap, every second": lambda x, p: memmap(x.repeat_interleave(2, 0), p)[::2],
    "x": lambda x, p: Rows(x),
    "(x, y)": lambda x, p: Rows(x, labels=True),
    "arrays": lambda x, p: Arrays(x),
    "TensorDataset": lambda x, p: TensorDataset(x),
    "Subset": lambda x, p: Subset(Rows(torch.cat([x, x])), range(100)),
    "ConcatDataset": lambda x, p: ConcatDataset([Rows(x[:33]), Rows(x[33:])]),
}


@pytest.mark.parametrize("data", ["uint8", "floats in [0, 1]", "real numbers"])
@pytest.mark.parametrize("way", WAYS)
def test_data_read_a_batch_at_a_time_give_the_bits_of_resident_data(tmp_path, way, data):
    x = grey()
    if data != "uint8":
        x = x.float() / 255
    likelihood = vaelib.gaussian(0.5) if data == "real numbers" else vaelib.bernoulli
    resident, streamed = (small(likelihood=likelihood) for _ in range(2))
    expected = vaelib.fit(resident, x, **KEYWORDS)
    before = torch.get_rng_state()
    history = vaelib.fit(streamed, WAYS[way](x, tmp_path), out=tmp_path / "out", **KEYWORDS)
    assert torch.equal(torch.get_rng_state(), before)
    assert same_bits(state(streamed), state(resident))
    assert measured(history) == measured(expected)


@pytest.mark.parametrize("way", ["memmap, read only", "(x, y)"])
def test_a_cut_run_on_such_data_ends_with_the_same_bits(tmp_path, way):
    resident, model, calls = small(), small(), []

    def objective(draw):
        calls.append(1)
        if len(calls) == 6:
            raise Cut
        return vaelib.elbo(draw)

    vaelib.fit(resident, grey(), **KEYWORDS)
    keywords = KEYWORDS | {"out": tmp_path / "out", "objective": objective, "save_every": 1e-9}
    with pytest.raises(Cut):
        vaelib.fit(model, WAYS[way](grey(), tmp_path), **keywords)
    vaelib.fit(model, WAYS[way](grey(), tmp_path), **keywords)
    assert same_bits(state(model), state(resident))


def test_a_dataset_that_draws_at_random_repeats_itself_and_can_be_taken_up(tmp_path):
    """As with random crops: its draws come from torch's generator, which `fit` seeds."""

    class Noisy(Rows):
        def __getitem__(self, i):
            return (self.x[i] + torch.rand(1, 4, 4)) / 2

    def run(out=None, callback=None, seed=0):
        torch.manual_seed(seed)  # the caller's state is whatever it is
        data, model = Noisy(grey() / 255), small()
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        try:
            vaelib.fit(model, data, out=out, callback=callback, **KEYWORDS)
        finally:
            assert torch.equal(torch.get_rng_state(), before)
        return state(model)

    def cut(model, history):
        if history.epoch[-1] == 2:
            raise Cut

    whole = run()
    assert same_bits(run(seed=1), whole)
    with pytest.raises(Cut):
        run(tmp_path, cut, seed=2)
    assert same_bits(run(tmp_path, seed=3), whole)


@pytest.mark.parametrize("likelihood", [vaelib.bernoulli, vaelib.gaussian(0.5)])
@pytest.mark.parametrize(
    ("value", "says"), [(float("nan"), "NaN|missing"), (float("inf"), "infinite|inf")]
)
def test_a_bad_value_is_found_in_its_batch_and_named(tmp_path, likelihood, value, says):
    """A data set too large to read beforehand: the error comes with the batch, before its step."""
    count = 600
    x = grey(count).float() / 255
    bad = 301  # of every three that are sampled beforehand, this is none
    x[bad, 0, 2, 2] = value
    model, steps = small(likelihood=likelihood), []

    def objective(draw, step):
        steps.append(int(step))
        return vaelib.elbo(draw)

    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    batch = int((order == bad).nonzero()) // 60
    with pytest.raises(ValueError, match=says):
        vaelib.fit(model, Rows(x), objective=objective, epochs=1, batch_size=60, out=tmp_path)
    assert steps == list(range(batch))
    assert all(t.isfinite().all() for t in state(model).values())
    x[bad] = 0.5  # repaired, the folder is no obstacle
    vaelib.fit(small(likelihood=likelihood), Rows(x), epochs=1, batch_size=60)


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (torch.zeros(100, 16), r"shape \[\d+, 16\], but the model is over \[1, 4, 4\]"),
        (torch.zeros(100, 1, 5, 4), r"\[\d+, 1, 5, 4\]"),
        (torch.zeros(100), r"shape \[\d+\]"),
        (torch.full((100, 1, 4, 4), 2.0), r"in \[0, 1\]"),
        (torch.full((100, 1, 4, 4), -1.0), r"in \[0, 1\]"),
        (torch.zeros(0, 1, 4, 4), "no examples"),
    ],
)
def test_a_wrong_dataset_is_found_before_the_first_step(x, says):
    model = small()
    with pytest.raises(ValueError, match=says):
        vaelib.fit(model, Rows(x))
    assert same_bits(state(model), state(small()))


def test_rows_of_changing_shapes_are_an_error():
    class Ragged(Rows):
        def __getitem__(self, i):
            return self.x[i] if i != 99 else self.x[i][:, :3]

    with pytest.raises((ValueError, RuntimeError), match="shape|size"):
        vaelib.fit(small(), Ragged(grey()), epochs=1)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_a_dataset_of_whole_numbers_is_refused(dtype):
    with pytest.raises(TypeError, match="convert with"):
        vaelib.fit(small(), Rows(grey().to(dtype)))


def test_a_bad_value_deep_in_a_dataset_is_named_with_its_batch():
    x = grey(600).double() / 255
    x[301] = 7.0  # not among the 256 that are looked at before the first step
    with pytest.raises(ValueError, match=r"\[0, 1\].* These are examples \[\d+, .* a batch of 25"):
        vaelib.fit(small().double(), TensorDataset(x), batch_size=25)


def test_a_data_set_that_draws_in_worker_processes_draws_anew_each_epoch():
    rows = Streamed(TensorDataset(grey()), small())
    orders = [torch.randperm(100, generator=torch.Generator().manual_seed(i)) for i in (0, 1, 0)]
    seeds = [rows.loader(order.split(25), 0).generator.initial_seed() for order in orders]
    assert seeds[0] == seeds[2] != seeds[1]


def test_a_dataset_without_a_length_is_refused_in_a_sentence():
    class Endless(IterableDataset):
        def __iter__(self):
            yield from grey()

    with pytest.raises((TypeError, ValueError), match="expected"):
        vaelib.fit(small(), Endless())


def test_an_error_of_the_dataset_comes_through():
    class Broken(Rows):
        def __getitem__(self, i):
            if i == 57:
                raise OSError("the disk of example 57")
            return self.x[i]

    with pytest.raises(OSError, match="the disk of example 57"):
        vaelib.fit(small(), Broken(grey()))


def test_sixteen_million_examples_and_more_are_addressed_within_their_number():
    """float32 counts to 2^24 only; an index rounded beyond the end would be the dataset's error."""
    n = 2**24 + 4
    asked = []

    class Huge(Rows):
        def __len__(self):
            return n

        def __getitem__(self, i):
            asked.append(i)
            if not 0 <= i < n:
                raise IndexError(i)
            return self.x[i % len(self.x)]

    def stop(draw):
        raise Cut

    with pytest.raises(Cut):
        vaelib.fit(small(), Huge(grey()), objective=stop, epochs=1, batch_size=2**14)
    assert min(asked) >= 0
    assert max(asked) < n


def test_ones_are_always_ink_and_zeros_never_in_every_float():
    """bfloat16 has no number between 1 - 2^-8 and 1, and float16 none above 65504."""
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        model, seen = small(), []
        model.register_forward_pre_hook(lambda m, a, s=seen: s.append(a[0].clone()))
        x = torch.zeros(4000, 1, 4, 4, dtype=dtype)
        x[:, :, :2] = 1
        vaelib.fit(model, x, epochs=3)
        ink = torch.cat(seen)
        assert ink[:, :, :2].min() == 1, dtype
        assert ink[:, :, 2:].max() == 0, dtype


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_grey_is_ink_as_often_as_it_is_grey(dtype):
    """Each grey, over many draws, to five standard errors."""
    greys = torch.arange(256, dtype=torch.uint8).repeat_interleave(16)
    x = greys.view(256, 1, 4, 4)
    if dtype != torch.uint8:
        x = x.to(dtype) / 255
    model, seen = small(dtype=torch.float64 if dtype == torch.float64 else torch.float32), []
    order = []
    model.register_forward_pre_hook(lambda m, a: seen.append(a[0].mean((1, 2, 3)).double()))
    model.register_forward_pre_hook(lambda m, a: order.append(len(a[0])))
    epochs = 300
    vaelib.fit(model, x, epochs=epochs, batch_size=256, seed=2)
    generator, total = torch.Generator().manual_seed(2), torch.zeros(256, dtype=torch.float64)
    for values in seen:
        total[torch.randperm(256, generator=generator)] += values
    p = torch.arange(256, dtype=torch.float64) / 255
    error = (total / epochs - p).abs()
    assert (error <= 5 * (p * (1 - p) / (16 * epochs)).sqrt() + 2**-16).all()


@pytest.mark.slow
def test_an_array_that_may_not_be_written_is_read_without_a_warning():
    """As np.load with mmap_mode="r" and JAX give them. torch warns once, in a fresh process."""
    code = """
import warnings
warnings.simplefilter("error")
import numpy as np, torch, vaelib
x = (np.arange(1600) % 256).astype(np.uint8).reshape(100, 1, 4, 4)
x.flags.writeable = False
vaelib.fit(vaelib.mlp_vae(2, (8,), x_shape=(1, 4, 4)), x, validation=x, epochs=1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
