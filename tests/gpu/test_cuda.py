"""What only a GPU shows. `make gpu` runs these with the python3 at hand, installing nothing."""

import pytest
import torch
from torch.testing import assert_close

import vaelib

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("VAELIB_PROGRESS", "0")


@pytest.fixture(scope="module")
def x():
    return vaelib.data.mnist()[0].x[:2000]


def small(seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    return vaelib.mlp_vae(8, (64,)).to("cuda", dtype)


def weights(model):
    return torch.cat([p.detach().double().cpu().flatten() for p in model.parameters()])


@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"compile": True},
        {"precision": "bf16"},
        {"compile": True, "precision": "bf16"},
        {"compile": True, "accumulate": 2},
    ],
    ids=str,
)
def test_every_switch_learns_what_a_cpu_learns(x, switches):
    """The noise differs, so the objectives agree to a few standard errors, not to the bit."""
    on_cpu = vaelib.fit(small().cpu(), x, epochs=5)
    on_gpu = vaelib.fit(small(), x, epochs=5, **switches)
    assert on_gpu.train[-1] == pytest.approx(on_cpu.train[-1], rel=0.02)


def test_handed_the_same_noise_gpu_and_cpu_agree(x):
    bits = vaelib.data.binarize(x[:100]).double()
    noise = torch.randn(3, 100, 8, dtype=torch.float64)
    gpu, cpu = small(dtype=torch.float64), small(dtype=torch.float64).cpu()
    ours = vaelib.elbo(gpu.draw(bits, 3, noise.cuda()))
    assert_close(ours.cpu(), vaelib.elbo(cpu.draw(bits, 3, noise)), rtol=0, atol=1e-9)


def test_no_step_waits_for_the_gpu(x):
    """Between the second step and the last of an epoch, torch reports any synchronisation."""

    def watched(draw, step):
        calls.append(1)
        if len(calls) in (2, 16):
            torch.cuda.set_sync_debug_mode("error" if len(calls) == 2 else "default")
        return vaelib.elbo(draw)

    calls = []
    try:
        vaelib.fit(small(), x, objective=watched, epochs=1, ema=0.99, clip=100.0, skip=1e6)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(calls) == 16


@pytest.mark.parametrize("on_nan", ["stop", "skip"])
def test_an_update_that_is_not_finite_is_masked_on_the_device(x, on_nan):
    def broken(draw, step):
        return vaelib.elbo(draw) / torch.where(step == 3, 0.0, 1.0)

    model, before = small(), small()
    vaelib.fit(before, x[:75], epochs=1, batch_size=25)
    if on_nan == "stop":
        with pytest.raises(vaelib.NonFiniteError, match="step 3"):
            vaelib.fit(model, x[:75], objective=broken, epochs=2, batch_size=25)
        assert_close(weights(model), weights(before), rtol=0, atol=1e-6)
    else:
        history = vaelib.fit(
            model, x[:75], objective=broken, epochs=2, batch_size=25, on_nan="skip"
        )
        assert history.skipped == [0, 1]
        assert weights(model).isfinite().all()


def test_a_cut_run_ends_where_the_whole_run_ends(x, tmp_path):
    class Cut(Exception):
        pass

    def cut(model, history):
        if history.epoch[-1] == 2:
            raise Cut

    whole, model = small(), small(seed=9)
    vaelib.fit(whole, x, epochs=4)
    with pytest.raises(Cut):
        vaelib.fit(small(), x, epochs=4, out=tmp_path, callback=cut)
    vaelib.fit(model, x, epochs=4, out=tmp_path)
    assert_close(weights(model), weights(whole), rtol=0, atol=1e-4)


def test_streamed_data_are_resident_data(x):
    resident, streamed = small(), small()
    vaelib.fit(resident, x, epochs=2)
    vaelib.fit(streamed, torch.utils.data.TensorDataset(x), epochs=2)
    assert_close(weights(streamed), weights(resident), rtol=0, atol=1e-4)


def test_log_marginal_is_the_cpus(x):
    model = small()
    vaelib.fit(model, x, epochs=3)
    gpu = vaelib.log_marginal(model, x[:200], num_samples=200)
    cpu = vaelib.log_marginal(model.cpu(), x[:200], num_samples=200)
    error = 4 * (gpu.mc_stderr**2 + cpu.mc_stderr**2) ** 0.5
    assert abs(gpu.mean - cpu.mean) < error


def test_memory_does_not_grow_with_epochs(x):
    peaks = []
    for epochs in (1, 4):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        vaelib.fit(small(), x, epochs=epochs)
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[1] <= 1.01 * peaks[0]
