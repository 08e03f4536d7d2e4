"""Quantizers: against exact answers, and against vector-quantize-pytorch, written by others.

Statistical tests have fixed seeds and allow 4 standard errors.
"""

import itertools
import math
import os
import tempfile

import pytest
import torch
import torch.distributed as dist
import vector_quantize_pytorch as theirs
from torch.nn import functional as F
from torch.testing import assert_close

from vaelib import quantizers
from vaelib.quantizers import FSQ, ResidualQuantizer, VectorQuantizer, rotated


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
    ours = VectorQuantizer(6, 2, decay=0.5, restart=0.2)
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
    ours = VectorQuantizer(6, 2, decay=0.5, restart=0.1 if restart else 0.0)
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
    still = ours.eval()(z)  # in training the codebook has moved on
    assert torch.equal(still.vector, ours.vectors(still.code))


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


def test_two_levels_share_what_is_around_zero():
    """The library's shift would put 0 far up the flat end of tanh, and all of z into one code."""
    z = torch.randn(4, 500, 1, requires_grad=True)
    found = FSQ((2,))(z)
    assert abs(found.code.double().mean() - 0.5) < 4 * 0.5 / math.sqrt(2_000)
    slope = torch.autograd.grad(found.vector.sum(), z)[0]
    assert slope.mean() > 0.1


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


def test_what_cannot_be_is_refused_with_a_sentence():
    with pytest.raises(ValueError, match="expected sizes of at least 1"):
        VectorQuantizer(0, 3)
    with pytest.raises(ValueError, match="shares from 0 to below 1"):
        VectorQuantizer(4, 3, decay=1.0)
    with pytest.raises(ValueError, match=r"expected \[\.\.\., 3\]"):
        VectorQuantizer(4, 3)(torch.randn(2, 5))
    with pytest.raises(ValueError, match="one size of all"):
        ResidualQuantizer([VectorQuantizer(4, 3), VectorQuantizer(5, 3)])
    with pytest.raises(ValueError, match="at least 2"):
        FSQ((8, 1))
    with pytest.raises(ValueError, match=r"expected \[\.\.\., 2\]"):
        FSQ((8, 5))(torch.randn(2, 3))


def test_a_saved_codebook_comes_back_with_its_averages():
    one, other = VectorQuantizer(8, 3, restart=0.1), VectorQuantizer(8, 3, restart=0.1)
    one(torch.randn(50, 3, requires_grad=True))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.codebook, other.codebook) and torch.equal(one.count, other.count)
    assert not FSQ((8, 8)).state_dict()
