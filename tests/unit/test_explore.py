"""The explorer without a browser: what it refuses, what Python sees, what a page gets."""

import json
import re
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import vaelib


@pytest.fixture
def model() -> vaelib.VAE:
    torch.manual_seed(0)
    return vaelib.mlp_vae(3, (16,))


def test_image_follows_z(model):
    explorer = vaelib.explore(model)
    explorer.z = [0.5, -1.0, 2.0]
    assert_close(explorer.image, model.decode(torch.tensor([[0.5, -1.0, 2.0]])).mean[0])


def test_what_was_drawn_can_be_encoded(model):
    explorer = vaelib.explore(model, draw=True)
    assert explorer.drawn is None
    explorer.set_state({"drawing": memoryview(bytes([0, 255] * 392))})  # as it arrives
    assert_close(explorer.drawn.unique(), torch.tensor([0.0, 1.0]))
    assert model.encode(explorer.drawn).mean.shape == (1, 3)


def test_exploring_leaves_mode_and_random_state(model):
    model.train()
    before = torch.get_rng_state()
    vaelib.explore(model)
    assert model.training and torch.equal(before, torch.get_rng_state())


def test_jupyter_gets_a_widget_and_a_page(model):
    data, _ = vaelib.explore(model)._repr_mimebundle_()
    assert set(data) == {"application/vnd.jupyter.widget-view+json", "text/html", "text/plain"}
    assert data["text/plain"] == "Explorer"  # no address: two runs store the same bytes
    state = data["text/html"].split('data-state-of="')[1].split(">", 1)[1].split("</script>")[0]
    assert json.loads(json.loads(state)["spec"])["latentDim"] == 3


def test_the_page_has_the_weights_once_for_each_widget_and_asks_for_nothing(model):
    page = vaelib.explore(model).to_html()
    assert page.count("data-weights=") == 2  # the element, and the script that looks for it
    assert "http:" not in page and "https:" not in page and "import " not in page.split("module")[1]


def test_import_of_vaelib_does_not_load_the_widget():
    code = "import sys, vaelib; print('anywidget' in sys.modules, callable(vaelib.explore))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize(
    "layer",
    [
        nn.LSTM(3, 3),
        nn.GELU(approximate="tanh"),
        nn.Softplus(beta=2.0),
        nn.Sequential(nn.Unflatten(1, (3, 1, 1)), nn.Conv2d(3, 3, 1, groups=3)),
        nn.Sequential(nn.Unflatten(1, (3, 1, 1)), nn.Conv2d(3, 3, (1, 3))),
        nn.BatchNorm1d(3, track_running_stats=False),
    ],
)
def test_what_a_page_cannot_run_is_named(model, layer):
    model.decoder = nn.Sequential(layer, *model.decoder)
    named = (layer[-1] if isinstance(layer, nn.Sequential) else layer)._get_name()
    with pytest.raises(ValueError, match=rf"explore cannot run {named}.*expected.*Linear"):
        vaelib.explore(model)


def test_other_refusals_say_what_was_expected(model):
    with pytest.raises(ValueError, match=r"axes is \(0, 3\); expected two different latents"):
        vaelib.explore(model, axes=(0, 3))
    with pytest.raises(ValueError, match="two different"):
        vaelib.explore(model, axes=(1, 1))
    with pytest.raises(ValueError, match=r"replay has shape \[2, 2\]; expected pictures"):
        vaelib.explore(model, replay=torch.zeros(2, 2))
    with pytest.raises(ValueError, match="A weight is 7e.04; expected finite weights up to 65,504"):
        nn.init.constant_(model.decoder[0].bias, 7e4)
        vaelib.explore(model)


def test_models_of_other_likelihoods_and_shapes_are_refused():
    logistic = vaelib.likelihoods.discretized_logistic()
    with pytest.raises(ValueError, match="mean is the decoder's output or the sigmoid"):
        vaelib.explore(vaelib.mlp_vae(2, (8,), likelihood=logistic))
    with pytest.raises(ValueError, match=r"over \[5\]; explore shows images"):
        vaelib.explore(vaelib.mlp_vae(2, (8,), x_shape=(5,)))
    colour = vaelib.mlp_vae(2, (8,), x_shape=(3, 8, 8))
    with pytest.raises(ValueError, match="draw=True needs a Bernoulli model"):
        vaelib.explore(colour, draw=True)
    vaelib.explore(colour)


def test_classes_have_the_colours_of_the_figures():
    script = vaelib.explore(vaelib.mlp_vae(2, (8,)))._esm
    listed = script.split("const COLORS = [")[1].split("]")[0]
    assert re.findall(r'"(#\w+)"', listed) == vaelib.plots.CLASS_COLORS


def test_a_heavy_model_is_told_so_once():
    with pytest.warns(UserWarning, match=r"weighs 1\.7 MB in a page") as caught:
        vaelib.explore(vaelib.mlp_vae(2, (800,)))
    assert [warning.category for warning in caught].count(UserWarning) == 1  # of ours
