"""Rate, distortion and mutual information against Gaussian channels, whose are known."""

import math

import pytest
import torch
from kinds import KINDS
from oracles import Ppca
from torch.distributions import Categorical, Independent, Normal, Uniform
from torch.testing import assert_close

import vaelib
from vaelib.evaluate import active_units, coverage, encoded, information


def test_pca_shares_its_nats_as_the_closed_form_says():
    ppca = Ppca()
    x = ppca.sample(4000)
    found = information(ppca.vae(), x)
    # x given z is a Gaussian channel, and with the exact q the aggregate posterior is the prior.
    signal = torch.eye(2, dtype=torch.float64) + ppca.W.T @ ppca.W / ppca.sigma**2
    exact = 0.5 * torch.logdet(signal).item()
    low, high = found.mutual_information
    assert found.rate == pytest.approx(exact, abs=4 * found.rate_stderr)
    assert low - 0.1 < exact < high + 0.1
    assert low <= high <= found.rate
    assert high - low < 0.1
    assert -0.1 < found.marginal_kl[0] <= found.marginal_kl[1] < 0.1
    noise = Independent(Normal(torch.zeros(5).double(), ppca.sigma), 1).entropy().item()
    assert found.distortion == pytest.approx(noise, abs=4 * found.distortion_stderr)
    assert found.elbo == pytest.approx(ppca.evidence().log_prob(x).mean().item(), abs=0.05)
    assert sum(found.kl_parts) == pytest.approx(found.rate)
    assert found.active_units == 2


def test_a_shifted_posterior_pays_the_marginal_kl():
    ppca = Ppca()
    found = information(ppca.vae(shift=0.5), ppca.sample(4000))
    # The aggregate posterior is N(0.5, I) in place of N(0, I): 2 dimensions of 0.5^2 / 2 nats.
    assert found.marginal_kl[0] - 0.06 < 0.25 < found.marginal_kl[1] + 0.06


def test_the_lower_bound_stops_at_log_n_and_the_upper_does_not():
    ppca = Ppca(num_pixels=8, latent_dim=6, sigma=0.05)
    signal = torch.eye(6, dtype=torch.float64) + ppca.W.T @ ppca.W / ppca.sigma**2
    exact = 0.5 * torch.logdet(signal).item()
    low, high = information(ppca.vae(), ppca.sample(100)).mutual_information
    assert low <= math.log(100) + 1e-9 < exact
    assert high > 0.9 * exact


def test_nothing_told_is_nothing_measured():
    inner = Ppca().vae()
    torch.nn.init.zeros_(inner.encoder.weight)
    found = information(inner, Ppca().sample(500))
    assert found.mutual_information[0] == pytest.approx(0, abs=1e-9)
    assert found.mutual_information[1] == pytest.approx(0, abs=0.02)
    assert found.active_units == 0


def test_active_units_are_those_whose_mean_varies():
    model = Ppca(num_pixels=6, latent_dim=4).vae()
    x = Ppca(num_pixels=6, latent_dim=4).sample(500)
    assert active_units(model, x) == 4
    with torch.no_grad():
        model.encoder.weight[2] = 0  # its mean is the same for every x
    assert active_units(model, x) == 3
    assert active_units(model, x, threshold=1e6) == 0


def test_coverage_is_the_level_where_q_is_the_posterior():
    ppca = Ppca()
    x = ppca.sample(300)
    torch.manual_seed(0)
    z = ppca.posterior(x).sample((100,))
    for level in (0.5, 0.9):
        error = 4 * math.sqrt(level * (1 - level) / 30_000)
        assert coverage(ppca.vae().encode(x), z, level).tolist() == pytest.approx(
            [level] * 2, abs=error
        )
    wide = coverage(ppca.vae(stretch=2.0).encode(x), z, 0.5)
    expected = 2 * Normal(0.0, 1.0).cdf(torch.tensor(2 * 0.67449)).item() - 1
    assert wide.tolist() == pytest.approx([expected] * 2, abs=0.02)


def test_bits_are_drawn_as_log_marginal_draws_them():
    torch.manual_seed(0)
    model = vaelib.mlp_vae(2, (8,), x_shape=(1, 4, 4))
    grey = (torch.rand(60, 1, 4, 4) * 255).to(torch.uint8)
    state = torch.get_rng_state()
    found = information(model, grey, data_seed=3)
    assert found == information(model, vaelib.data.binarize(grey, 3))
    assert found != information(model, grey, data_seed=4)
    assert torch.equal(torch.get_rng_state(), state)


def given(model, y):
    return y if model.labels == "given" else None


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_has_a_rate_and_a_distortion_and_says_what_it_lacks(name):
    kind = KINDS[name]
    model, (x, y) = kind.make(), kind.data(200)
    y = given(model, y)
    found = information(model, x, num_samples=16, y=y)
    torch.manual_seed(1)
    with torch.no_grad():
        other = model(x, 1 if kind.exact else 64, **({} if y is None else {"y": y}))
        elbo = vaelib.elbo(other)
        rate = -other.mean(other.log_pz - other.log_qz_x)
    error = 1e-9 if kind.exact else found.elbo_stderr  # of draws; that of examples is shared
    assert found.elbo == pytest.approx(elbo.mean().item(), abs=error)
    assert found.rate == pytest.approx(rate.mean().item(), abs=4 * found.rate_stderr)
    assert math.isfinite(found.rate_stderr) and math.isfinite(found.distortion_stderr)
    assert (found.kl_parts is None) == (kind.kl is None)
    if kind.kl:
        assert len(found.kl_parts) == kind.kl
        assert sum(found.kl_parts) == pytest.approx(found.rate)
    if len(kind.z_shapes) > 1 or kind.bound or y is not None:
        assert found.mutual_information is found.mutual_information_stderr is None
        assert found.marginal_kl is None
        (note,) = found.notes
        assert note.startswith("Mutual information and marginal KL are left out: ")
        assert note.count(".") == 1
    else:
        low, high = found.mutual_information
        assert 0 <= low <= high <= found.rate and found.notes == []
    assert found.active_units == active_units(model, x, y=y)


@pytest.mark.parametrize("name", ["listed", "drawn"])
def test_a_categorical_code_tells_what_its_probabilities_say(name):
    kind = KINDS[name]
    model, (x, _) = kind.make(solved=True), kind.data(2000)
    found = information(model, x)
    q = Categorical(logits=model.encoder(x).detach())
    told = (q.probs * (q.logits - q.probs.mean(0).log())).sum(-1).mean().item()  # I(i; code)
    low, high = found.mutual_information
    error = 4 * found.mutual_information_stderr
    assert low - error < told < high + error
    assert found.marginal_kl[0] - error < found.rate - told < found.marginal_kl[1] + error


def test_a_code_that_x_names_has_the_entropy_of_its_values():
    model = KINDS["listed"].make(solved=True)
    x = model.table.detach().repeat(25, 1)  # each code's own mean, 25 times
    with torch.no_grad():
        model.encoder.weight *= 1000  # q is sure of it
        model.encoder.bias *= 1000
    low, high = information(model, x).mutual_information
    assert low == pytest.approx(math.log(4), abs=1e-6)
    assert high == pytest.approx(math.log(4), abs=0.05)


def test_a_posterior_without_a_density_elsewhere_is_said():
    class Alone(Normal):
        def log_prob(self, value):
            if len(value) == 100:  # every example's z at once
                raise NotImplementedError
            return super().log_prob(value)

    def alone(parameters):
        mu, log_var = parameters.chunk(2, -1)
        return Alone(mu, (log_var / 2).exp())

    inner = Ppca().vae()
    x = Ppca().sample(100)
    model = vaelib.VAE(inner.encoder, inner.decoder, 2, inner.likelihood, posterior=alone)
    found = information(model, x)
    assert found.mutual_information is None
    assert "no density at the z of other examples" in found.notes[0]

    def uniform(parameters):  # one whose density elsewhere is 0 has it
        mu, _ = parameters.chunk(2, -1)
        return Uniform(mu - 0.01, mu + 0.01)

    model = vaelib.VAE(inner.encoder, inner.decoder, 2, inner.likelihood, posterior=uniform)
    low, high = information(model, x).mutual_information
    assert low == pytest.approx(math.log(100), abs=0.1)
    assert high >= low


def test_the_code_is_that_of_the_latent_that_the_model_names():
    kind = KINDS["top_down"]
    model, (x, _) = kind.make(solved=True), kind.data(30)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert_close(encoded(model, x), model.q2(x).mean)
    model.code = 1
    codes = encoded(model, x)
    assert codes.shape == (30, 3)
    assert torch.equal(codes, encoded(model, x))
    assert torch.equal(torch.get_rng_state(), state)
    assert active_units(model, x) == information(model, x).active_units == 3


def test_a_categorical_code_is_its_probabilities_and_a_point_its_z():
    for name in ("listed", "drawn"):
        model, (x, _) = KINDS[name].make(), KINDS[name].data(600)  # more than a batch
        assert_close(encoded(model, x), model.encoder(x).softmax(-1).detach())
        assert active_units(model, x) == 4
    model = KINDS["quantized"].make()
    codes = encoded(model, x)
    nearest = torch.cdist(model.encoder(x), model.table).argmin(-1, keepdim=True)
    assert_close(codes, nearest.double())


def test_a_code_below_a_listed_one_is_its_mean_over_the_values():
    kind = KINDS["labelled"]
    model, (x, _) = kind.make(solved=True), kind.data(50)
    assert encoded(model, x).shape == (50, 3)
    model.code = 1
    with torch.no_grad():
        draw = model(x, 1)
        expected = (draw.log_weight.exp().unsqueeze(-1) * draw.latents[1].q.mean).sum(0)
    assert_close(encoded(model, x), expected)


def test_labels_reach_the_encoder():
    kind = KINDS["conditional"]
    model, (x, y) = kind.make(solved=True), kind.data(30)
    assert_close(encoded(model, x, y), model.encode(x, y).mean.detach())
    assert_close(encoded(model, vaelib.data.Images(x, y)), encoded(model, x, y))
    assert active_units(model, x, y=y) == 2
    with pytest.raises(ValueError, match='labels = "given"'):
        encoded(model, x)
