"""Convolutional networks: shapes, files, and no word between the examples of a batch."""

import pytest
import torch
from torch.testing import assert_close

import vaelib
from vaelib.likelihoods import logistic_mixture


@pytest.mark.parametrize("x_shape", [(1, 28, 28), (3, 32, 32), (2, 15, 9)])
@pytest.mark.parametrize("channels", [(8,), (8, 12, 20)])
@pytest.mark.parametrize("blocks", [0, 2])
def test_any_size_goes_down_and_comes_back(x_shape, channels, blocks, tmp_path):
    torch.manual_seed(0)
    settings = {"blocks": blocks, "x_shape": x_shape, "likelihood": vaelib.gaussian(0.1)}
    model = vaelib.conv_vae(5, channels, **settings)
    draw = model(torch.rand(3, *x_shape), 2)
    assert draw.log_px_z.shape == (2, 3)
    draw.log_w.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    vaelib.save(model, tmp_path / "m.safetensors")
    again = vaelib.load(tmp_path / "m.safetensors")
    assert_close(again.encode(draw.x).mean, model.encode(draw.x).mean)


def test_examples_of_a_batch_know_nothing_of_each_other():
    torch.manual_seed(0)
    model = vaelib.conv_vae(4, (8, 16), blocks=1).train()
    x = torch.rand(6, 1, 28, 28)
    together = model.encode(x).mean
    alone = torch.cat([model.encode(one).mean for one in x.split(1)])
    assert_close(together, alone, rtol=1e-4, atol=1e-5)
    z = torch.randn(6, 4)
    decoded = model.decode(z).mean
    assert_close(decoded[2:3], model.decode(z[2:3]).mean, rtol=1e-4, atol=1e-5)


def test_a_likelihood_gets_the_channels_that_it_wants():
    model = vaelib.conv_vae(4, (8,), x_shape=(3, 8, 8), likelihood=logistic_mixture(2))
    assert model.decoder(torch.randn(1, 4)).shape == (1, 20, 8, 8)
    assert model.draw(torch.zeros(2, 3, 8, 8)).log_px_z.shape == (1, 2)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"x_shape": (28, 28)}, r"shape \(28, 28\) .* expected \(C, H, W\)"),
        ({"channels": ()}, "at least one number of channels"),
        ({"channels": (8, 0)}, "positive and whole"),
        ({"blocks": -1}, "blocks is -1"),
        ({"activation": "sine"}, "activation is 'sine'; expected one of relu"),
    ],
)
def test_bad_sizes_get_one_clear_sentence(settings, says):
    with pytest.raises(ValueError, match=says):
        vaelib.conv_vae(4, **settings)


def test_a_hostile_convolutional_file_is_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    vaelib.save(vaelib.conv_vae(2, (8,)), path)
    tensors, description = vaelib.io.read_tensors(path)
    for change in ({"blocks": 10**6}, {"channels": [10**9] * 3}, {"channels": [1] * 10**5}):
        forged = {"architecture": description["architecture"] | change}
        vaelib.io.write_tensors(path, tensors, forged)
        with pytest.raises(ValueError, match="describes no model|holds another model"):
            vaelib.load(path)
