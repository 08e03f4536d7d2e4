"""Muon against torch's own, and against Adam for what is no matrix."""

import copy
import functools

import pytest
import torch
from torch import nn

import vaelib
from vaelib.optimizers import Muon, orthogonalized


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (30, 30)])
def test_orthogonalized_keeps_the_singular_vectors_and_levels_the_values(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape, dtype=torch.float64)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.T @ orthogonalized(matrix[None])[0] @ v.T
    values = inner.diagonal()
    assert ((values > 0.6) & (values < 1.3)).all()
    torch.testing.assert_close(inner, torch.diag(values), rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", [(20, 100), (100, 20), (30, 40), (3, 2, 50)])
def test_orthogonalized_is_its_polynomial_of_each_singular_value(shape):
    """In float32, over four decades of singular values, several matrices at once."""
    torch.manual_seed(0)
    few = min(shape[-2:])
    u, _, v = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
    values = torch.logspace(0, -4, few, dtype=torch.float64)
    matrices = (u * values) @ v
    expected = values / values.norm()
    for _ in range(5):
        expected = 3.4445 * expected - 4.7750 * expected**3 + 2.0315 * expected**5
    found = orthogonalized(matrices.float().reshape(-1, *shape[-2:])).double().view(shape)
    torch.testing.assert_close(found, (u * expected) @ v, rtol=0, atol=1e-3)


def trained(make, steps=20):
    """A small network after some steps: its matrices and its vectors."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(30, 20), nn.Tanh(), nn.Linear(20, 40))
    x, y = torch.randn(64, 30), torch.randn(64, 40)
    matrices = [p for p in net.parameters() if p.dim() == 2]
    vectors = [p for p in net.parameters() if p.dim() != 2]
    optimizers = make(net, matrices, vectors)
    for _ in range(steps):
        net.zero_grad()
        (net(x) - y).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
    return matrices, vectors


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_muon_is_torchs_on_matrices_and_adam_on_the_rest():
    """torch multiplies in bfloat16: 1 % after 20 steps."""
    ours = trained(lambda net, *_: [Muon(net.parameters(), lr=0.01, adam_lr=1e-3)])
    theirs = trained(
        lambda _, matrices, vectors: [
            torch.optim.Muon(matrices, lr=0.01, weight_decay=0.0),
            torch.optim.Adam(vectors, lr=1e-3),
        ]
    )
    start = trained(lambda *_: [])
    for a, b, before in zip(ours[0], theirs[0], start[0], strict=True):
        assert (a - b).norm() < 0.02 * (a - before).norm()
    for a, b, before in zip(ours[1], theirs[1], start[1], strict=True):
        assert (a - b).norm() < 0.02 * (a - before).norm()


def test_muon_without_matrices_is_adam():
    torch.manual_seed(0)
    ours = [torch.randn(5), torch.randn(1, 6, 1, 1), torch.randn(4, 1)]
    theirs = copy.deepcopy(ours)
    a, b = Muon(ours, adam_lr=0.01), torch.optim.Adam(theirs, lr=0.01)
    for seed in range(10):
        torch.manual_seed(seed)
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        a.step()
        b.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q)


def test_a_run_with_muon_resumes_to_the_same_bits(tmp_path):
    """Cut after an epoch of two, against one that was not."""
    x = (torch.rand(64, 8) < 0.5).float()
    fit = functools.partial(vaelib.fit, batch_size=16, optimizer=Muon, ema=0.9)
    runs = []
    for folder, epochs in (("whole", [2]), ("cut", [1, 2])):
        torch.manual_seed(0)
        model = vaelib.mlp_vae(2, (8,), x_shape=(8,))
        for n in epochs:
            fit(model, x, epochs=n, out=tmp_path / folder)
        runs.append(model.state_dict())
    for name, value in runs[0].items():
        assert torch.equal(value, runs[1][name])


def test_a_kernel_moves_as_the_matrix_of_its_filters():
    torch.manual_seed(0)
    kernel, gradient = torch.randn(2, 8, 3, 3, 3)
    matrix = kernel.flatten(1).clone()
    for p, g in ((kernel, gradient), (matrix, gradient.flatten(1))):
        p.grad = g.clone()
        Muon([p]).step()
    torch.testing.assert_close(kernel.flatten(1), matrix)
