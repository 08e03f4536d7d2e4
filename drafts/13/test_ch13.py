"""Chapter 13's quantizers, estimators and prior: against exact answers and other people's code.

Statistical tests have fixed seeds and allow 4 standard errors.
"""

import itertools
import math
import os
import tempfile

import pytest
import torch
import torch.distributed as dist
import vaelib
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from vaelib import evaluate

import estimators
import quantizers
from code_prior import CausalPrior, fit_prior, total_bits
from discrete_vae import (
    CategoricalVAE,
    DrawnVAE,
    FairCodes,
    QuantizedVAE,
    committed,
    every_code,
    oracle,
)
from estimators import DRAWN, leave_one_out
from quantizers import FSQ, ResidualQuantizer, RestartingQuantizer, VectorQuantizer, rotated

theirs = pytest.importorskip("vector_quantize_pytorch")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def gradient(value, z):
    """Of a fixed function of value, so that directions count."""
    weight = torch.linspace(-1, 2, value.numel()).view_as(value).to(value)
    return torch.autograd.grad((weight * value + value.square()).sum(), z)[0]


# Vector quantization -----------------------------------------------------------------------------


def both(V=8, D=3, decay=0.9, rotation=False):
    """Ours and theirs, with the same codes. Their smoothing is switched off by a tiny eps."""
    through = rotated if rotation else quantizers.straight_through
    ours = VectorQuantizer(V, D, decay, through=through)
    other = theirs.VectorQuantize(
        dim=D, codebook_size=V, decay=decay, eps=1e-12, rotation_trick=rotation
    )
    other.codebook = ours.codebook.clone()
    other._codebook.embed_avg.copy_(ours.codebook)
    return ours, other


def test_indices_and_vectors_are_theirs():
    ours, other = both()
    ours.eval(), other.eval()
    z = torch.randn(5, 7, 3)
    found, (vector, code, _) = ours(z), other(z)
    assert torch.equal(found.code, code)
    assert_close(found.vector, vector)
    assert_close(found.commitment, (z - vector).square().sum((1, 2)))


@pytest.mark.parametrize("rotation", [False, True])
def test_gradient_and_commitment_are_theirs(rotation):
    ours, other = both(rotation=rotation)
    z = torch.randn(5, 7, 3, requires_grad=True)
    found, (vector, _, commitment) = ours(z), other(z)
    assert_close(gradient(found.vector, z), gradient(vector, z))
    assert_close(found.commitment.sum(), commitment * z.numel())  # a sum, and a mean
    slopes = [torch.autograd.grad(t, z)[0] for t in (found.commitment.sum(), commitment)]
    assert_close(slopes[0], slopes[1] * z.numel())


def test_the_codebook_after_some_steps_is_theirs():
    ours, other = both(decay=0.8)
    for _ in range(5):
        z = torch.randn(4, 6, 3, requires_grad=True)
        ours(z), other(z)
    assert_close(ours.codebook, other.codebook)
    assert_close(ours.count, other._codebook.cluster_size[0])


@pytest.mark.parametrize("through", [quantizers.straight_through, rotated])
def test_the_vector_is_the_code_to_the_last_bit(through):
    ours = VectorQuantizer(8, 3, through=through).eval()
    z = 100 * torch.randn(50, 3, requires_grad=True)
    found = ours(z)
    assert torch.equal(found.vector, ours.vectors(found.code))
    rounded = z + (found.vector - z).detach()  # the usual way to write it
    assert not torch.equal(rounded, found.vector)


def test_a_rotated_gradient_keeps_its_angle_to_the_code():
    """Its length is scaled by |code| / |z|, so it grows without bound near the origin."""
    z = torch.randn(20, 4, dtype=torch.float64, requires_grad=True)
    vector = torch.randn(20, 4, dtype=torch.float64)
    slope = torch.randn(20, 4, dtype=torch.float64)
    (back,) = torch.autograd.grad((rotated(z, vector) * slope).sum(), z)
    assert_close(F.cosine_similarity(back, z), F.cosine_similarity(slope, vector))
    assert_close(back.norm(dim=1) / slope.norm(dim=1), vector.norm(dim=1) / z.norm(dim=1))


def test_codes_move_in_training_alone_and_only_where_the_encoder_learns():
    ours = VectorQuantizer(8, 3)
    before = ours.codebook.clone()
    ours.eval()(torch.randn(9, 3, requires_grad=True))
    ours.train()(torch.randn(9, 3))
    assert torch.equal(ours.codebook, before)
    ours.train()(torch.randn(9, 3, requires_grad=True))
    assert not torch.equal(ours.codebook, before)


def test_a_code_is_the_mean_of_what_chose_it_and_else_stays():
    ours = VectorQuantizer(3, 2, decay=0.5)
    ours.place(torch.tensor([[0.0, 0.0], [10.0, 0.0], [100.0, 100.0]]))
    z = torch.tensor([[1.0, 1.0], [3.0, -1.0], [10.0, 2.0]], requires_grad=True)
    for _ in range(30):
        ours(z)
    assert_close(ours.codebook[0], torch.tensor([2.0, 0.0]))
    assert_close(ours.codebook[1], torch.tensor([10.0, 2.0]))
    for _ in range(300):  # 0.5^330 has no float32
        ours(z)
    assert_close(ours.codebook[2], torch.tensor([100.0, 100.0]))


def test_counts_that_begin_at_zero_throw_unused_codes_away():
    """As in a notebook much copied: count 0, sums unlike the codes, smoothing by 1e-5."""
    V, decay, eps = 512, 0.99, 1e-5
    count, total = torch.zeros(V), torch.randn(V, 16)
    n = 256 * 64
    chosen = torch.zeros(V)
    chosen[:50] = n / 50  # the other 462 are not chosen by the first batch
    count = decay * count + (1 - decay) * chosen
    count = (count + eps) / (count.sum() + V * eps) * count.sum()
    codebook = decay * total / count.unsqueeze(1)
    assert codebook[50:].norm(dim=1).min() > 1e4
    ours = VectorQuantizer(V, 16)
    before = ours.codebook.clone()
    ours(before[:50].repeat(10, 1).requires_grad_())
    assert_close(ours.codebook[50:], before[50:])


def test_dead_codes_begin_anew_at_vectors_of_the_batch():
    ours = RestartingQuantizer(6, 2, decay=0.5, share=0.2)
    far = torch.full((3, 2), 1000.0) + torch.arange(3.0)[:, None]
    near = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    ours.place(torch.cat([near, far]))
    z = (near.repeat(20, 1) + 0.1 * torch.randn(60, 2)).requires_grad_()
    for _ in range(3):
        ours(z)
    assert (ours.codebook.norm(dim=1) < 10).all()
    assert (torch.cdist(ours.codebook[:3], near).diagonal() < 0.1).all()
    apart = torch.cdist(ours.codebook[3:], z.detach()).amin(1)
    assert (apart < 0.5).all()
    assert (ours.count > 0.2 * ours.count.mean()).all()  # and not dead again at once
    assert_close(ours.codebook, ours.total / ours.count.unsqueeze(1))


def test_start_at_takes_each_vector_once():
    ours, z = VectorQuantizer(8, 2), torch.randn(2, 4, 2)
    ours.start_at(z)
    assert_close(ours.codebook.sort(0).values, z.flatten(0, 1).sort(0).values)
    assert len(ours.eval()(z).code.unique()) == 8


def _in_a_process(rank, folder, z, restart):
    """One of two, each with half of the batch; forked, so that nothing is imported anew."""
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    torch.manual_seed(rank)
    kind = RestartingQuantizer if restart else VectorQuantizer
    ours = kind(6, 2, decay=0.5)
    ours.place(torch.arange(12.0).view(6, 2) / 4)
    for part in z.chunk(3):
        ours(part.chunk(2)[rank].clone().requires_grad_())
    torch.save(ours.codebook, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("restart", [False, True])
def test_two_processes_have_the_codebook_of_one(restart):
    z = torch.randn(60, 2)
    with tempfile.TemporaryDirectory() as folder:
        children = []
        for rank in range(2):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    _in_a_process(rank, folder, z, restart)
                    code = 0
                finally:
                    os._exit(code)
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
        one, two = [torch.load(f"{folder}/{rank}.pt") for rank in range(2)]
    assert torch.equal(one, two)
    if not restart:
        alone = VectorQuantizer(6, 2, decay=0.5)
        alone.place(torch.arange(12.0).view(6, 2) / 4)
        for part in z.chunk(3):
            alone(part.clone().requires_grad_())
        assert_close(one, alone.codebook)


# Residual and finite scalar quantization ---------------------------------------------------------


def both_residual(L=3, V=5, D=3):
    ours = ResidualQuantizer([VectorQuantizer(V, D, decay=0.8) for _ in range(L)])
    other = theirs.ResidualVQ(
        dim=D, codebook_size=V, num_quantizers=L, decay=0.8, eps=1e-12, rotation_trick=False
    )
    for part, layer in zip(ours.parts, other.layers):
        layer.codebook = part.codebook.clone()
        layer._codebook.embed_avg.copy_(part.codebook)
    return ours, other


def test_residual_codes_vectors_and_codebooks_are_theirs():
    ours, other = both_residual()
    for _ in range(4):
        z = torch.randn(4, 6, 3, requires_grad=True)
        found, (vector, code, commitment) = ours(z), other(z)
        assert torch.equal(found.code, code)
        assert_close(found.vector, vector)
        assert_close(found.commitment.sum(), commitment.sum() * z.numel())
    for part, layer in zip(ours.parts, other.layers):
        assert_close(part.codebook, layer.codebook)
    assert torch.equal(found.vector, ours_before_update(found, ours, z))


def ours_before_update(found, ours, z):
    """In eval mode, where the codebook keeps still, vectors(code) is the vector."""
    again = ours.eval()(z)
    assert torch.equal(again.vector, ours.vectors(again.code))
    return found.vector


def test_a_residual_gradient_counts_once_and_theirs_once_a_level():
    ours, other = both_residual(L=3)
    z = torch.randn(4, 6, 3, requires_grad=True)
    one = torch.autograd.grad(ours(z).vector.sum(), z)[0]
    several = torch.autograd.grad(other(z)[0].sum(), z)[0]
    assert_close(one, torch.ones_like(z))
    assert_close(several, 3 * torch.ones_like(z))


def test_more_levels_come_nearer():
    ours = ResidualQuantizer([VectorQuantizer(32, 2) for _ in range(4)])
    z = torch.randn(500, 2)
    ours.start_at(z)
    code = ours.eval()(z).code
    errors = [(z - ours.vectors(code[:, :n])).square().mean() for n in range(1, 5)]
    assert all(b < a for a, b in itertools.pairwise(errors))


@pytest.mark.parametrize("levels", [(5,), (8, 5, 5), (8, 8, 8), (3, 4, 7, 6)])
def test_fsq_is_theirs(levels):
    ours, other = FSQ(levels), theirs.FSQ(list(levels))
    z = (3 * torch.randn(4, 50, len(levels))).requires_grad_()
    found, (vector, code) = ours(z), other(z)
    assert torch.equal(found.code, code.long())
    assert_close(found.vector, vector)
    assert_close(gradient(found.vector, z), gradient(vector, z))


@pytest.mark.parametrize("levels", [(5,), (8, 5, 5), (2, 3)])
def test_fsq_has_as_many_codes_as_its_levels_multiply_to(levels):
    ours = FSQ(levels)
    assert ours.codebook_size == math.prod(levels)
    grid = torch.cartesian_prod(*[torch.linspace(-6, 6, 241)] * len(levels))
    grid = grid.view(-1, len(levels))
    if len(levels) == 3:
        grid = 6 * torch.rand(200_000, 3) * torch.randn(3).sign() - 3
        grid = torch.cat([grid, 4 * torch.randn(200_000, 3)])
    code = ours(grid.unsqueeze(0)).code
    assert len(code.unique()) == ours.codebook_size
    every = torch.arange(ours.codebook_size)
    assert len(ours.vectors(every).unique(dim=0)) == ours.codebook_size
    assert ours.vectors(every).abs().max() <= 1


# Perplexity --------------------------------------------------------------------------------------


def test_perplexity_is_the_number_of_codes_that_share_evenly():
    assert math.isclose(quantizers.perplexity(torch.tensor([5, 5, 0, 5])), 3, rel_tol=1e-6)


@pytest.mark.parametrize("n", [49, 512, 6272])
def test_a_batch_shows_fewer_codes_than_are_in_use(n):
    """Of 512 codes in perfectly fair use; the closed form, and 400 batches."""
    log = torch.stack(
        [
            quantizers.perplexity(quantizers.usage(torch.randint(512, (n,)), 512)).log()
            for _ in range(400)
        ]
    )
    closed = math.log(quantizers.perplexity_of_fair_codes(512, n))
    assert abs(log.mean() - closed) < 4 * log.std() / math.sqrt(len(log))
    assert closed < math.log(min(n, 512))


def test_the_shortfall_is_v_less_one_over_2n_in_large_batches():
    """Miller's correction (1955): what a batch lacks of the entropy."""
    for n in (5_000, 50_000):
        lacks = math.log(512 / quantizers.perplexity_of_fair_codes(512, n))
        assert math.isclose(lacks, 511 / (2 * n), rel_tol=0.1)


def test_the_whole_sets_perplexity_exceeds_the_batches_mean():
    """Entropy is concave, whatever the usage: images of a batch share codes."""
    code = torch.randint(512, (200, 1)) + torch.randint(40, (200, 49))
    counts = torch.stack([quantizers.usage(c % 512, 512) for c in code.split(10)])
    each = torch.stack([quantizers.perplexity(c) for c in counts])
    assert quantizers.perplexity(counts.sum(0)) > each.max()


# The models --------------------------------------------------------------------------------------


def encoder(D):
    """Its last layer is wide enough for a rounding to have something to round."""
    last = nn.Conv2d(8, D, 4, 2, 1)
    nn.init.normal_(last.weight, std=0.5)
    return nn.Sequential(nn.Conv2d(1, 8, 4, 2, 1), nn.SiLU(), last)


def decoder(D):
    return nn.Sequential(
        nn.ConvTranspose2d(D, 8, 4, 2, 1), nn.SiLU(), nn.ConvTranspose2d(8, 1, 4, 2, 1)
    )


def quantized(quantizer, D, shape=(2, 2), prior=FairCodes):
    prior = prior(shape, quantizer.codebook_size)
    return QuantizedVAE(encoder(D), quantizer, decoder(D), prior, x_shape=(1, 8, 8))


def categorical(how, N=2, V=3, temperature=1.0):
    parts = nn.Sequential(nn.Flatten(), nn.Linear(64, N * V))
    back = nn.Sequential(nn.Linear(N * V, 64), nn.Unflatten(1, (1, 8, 8)))
    if how == "listed":
        return CategoricalVAE(parts, back, N, V)
    return DrawnVAE(parts, back, N, V, how=how, temperature=temperature)


def small_prior(shape, V):
    return CausalPrior(shape, V, width=16, num_layers=1, num_heads=2)


KINDS = {
    "vq": (lambda: quantized(VectorQuantizer(16, 4), 4), committed),
    "vq, elbo alone": (lambda: quantized(VectorQuantizer(16, 4), 4), vaelib.elbo),
    "vq, rotated, restarted": (
        lambda: quantized(RestartingQuantizer(16, 4, through=rotated), 4), committed),
    "vq, causal prior": (
        lambda: quantized(VectorQuantizer(16, 4), 4, prior=small_prior), committed),
    "residual": (
        lambda: quantized(
            ResidualQuantizer([VectorQuantizer(8, 4), VectorQuantizer(8, 4)]), 4, (2, 2, 2)),
        committed),
    "fsq": (lambda: quantized(FSQ((4, 3, 3)), 3), vaelib.elbo),
    "listed": (lambda: categorical("listed"), vaelib.elbo),
    "leave one out": (lambda: categorical("plain"), leave_one_out),
}  # fmt: skip
for drawn in DRAWN:
    if drawn != "plain":
        KINDS[drawn] = (lambda how=drawn: categorical(how), vaelib.elbo)


def bits(n=32):
    return (torch.rand(n, 1, 8, 8) < 0.4).float()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_keeps_the_contract(kind):
    build, objective = KINDS[kind]
    vaelib.check_model(build(), bits(), objective=objective)


def test_draws_without_a_gradient_are_refused_under_the_elbo():
    with pytest.raises(ValueError, match="would teach q nothing"):
        vaelib.check_model(categorical("plain"), bits())
    with pytest.raises(ValueError, match="taught twice"):
        leave_one_out(categorical("ReinMax").draw(bits(), 2))


def test_an_fsq_whose_encoder_whispers_sends_zeros():
    """All rounds to the middle: the decoder's first weights see nothing. check_model says it."""
    model = quantized(FSQ((5, 5, 5)), 3)
    nn.init.normal_(model.encoder[-1].weight, std=1e-3)
    nn.init.zeros_(model.encoder[-1].bias)
    assert (model.quantize(bits()).vector == 0).all()
    with pytest.raises(ValueError, match="no gradient reached the model's decoder"):
        vaelib.check_model(model, bits())


@torch.no_grad()
def test_a_points_estimate_is_a_bound_and_the_gap_is_its_log_posterior():
    """Three codes at four places: all 81 maps."""
    model, x = quantized(VectorQuantizer(3, 4), 4, prior=small_prior).eval(), bits(6)
    nn.init.normal_(model.prior.head.weight)
    maps = torch.cartesian_prod(*[torch.arange(3)] * 4).view(-1, 2, 2)
    px_z = model.px_z(model.quantizer.vectors(maps))
    log_px_z = torch.stack([px_z.log_prob(one) for one in x], 1)
    log_joint = log_px_z + model.prior().log_prob(maps)[:, None]
    exact = log_joint.logsumexp(0)
    draw = model.draw(x)
    place = (maps == draw.qz_x.code[:, None]).flatten(2).all(-1).int().argmax(1)
    posterior = log_joint.log_softmax(0)[place, torch.arange(6)]
    assert_close(vaelib.elbo(draw), exact + posterior)
    many = model.draw(x, 50)
    assert_close(vaelib.iwae(many), vaelib.elbo(draw))  # more draws of a point are the same one
    assert draw.is_bound and vaelib.log_marginal(model, x, 10).bound
    found = total_bits(model, x, 4)
    assert (found["total"] * math.log(2) >= -exact).all()
    assert_close(found["total"].float() * math.log(2), -vaelib.elbo(draw))


@torch.no_grad()
def test_a_listed_models_estimate_is_log_px_itself():
    model, x = categorical("listed"), bits(5)
    nn.init.normal_(model.logits)
    exact = torch.full((5,), -math.inf)
    log_prior = model.logits.log_softmax(-1)
    for i, j in itertools.product(range(3), repeat=2):
        rows = torch.zeros(1, 2, 3)
        rows[0, 0, i] = rows[0, 1, j] = 1
        logits = model.decoder(rows.flatten(1))
        log_px_z = -F.binary_cross_entropy_with_logits(
            logits.expand(5, -1, -1, -1), x, reduction="none"
        ).sum((1, 2, 3))
        exact = torch.logaddexp(exact, log_px_z + log_prior[0, i] + log_prior[1, j])
    assert_close(vaelib.iwae(model.draw(x)), exact)
    estimate = vaelib.log_marginal(model, x)
    assert_close(estimate.values.float(), exact)


def test_a_point_has_all_its_probability_on_its_own_map():
    model = quantized(VectorQuantizer(16, 4), 4).eval()
    q = model.encode(bits(3))
    other = q.code.clone()
    other[1, 0, 1] = (other[1, 0, 1] + 1) % 16  # one place of one map
    assert q.log_prob(q.code[None]).tolist() == [[0, 0, 0]]
    assert q.log_prob(other[None]).tolist() == [[0, -math.inf, 0]]


def test_probes_read_a_points_vectors_and_not_its_numbers():
    model, x = quantized(VectorQuantizer(16, 4), 4).eval(), bits(5)
    assert_close(evaluate.encoded(model, x), model.quantize(x).vector.detach().flatten(1))


def test_fit_moves_the_codebook_and_a_frozen_encoder_keeps_it():
    model, x = quantized(VectorQuantizer(16, 4), 4, prior=small_prior), bits(64)
    model.quantizer.start_at(model.quantize(x).vector)
    settings = {"epochs": 2, "batch_size": 16, "objective": committed}
    before = model.quantizer.codebook.clone()
    vaelib.fit(model, x, **settings)
    assert not torch.equal(model.quantizer.codebook, before)
    before = model.quantizer.codebook.clone()
    model.requires_grad_(False)
    model.prior.requires_grad_(True)
    vaelib.fit(model, x, **settings)
    assert torch.equal(model.quantizer.codebook, before)


# Estimators --------------------------------------------------------------------------------------


def small(B=3, hidden=0):
    """A model of nine codes, and data; its q is neither fair nor sure."""
    return oracle(0, N=2, V=3, B=B, hidden=hidden, scale=0.3 if hidden == 0 else 1.0)


def test_the_exact_gradient_is_the_listed_elbos():
    """Of the ELBO less its KL, by autograd through the encoder's last layer, and by differences."""
    model, x = small()
    logits = model.posterior_logits(x).detach().requires_grad_()
    draw = model.draw(x)
    told = torch.autograd.grad((vaelib.elbo(draw) + draw.kl).sum(), model.encoder[1].bias)[0]
    exact = estimators.exact_gradient(model, x, logits)
    assert_close(exact.sum(0).flatten(), told)

    def expected(logits):
        z = every_code(2, 3).to(logits).expand(-1, len(x), -1, -1)
        weight = (z * logits.log_softmax(-1)).sum((-2, -1)).exp()
        return (weight * model.px_z(z).log_prob(x)).sum()

    with torch.no_grad():
        for place in ((0, 0, 0), (2, 1, 2)):
            step = torch.zeros_like(exact)
            step[place] = 1e-5
            slope = (expected(logits + step) - expected(logits - step)) / 2e-5
            assert math.isclose(slope, exact[place], rel_tol=1e-6)


@pytest.mark.parametrize("K", [2, 4])
def test_leave_one_out_has_no_bias(K):
    model, x = small()
    logits = model.posterior_logits(x).detach()
    found = estimators.drawn_gradients(model, x, logits, "plain", 20_000, K)
    error = found.std(0) / math.sqrt(len(found))
    exact = estimators.exact_gradient(model, x, logits)
    assert ((found.mean(0) - exact).abs() < 4 * error + 1e-9).all()


def test_leave_one_out_as_an_objective_is_the_same():
    """Its gradient in the encoder's bias, over many draws, is the ELBO's, KL and all."""
    model, x = small(B=1)
    told = torch.autograd.grad(vaelib.elbo(model.draw(x)).sum(), model.encoder[1].bias)[0]
    drawn = DrawnVAE(model.encoder, model.decoder, 2, 3, how="plain").double()
    drawn.logits = model.logits
    many = x.expand(20_000, -1, -1, -1)
    logits = model.posterior_logits(many).detach().requires_grad_()
    drawn.posterior_logits = lambda x: logits
    value = leave_one_out(drawn.draw(many, 2))
    found = torch.autograd.grad(value.sum(), logits)[0].flatten(1)
    error = found.std(0) / math.sqrt(len(found))
    assert ((found.mean(0) - told).abs() < 4 * error + 1e-9).all()


def expectation(monkeypatch, f, logits, how):
    """An estimator's expected gradient, exactly: of each one-hot z [V] in turn."""
    expected = torch.zeros_like(logits)
    for value in range(len(logits)):
        hard = F.one_hot(torch.tensor(value), len(logits)).to(logits)
        monkeypatch.setattr(estimators, "one_hot_sample", lambda logits, hard=hard: hard)
        at = logits.clone().requires_grad_()
        (slope,) = torch.autograd.grad(f(DRAWN[how](at)), at)
        expected += logits.softmax(-1)[value] * slope
    return expected


def exactly(f, logits):
    at = logits.clone().requires_grad_()
    values = torch.stack([f(row) for row in torch.eye(len(logits)).to(logits)])
    return torch.autograd.grad((at.softmax(-1) * values.detach()).sum(), at)[0]


@pytest.mark.parametrize("V", [2, 5])
def test_reinmax_is_exact_for_a_quadratic(V, monkeypatch):
    """Straight-through is for a linear f alone; neither is for a cubic one."""
    a, b = torch.randn(V).double(), torch.randn(V, V).double()
    logits = torch.randn(V).double()
    off = {}
    for degree in "123":

        def f(z, degree=degree):
            quadratic = (degree > "1") * (z @ b @ z)
            return a @ z + quadratic + (degree > "2") * (a @ z) ** 3

        for how in ("straight-through", "ReinMax"):
            gap = expectation(monkeypatch, f, logits, how) - exactly(f, logits)
            off[how, degree] = gap.norm()
    assert off["straight-through", "1"] < 1e-12 and off["ReinMax", "1"] < 1e-12
    assert off["straight-through", "2"] > 1e-2 and off["ReinMax", "2"] < 1e-12
    assert off["ReinMax", "3"] > 1e-3


def test_reinmax_is_its_authors(monkeypatch):
    authors = pytest.importorskip("reinmax")
    logits = torch.randn(40, 6, dtype=torch.float64)
    for temperature in (1.0, 1.5):
        slopes = []
        theirs_at = logits.clone().requires_grad_()
        hard, _ = authors.reinmax(theirs_at, temperature)
        slopes.append(gradient(hard, theirs_at))
        chosen = hard.detach()
        monkeypatch.setattr(estimators, "one_hot_sample", lambda logits, chosen=chosen: chosen)
        ours_at = logits.clone().requires_grad_()
        slopes.append(gradient(estimators.reinmax(ours_at, temperature), ours_at))
        assert_close(*slopes)


@pytest.mark.parametrize("hard", [False, True])
def test_gumbel_softmax_is_torchs(hard):
    logits = torch.randn(30, 5, requires_grad=True)
    ours = estimators.straight_through_gumbel if hard else estimators.gumbel_softmax
    torch.manual_seed(1)
    mine = ours(logits, 0.7)
    torch.manual_seed(1)
    torchs = F.gumbel_softmax(logits, 0.7, hard)
    assert_close(mine, torchs)
    assert_close(gradient(mine, logits), gradient(torchs, logits))


@pytest.mark.parametrize("how", [h for h in DRAWN if h not in ("argmax", "Gumbel-softmax")])
def test_what_is_drawn_has_the_softmaxs_frequencies(how):
    logits = torch.randn(4)
    z = DRAWN[how](logits.expand(20_000, -1), 0.5)
    p = logits.softmax(-1)
    error = (p * (1 - p) / len(z)).sqrt()
    assert ((z.mean(0) - p).abs() < 4 * error).all()
    assert set(z.unique().tolist()) == {0.0, 1.0}  # to the last bit


def test_the_table_finds_no_bias_in_leave_one_out_and_some_in_the_others():
    model, x = small()
    roster = (("plain", 2, 1.0), ("plain", 4, 1.0), ("straight-through", 1, 1.0),
              ("argmax", 1, 1.0), ("ReinMax", 1, 1.0))  # fmt: skip
    rows = estimators.estimator_table(model, x, 20_000, roster)
    two, four, through, still, second = rows
    assert two["bias"] < 3 * two["chance"] and four["bias"] < 3 * four["chance"]
    assert four["deviation"] < two["deviation"]
    assert still["deviation"] == 0 and still["bias"] > through["bias"]
    assert second["bias"] < through["bias"]
    assert two["cosine of the mean"] > 0.99


def test_reinmax_owes_its_small_bias_to_a_nearly_quadratic_problem():
    """With a linear decoder it has a tenth of straight-through's, with a bent one far more."""
    bias = {}
    for hidden in (0, 32):
        model, x = small(hidden=hidden)
        roster = (("straight-through", 1, 1.0), ("ReinMax", 1, 1.0))
        first, second = estimators.estimator_table(model, x, 10_000, roster)
        bias[hidden] = second["bias"] / first["bias"]
    assert bias[0] < 0.2 < bias[32]


def test_a_nearest_code_made_soft_has_an_exact_gradient():
    codebook, z = torch.randn(6, 2).double(), torch.randn(4, 2).double()

    def f(code):
        return (code - 1).square().sum(-1)

    exact = estimators.soft_exact(f, z, codebook, 0.5)

    def expected(z):
        square = torch.cdist(z, codebook).square()
        return ((-square / 0.5).softmax(-1) * f(codebook)).sum()

    step = torch.zeros_like(z)
    step[1, 0] = 1e-5
    slope = (expected(z + step) - expected(z - step)) / 2e-5
    assert math.isclose(slope, exact[1, 0], rel_tol=1e-5)


# The prior ---------------------------------------------------------------------------------------


def lively_prior(shape=(2, 3), V=4):
    prior = small_prior(shape, V).double()
    for p in prior.parameters():
        if p.dim() > 1:
            nn.init.normal_(p, std=0.5)
    return prior


def test_it_reads_codes_before_a_place_and_none_after():
    prior = lively_prior((3, 3))
    seen = torch.randn(1, 8, 16, dtype=torch.float64, requires_grad=True)
    logits = prior.next_logits(seen)
    assert logits.shape == (1, 9, 4)
    for place in range(9):
        slope = torch.autograd.grad(logits[0, place].square().sum(), seen, retain_graph=True)[0][0]
        heard = (slope.abs().sum(-1) > 0).tolist()
        assert heard == [before < place for before in range(8)]


@torch.no_grad()
def test_it_sums_to_one_and_its_samples_follow_it():
    """Two codes on a map of 2 x 2: all 16."""
    prior = lively_prior((2, 2), V=2)
    maps = torch.cartesian_prod(*[torch.arange(2)] * 4).view(-1, 2, 2)
    p = prior().log_prob(maps).exp()
    assert math.isclose(p.sum(), 1, rel_tol=1e-9) and p.max() > 2 * p.min()
    drawn = prior().sample((100, 200)).view(-1, 4)
    number = (drawn * torch.tensor([8, 4, 2, 1])).sum(1)
    share = number.bincount(minlength=16) / len(number)
    assert ((share - p).abs() < 4 * (p * (1 - p) / len(number)).sqrt() + 1e-9).all()
    assert_close(prior().log_prob(maps.view(4, 4, 2, 2)), p.log().view(4, 4))


def test_it_begins_with_fair_codes():
    prior = CausalPrior((7, 7), 512, width=16, num_layers=1)
    code = torch.randint(512, (3, 7, 7))
    assert_close(-prior().log_prob(code), torch.full((3,), 49 * math.log(512)))


def test_it_learns_a_chain_down_to_its_entropy():
    """Codes that stay with chance 0.8, else go to one of three others: known to the nat."""
    stay, V, T = 0.8, 4, 9
    code = torch.randint(V, (2_200, 1))
    for _ in range(T - 1):
        moved = (code[:, -1:] + torch.randint(1, V, (2_200, 1))) % V
        kept = torch.rand(2_200, 1) < stay
        code = torch.cat([code, torch.where(kept, code[:, -1:], moved)], 1)
    code = code.view(-1, 3, 3)
    a_step = -stay * math.log(stay) - (1 - stay) * math.log((1 - stay) / 3)
    entropy = math.log(V) + (T - 1) * a_step
    prior = CausalPrior((3, 3), V, width=32, num_layers=1, num_heads=2)
    fit_prior(prior, code[:2_000], epochs=8, batch_size=100, lr=1e-2)
    with torch.no_grad():
        nats = -prior().log_prob(code[2_000:])
    error = nats.std() / math.sqrt(len(nats))
    assert entropy - 4 * error < nats.mean() < entropy + 0.3 + 4 * error
    assert nats.mean() < 0.8 * T * math.log(V)  # what the shares of the codes alone would cost
