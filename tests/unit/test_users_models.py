"""Models of people's own, each tried as they would try it: parts, a `draw`, what a file keeps."""

import pytest
import torch
from small import grey, small
from torch import nn

import vaelib


def test_a_decoder_that_wants_a_feature_map_gets_the_way_out():
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 16))
    wants = nn.Sequential(nn.ConvTranspose2d(2, 1, 2, stride=2))
    with pytest.raises(ValueError, match=r"decoder failed on z of shape .*nn.Unflatten\(1, "):
        vaelib.fit(vaelib.VAE(encoder, wants, 8), grey(), epochs=1)
    spatial = nn.Sequential(nn.Unflatten(1, (2, 2, 2)), *wants)
    vaelib.fit(vaelib.VAE(encoder, spatial, 8), grey(), epochs=1)


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


@pytest.mark.slow
@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"posterior": vaelib.posteriors.laplace},
        {"prior": vaelib.priors.FlowPrior(2, hidden=4, num_layers=2)},
        {"likelihood": vaelib.gaussian(0.5)},
        {"posterior": vaelib.posteriors.full_covariance},
        {"posterior": vaelib.posteriors.CouplingFlow(2, context_dim=3)},
        {"posterior": vaelib.posteriors.AutoregressiveFlow(2, context_dim=3)},
        {"posterior": vaelib.posteriors.NormalMixture(3)},
    ],
    ids=[
        "plain",
        "posterior",
        "prior",
        "likelihood",
        "full covariance",
        "coupling",
        "autoregressive",
        "mixture",
    ],
)
def test_the_losses_compile_to_one_graph(parts):
    """A break would cost a tenth of a step, and a resumed run its bits."""
    model = small(**parts).train()
    noise = None if model.noise_dim is None else torch.randn(1, 8, 2)
    x = (torch.rand(8, 1, 4, 4) < 0.5).float()
    losses = vaelib.losses.Losses(model, vaelib.elbo, 1)
    assert torch._dynamo.explain(losses)(x, noise, None, None).graph_break_count == 0


# What runs and files say of a model --------------------------------------------------------------


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


# What is returned in another form ----------------------------------------------------------------


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
