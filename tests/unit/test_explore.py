"""The explorer without a browser: what it refuses, what Python sees, what a page gets."""

import io
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import traitlets
from kinds import KINDS
from PIL import Image
from torch import nn
from torch.distributions import Independent, Normal
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
    with pytest.raises(ValueError, match="A weight is 7e.04; expected finite numbers up to 65,504"):
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


def test_draw_refuses_what_the_page_would_price_wrongly():
    wide = torch.distributions.Normal(torch.zeros(2), 3 * torch.ones(2))
    with pytest.raises(ValueError, match="draw=True needs the standard prior"):
        vaelib.explore(vaelib.mlp_vae(2, (8,), prior=wide), draw=True)

    def of_chances(chances):
        return torch.distributions.Bernoulli(probs=chances)

    model = vaelib.mlp_vae(2, (8,))
    squashed = nn.Sequential(model.decoder, nn.Sigmoid())
    chances = vaelib.VAE(model.encoder, squashed, 2, likelihood=of_chances)
    with pytest.raises(ValueError, match="whose decoder gives logits"):
        vaelib.explore(chances, draw=True)
    vaelib.explore(chances)


def test_a_layer_that_only_bears_the_name_is_refused(model):
    class Tripled(nn.Linear):
        def forward(self, x):
            return 3 * super().forward(x)

    model.decoder = nn.Sequential(Tripled(3, 3), *model.decoder)
    with pytest.raises(ValueError, match="explore cannot run Tripled"):
        vaelib.explore(model)
    model.decoder = nn.Sequential(nn.Linear(3, 3), *model.decoder[1:])
    model.decoder[0].register_forward_hook(lambda module, inputs, output: 3 * output)
    with pytest.raises(ValueError, match="explore cannot run Linear"):
        vaelib.explore(model)


def test_points_may_be_grey_as_floats_and_have_any_ten_classes(model):
    _, test = vaelib.data.mnist()
    some = test[:20]
    as_floats = vaelib.data.Images(some.x / 255, some.y * 7 - 1)
    specs = [json.loads(vaelib.explore(model, points=p, draw=True).spec) for p in (some, as_floats)]
    assert specs[0]["examples"] == specs[1]["examples"]
    assert specs[1]["points"]["classes"] == sorted(set((some.y * 7 - 1).tolist()))
    assert specs[0]["points"]["y"] == specs[1]["points"]["y"]
    with pytest.raises(ValueError, match="20 classes .* expected up to 10"):
        vaelib.explore(model, points=vaelib.data.Images(some.x, torch.arange(20)))
    with pytest.raises(TypeError, match="points is a Tensor; expected Images, with labels"):
        vaelib.explore(model, points=some.x)


def test_z_takes_only_a_point_of_the_latent_space(model):
    explorer = vaelib.explore(model, axes=torch.tensor([0, 2]))
    for wrong in ([0.0], [0.0, float("nan"), 0.0]):
        with pytest.raises(traitlets.TraitError, match="expected 3 finite numbers"):
            explorer.z = wrong
    explorer.z = [9, 0, 0]


def test_other_dtypes_are_explored(model):
    with_norm = vaelib.mlp_vae(2, (8,)).double()
    with_norm.decoder = nn.Sequential(
        nn.Linear(2, 8), nn.BatchNorm1d(8, affine=False), *with_norm.decoder[2:]
    ).double()
    explorer = vaelib.explore(with_norm, draw=True)
    explorer.drawing = bytes([0, 255] * 392)
    assert with_norm.encode(explorer.drawn).mean.dtype == torch.float64
    _, test = vaelib.data.mnist()
    vaelib.explore(model.bfloat16(), points=test[:5])


def test_pictures_of_any_kind_are_inked_alike():
    grey = torch.tensor([[[-0.01, 0.5, 1.01]]])
    pixels = np.asarray(Image.open(io.BytesIO(vaelib.widget.png(grey))))
    assert pixels.tolist() == [[255, 127, 0]]
    pixels = np.asarray(Image.open(io.BytesIO(vaelib.widget.png((grey * 200).byte()))))
    assert pixels[0, 1] == 155


def test_no_text_of_ours_ends_the_script(model):
    page = vaelib.sliders(
        lambda a: {"dots": {"</script><!--<script>": ([0.0], [a])}},
        title="<!--<script>",
        alt='"<b>',
        x=("x", 0, 1),
        y=("y", 0, 1),
        colors={"</script><!--<script>": "p"},
        start=(0,),
        a=[0.0, 1.0],
    ).to_html()
    assert page.count("<script") == page.count("</script>") == 3 and "<!--" not in page


def test_classes_have_the_colours_of_the_figures():
    script = vaelib.explore(vaelib.mlp_vae(2, (8,)))._esm
    listed = script.split("const COLORS = [")[1].split("]")[0]
    assert re.findall(r'"(#\w+)"', listed) == vaelib.plots.CLASS_COLORS


def test_a_heavy_model_is_told_so_once():
    with pytest.warns(UserWarning, match=r"weighs 1\.7 MB in a page") as caught:
        vaelib.explore(vaelib.mlp_vae(2, (800,)))
    assert [warning.category for warning in caught].count(UserWarning) == 1  # of ours


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("flat", "heavy")])
def test_other_kinds_of_model_are_refused_in_a_sentence(name):
    model = KINDS[name].make()
    with pytest.raises(ValueError, match="explore") as caught:
        vaelib.explore(model)
    if name not in ("tokens", "full_covariance"):  # flat ones, but of no image
        assert "explore decodes a flat z of two or more latents" in str(caught.value)
        assert str(caught.value).count("; expected such a model: ") == 1


class Mine(vaelib.VAE):
    """A model of its own infer and generate, that has a decoder of one flat z."""

    below = False

    def infer(self, x, num_samples=1, noise=None, y=None):
        px_z, latent = super().infer(x, num_samples, noise, y)
        return (px_z, latent, latent) if self.below else (px_z, latent)


def test_an_infer_of_ones_own_is_explored_where_its_z_is_flat(model):
    mine = Mine(model.encoder, model.decoder, 3, x_shape=(1, 28, 28))
    explorer = vaelib.explore(mine)
    explorer.z = [0.5, -1.0, 2.0]
    assert_close(explorer.image, model.decode(torch.tensor([explorer.z])).mean[0])
    mine.below = True
    with pytest.raises(ValueError, match=r"by model.decoder, but this model has 2 latents"):
        vaelib.explore(mine)
    single = vaelib.mlp_vae(1, (8,))
    with pytest.raises(ValueError, match="this one has 1 latent"):
        vaelib.explore(single)


def test_draw_refuses_another_posterior(model):
    laplace = vaelib.mlp_vae(3, (16,), posterior=vaelib.posteriors.laplace)
    with pytest.raises(ValueError, match="draw=True needs the standard prior, and a normal q"):
        vaelib.explore(laplace, draw=True)
    vaelib.explore(laplace)


@pytest.mark.parametrize("name", ["explore", "sliders"])
@pytest.mark.parametrize("first", ["module", "function"])
def test_the_function_and_its_module_go_together(name, first):
    widget = {"explore": "Explorer", "sliders": "Sliders"}[name]
    import_it, use_it = f"from vaelib.{name} import {widget}", f"vaelib.{name}"
    order = [import_it, use_it] if first == "module" else [use_it, import_it]
    call = {
        "explore": "vaelib.explore(vaelib.mlp_vae(2, (4,)))",
        "sliders": (
            "vaelib.sliders(lambda a: {'dots': {'d': ([0.0], [a])}}, title='t', alt='a', "
            "x=('x', 0, 1), y=('y', 0, 1), colors={'d': 'p'}, start=(0,), a=[0.0, 1.0])"
        ),
    }[name]
    code = "; ".join(["import vaelib", *order, f"print(isinstance({call}, {widget}))"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


def test_no_module_calls_what_another_keeps_to_itself():
    files = "estimates evaluate information scores annealing metrics explore sliders widget"
    package = Path(vaelib.__file__).parent
    for name in files.split():
        source = (package / f"{name}.py").read_text(encoding="utf-8")
        assert not re.search(r"(model|VAE\)?)\._[a-z]|import .*\b_[a-z]", source), name


@pytest.mark.parametrize("axes", [(0, 1), (1, 0)])
def test_contours_of_a_normal_are_ellipses_that_hold_their_share(axes):
    """Of radius sqrt(-2 log(1 - share)) in deviations, to a cell of the grid."""
    sigma = torch.tensor([0.5, 1.2])
    p = Independent(Normal(torch.tensor([0.5, -0.5]), sigma), 1)
    model = vaelib.mlp_vae(2, (8,))
    spec = json.loads(vaelib.explore(model, axes=axes, contours={"p": p}).spec)
    (shown,) = spec["contours"]
    assert shown["name"] == "p"
    for region in shown["regions"]:
        (line,) = region["lines"]  # closed
        assert line[0] == line[-1]
        z = (torch.tensor(line)[:, list(axes)] - p.mean) / sigma
        radius = (-2 * math.log(1 - region["percent"] / 100)) ** 0.5
        assert (z.norm(dim=1) - radius).abs().max() < 0.05 / 0.5


def test_contours_are_of_the_plane(model):
    plane = Independent(Normal(torch.zeros(2), 1.0), 1)
    with pytest.raises(ValueError, match="two latents; this one has 3"):
        vaelib.explore(model, contours={"p": plane})
    with pytest.raises(ValueError, match="over \\[3\\]; expected the plane"):
        flat = vaelib.mlp_vae(2, (8,))
        vaelib.explore(flat, contours={"p": Independent(Normal(torch.zeros(3), 1.0), 1)})
