"""Metrics of features and codes against closed forms and slow, independent ways."""

import math

import pytest
import torch
from torch.testing import assert_close

import vaelib
from vaelib.evaluate import (
    digit_net,
    frechet_distance,
    kernel_distance,
    linear_probe,
    nearest_neighbours,
    precision_recall,
)


def with_moments(mean, covariance, n, seed):
    """Points [n, D] whose mean and covariance are the ones given, exactly."""
    x = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(seed)).double()
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov())).T
    return x @ torch.linalg.cholesky(covariance).T + mean


def test_frechet_distance_is_that_of_two_gaussians():
    torch.manual_seed(0)
    a, b = (torch.randn(6, 6).double() for _ in range(2))
    s, t = a @ a.T + torch.eye(6), b @ b.T + torch.eye(6)  # they do not commute
    m, n = torch.randn(6).double(), torch.randn(6).double()
    # The trace of the root of a product is the sum of the roots of its eigenvalues.
    cross = torch.linalg.eigvals(s @ t).real.sqrt().sum()
    exact = (m - n).square().sum() + s.trace() + t.trace() - 2 * cross
    found = frechet_distance(with_moments(m, s, 50, 1), with_moments(n, t, 70, 2))
    assert found == pytest.approx(exact.item(), rel=1e-9)


def test_frechet_distance_of_a_copy_is_zero_and_of_flat_features_finite():
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    flat = torch.cat([x, torch.zeros(40, 60)], 1)
    assert frechet_distance(flat, flat + 1) == pytest.approx(65, rel=1e-6)


def test_kernel_distance_is_the_double_sum():
    a, b = (torch.randn(4, 3, generator=torch.Generator().manual_seed(s)) for s in (0, 1))

    def k(x, y):
        return (float(x @ y) / 3 + 1) ** 3

    pairs = [(i, j) for i in range(4) for j in range(4)]
    within = sum(k(p[i], p[j]) for p in (a, b) for i, j in pairs if i != j) / 12
    between = sum(k(a[i], b[j]) for i, j in pairs) / 16
    values, _ = kernel_distance(torch.cat([a, a]), torch.cat([b, b]), blocks=2)
    assert values == pytest.approx(within - 2 * between, rel=1e-5)


def test_kernel_distance_is_unbiased():
    torch.manual_seed(0)
    mean, error = kernel_distance(torch.randn(4000, 8), torch.randn(4000, 8), blocks=40)
    assert abs(mean) < 4 * error
    shifted, error = kernel_distance(torch.randn(4000, 8) + 0.5, torch.randn(4000, 8), blocks=40)
    assert shifted > 10 * error


def test_precision_and_recall_see_what_they_should():
    torch.manual_seed(0)
    real = torch.randn(500, 4)
    assert precision_recall(real, real.clone()) == pytest.approx(
        {"precision": 1, "recall": 1, "density": 6 / 5, "coverage": 1}, rel=0.1
    )
    other = precision_recall(real, torch.randn(500, 4))
    assert min(other.values()) > 0.8
    one = precision_recall(real, real[:1].expand(500, 4))
    assert one["precision"] == 1
    assert one["recall"] < 0.01
    assert one["coverage"] < 0.05
    far = precision_recall(real, torch.randn(500, 4) + 100)
    assert far == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}
    half = precision_recall(real, real[real[:, 0] > 0])
    assert half["precision"] == 1
    assert half["recall"] < 0.75


def test_precision_and_recall_agree_with_the_definition():
    torch.manual_seed(1)
    real, fake, k = torch.randn(30, 2), torch.randn(20, 2) * 1.5, 3

    def ball(points, i):
        return sorted((points[i] - p).norm().item() for p in points)[k]

    def inside(p, points, i):
        return (p - points[i]).norm().item() <= ball(points, i)

    in_real = [[inside(f, real, i) for i in range(30)] for f in fake]
    expected = {
        "precision": sum(map(any, in_real)) / 20,
        "recall": sum(any(inside(r, fake, j) for j in range(20)) for r in real) / 30,
        "density": sum(map(sum, in_real)) / (k * 20),
        "coverage": sum(any(row[i] for row in in_real) for i in range(30)) / 30,
    }
    assert precision_recall(real, fake, k) == pytest.approx(expected)


@pytest.mark.parametrize("shapes", [((10, 3), (10, 4)), ((10,), (10,)), ((1, 3), (1, 3))])
def test_features_that_do_not_fit_are_refused(shapes):
    a, b = (torch.zeros(shape) for shape in shapes)
    for metric in (frechet_distance, kernel_distance, precision_recall):
        with pytest.raises(ValueError, match=r"expected \[N, D\]"):
            metric(a, b)


def test_probes_know_what_the_codes_know():
    torch.manual_seed(0)
    y = torch.arange(600) % 3
    centres = torch.tensor([[0.0, 0, 0], [8, 0, 0], [0, 8, 0]])
    codes = centres[y] + torch.randn(600, 3)
    sets = (codes[:400], y[:400], codes[400:], y[400:])
    nothing = (torch.randn(400, 3), y[:400], torch.randn(200, 3), y[400:])
    for probe in (linear_probe, nearest_neighbours):
        assert probe(*sets) > 0.99
        assert abs(probe(*nothing) - 1 / 3) < 4 * math.sqrt(2 / 9 / 200)
    ring = torch.randn(600, 2)
    ring_y = (ring.norm(dim=1) > 1.2).long()  # no line divides a ring from its middle
    ring_sets = (ring[:400], ring_y[:400], ring[400:], ring_y[400:])
    assert nearest_neighbours(*ring_sets) > 0.9 > 0.7 > linear_probe(*ring_sets)


def test_linear_probe_finds_the_minimum_of_its_loss():
    torch.manual_seed(0)
    x, y = torch.randn(50, 2).double(), torch.randint(2, (50,))
    z = (x - x.mean(0)) / x.std(0)
    w = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    ones = torch.cat([z, torch.ones(50, 1).double()], 1)
    for _ in range(3000):  # the slow way
        loss = torch.nn.functional.cross_entropy(ones @ w, y) + 1e-3 * w[:2].square().sum() / 2
        (g,) = torch.autograd.grad(loss, w)
        w = (w - 0.5 * g).detach().requires_grad_()
    expected = ((ones @ w).argmax(-1) == y).double().mean().item()
    assert linear_probe(x, y, x, y) == pytest.approx(expected, abs=1e-9)


def test_the_shipped_digit_net_knows_digits():
    _, test = vaelib.data.mnist()
    network, test = digit_net(), test[:2000]
    assert network.features(test).shape == (2000, 64)
    assert network.accuracy(*test) > 0.98
    assert network.accuracy(vaelib.data.binarize(test.x), test.y) > 0.97
    assert_close(network.features(test.x), network.features(test.x / 255))
