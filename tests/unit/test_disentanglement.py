"""Disentanglement scores of codes whose score is known by theory, their biases and refusals."""

import functools
import math
import sys

import numpy as np
import pytest
import torch
from known_codes import (
    CLASSES,
    CODES,
    FACTORS,
    SCALED,
    STRAIGHT,
    every_code,
    grid,
    halves,
    noise,
    of_whole,
)
from scipy import integrate, stats
from torch.distributions import Independent, MultivariateNormal, Normal

from vaelib.disentanglement import factor_information, factor_vae_score, mig, modularity
from vaelib.predictability import dci, explicitness, importance_scores, mcc, sap

few_votes = functools.partial(factor_vae_score, votes=1000, test_votes=1000)

# Codes whose score is known ----------------------------------------------------------------------


def test_a_permuted_and_rescaled_copy_of_the_factors_is_perfect():
    assert mig(STRAIGHT, FACTORS) == pytest.approx(1, abs=1e-12)
    assert modularity(STRAIGHT, FACTORS) == pytest.approx(1, abs=1e-12)
    assert few_votes(STRAIGHT, FACTORS) == 1
    assert mcc(STRAIGHT, FACTORS) == pytest.approx(1, abs=1e-12)
    assert dci(*of_whole(STRAIGHT, FACTORS)) == pytest.approx(
        {"disentanglement": 1, "completeness": 1, "informativeness": 1}, abs=1e-9
    )
    # The second best latent is independent of the factor, so it guesses: 1 of C.
    best = np.mean([1 - 1 / c for c in CLASSES])
    assert sap(*of_whole(STRAIGHT, FACTORS)) == pytest.approx(best, abs=1e-12)


def test_a_little_noise_does_little():
    found = [f(SCALED, FACTORS) for f in (mig, modularity, mcc, few_votes)]
    assert min(found) > 0.98
    assert min(dci(*halves(SCALED, FACTORS)).values()) > 0.99


def test_two_factors_turned_by_45_degrees_are_in_no_latent():
    """a + b and a - b know as much of a as of b, and each as much of a as the other."""
    factors = grid([5, 5], 20)
    a, b = factors.double().T
    codes = torch.stack([a + b, a - b], 1)
    assert mig(codes, factors) == pytest.approx(0, abs=1e-12)
    assert modularity(codes, factors) == pytest.approx(0, abs=1e-12)
    assert mcc(codes, factors) == pytest.approx(math.sqrt(0.5), abs=1e-12)
    assert sap(*of_whole(codes, factors)) == pytest.approx(0, abs=0.01)
    scores = dci(*of_whole(codes, factors))
    assert scores["informativeness"] == 1  # nothing is lost, it only lies askew
    assert scores["disentanglement"] < 0.05
    assert scores["completeness"] < 0.05
    # Both latents move as much whichever is fixed. A latent's majority is right half the time.
    found = factor_vae_score(codes, factors, test_votes=10_000)
    assert found == pytest.approx(0.5, abs=4 * 0.5 / 100)


def test_a_rotated_code_loses_all_but_what_planes_see():
    straight, rotated = CODES["straight"], CODES["rotated"]
    for score in (mig, modularity, mcc, few_votes):
        assert score(rotated, FACTORS) < score(straight, FACTORS) - 0.1
    scores = dci(*halves(rotated, FACTORS))
    assert max(scores["disentanglement"], scores["completeness"]) < 0.3
    assert sap(*halves(rotated, FACTORS)) < 0.2
    same = [explicitness(*halves(c, FACTORS)) for c in (straight, rotated)]
    assert same[0] == pytest.approx(same[1], abs=0.01)


def test_a_factor_in_two_latents_costs_completeness_not_modularity():
    codes = torch.cat([FACTORS, FACTORS[:, :1]], 1).double()  # L = 5
    others = [1 - 1 / c for c in CLASSES[1:]]
    assert mig(codes, FACTORS) == pytest.approx(3 / 4, abs=1e-12)
    assert sap(*of_whole(codes, FACTORS)) == pytest.approx(sum(others) / 4, abs=1e-12)
    assert modularity(codes, FACTORS) == pytest.approx(1, abs=1e-12)
    assert few_votes(codes, FACTORS) == 1
    assert mcc(codes, FACTORS) == pytest.approx(1, abs=1e-12)
    scores = dci(*of_whole(codes, FACTORS))
    assert scores["disentanglement"] == pytest.approx(1, abs=1e-9)
    # The forest's trees share the importance out between the two: log 2 nats of log 5.
    assert scores["completeness"] == pytest.approx(1 - math.log(2) / math.log(5) / 4, abs=0.02)


def test_two_factors_in_one_latent_cost_modularity_not_mig():
    """The other way round: MIG is blind to it, as SAP and completeness are."""
    factors = grid([2, 2], 100)
    a, b = factors.double().T
    codes = torch.stack([2 * a + b, torch.zeros_like(a)], 1)
    assert mig(codes, factors) == pytest.approx(1, abs=1e-12)
    assert modularity(codes, factors) == pytest.approx(0, abs=1e-12)
    scores = dci(*of_whole(codes, factors))
    assert scores["completeness"] == pytest.approx(1, abs=1e-9)
    assert scores["disentanglement"] == pytest.approx(0, abs=1e-9)


def test_a_random_code_scores_as_chance():
    n, classes = 2000, [4, 4, 4, 4]
    draw = torch.Generator().manual_seed(0)
    factors = torch.stack([torch.randint(c, (n,), generator=draw) for c in classes], 1)
    codes = noise(n, 6, seed=5)
    error = math.sqrt(0.25 * 0.75 / 1000)
    scores = dci(*halves(codes, factors))
    assert scores["informativeness"] == pytest.approx(1 / 4, abs=4 * error / 2)  # of four factors
    assert scores["disentanglement"] < 0.01
    assert scores["completeness"] < 0.01
    assert sap(*halves(codes, factors)) < 4 * error
    assert abs(explicitness(*halves(codes, factors))) < 0.05
    assert mcc(codes, factors) < 4 / math.sqrt(n)
    found = factor_vae_score(codes, factors, test_votes=5000)
    assert found == pytest.approx(1 / 4, abs=4 * math.sqrt(0.25 * 0.75 / 5000))


def test_twenty_bins_cap_a_factor_of_forty_values():
    """Locatello's 20 bins see at most log 20 nats of dSprites' 40 orientations: MIG <= 0.81."""
    factors = grid([40, 2], 5)
    codes = factors.double()
    expected = (math.log(20) / math.log(40) + 1) / 2
    assert mig(codes, factors) == pytest.approx(expected, abs=1e-9)
    assert mig(codes, factors, bins=40) == pytest.approx(1, abs=1e-9)


# Bias --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1000, 8000])
def test_information_of_a_random_code_is_chi_square(n):
    """2 N I follows chi-square of (bins - 1)(classes - 1), so the bias is half that over N."""
    draw = torch.Generator().manual_seed(n)
    factors = torch.randint(5, (n, 1), generator=draw)
    codes = torch.rand(n, 100, generator=draw)
    found = 2 * n * factor_information(codes, factors)
    degrees = 19 * 4
    assert found.mean().item() == pytest.approx(
        degrees, rel=4 * math.sqrt(2 / degrees / 100) + 0.03
    )


def test_mig_of_a_random_code_shrinks_as_one_over_n():
    """The lead of the best of ten chi-squares over the second, over 2 N H."""
    rng = np.random.default_rng(0)
    best = np.sort(rng.chisquare(19 * 4, (20_000, 10)), 1)
    lead = (best[:, -1] - best[:, -2]) / (2 * math.log(5))
    for n in (1000, 8000):
        draw = torch.Generator().manual_seed(1)
        factors = torch.randint(5, (n, 60), generator=draw)
        found = n * mig(torch.rand(n, 10, generator=draw), factors)
        assert found == pytest.approx(lead.mean(), abs=4 * lead.std() / math.sqrt(60))


def test_modularity_of_a_random_code_does_not_shrink():
    """Biases go as classes - 1, so with unequal factors a useless code looks modular, at any N."""
    classes, rng = [3, 4, 6, 11], np.random.default_rng(0)
    squared = np.stack([rng.chisquare(19 * (c - 1), 20_000) for c in classes], 1) ** 2
    best = squared.max(1)
    known = (1 - (squared.sum(1) - best) / best / 3).mean()
    assert known > 0.8
    for n in (1000, 8000):
        draw = torch.Generator().manual_seed(2)
        factors = torch.stack([torch.randint(c, (n,), generator=draw) for c in classes], 1)
        assert modularity(torch.rand(n, 50, generator=draw), factors) == pytest.approx(
            known, abs=0.02
        )


def test_information_of_a_posterior_is_that_of_its_mixture():
    """q(z|v) = N(+-1, 0.7): two classes, whose information is an integral."""
    factors = torch.arange(2).repeat(1000)[:, None]
    mean = torch.cat(
        [2.0 * factors - 1, torch.zeros(2000, 1)], 1
    ).double()  # a second knows nothing
    found = factor_information(Independent(Normal(mean, 0.7), 1), factors)

    def integrand(z):
        p, q = stats.norm.pdf(z, [1, -1], 0.7)
        return p * math.log(2 * p / (p + q))

    exact = integrate.quad(integrand, -6, 8)[0]
    # A term lies between log 2 and about -8, with a deviation below 1/2.
    assert found[0, 0].item() == pytest.approx(exact, abs=4 * 0.5 / math.sqrt(2000))
    assert found[1, 0].item() == pytest.approx(0, abs=1e-9)


def test_bias_of_information_of_narrow_posteriors_shrinks_with_n():
    """Each z falls in its own posterior, so at few examples a random code seems to know v."""
    found = []
    for n in (200, 800):
        draw = torch.Generator().manual_seed(3)
        factors = torch.randint(4, (n, 1), generator=draw)
        q = Independent(Normal(torch.randn(n, 10, generator=draw).double(), 0.1), 1)
        found.append(factor_information(q, factors).mean().item())
    assert found[0] > 0.1
    assert found[0] / found[1] == pytest.approx(4, rel=0.25)


# Latents that do not move ------------------------------------------------------------------------


def test_latents_that_do_not_move_change_no_score_of_those_that_do():
    still = torch.full((len(FACTORS), 3), 0.1, dtype=torch.float64)
    codes = torch.cat([CODES["mixed"], still], 1)
    for score in (mig, modularity, mcc, few_votes):
        assert score(codes, FACTORS) == score(CODES["mixed"], FACTORS)


def test_modularity_passes_over_what_rounding_seems_to_know():
    """A latent that does not move may be left 1e-16 nats, whose ratios would count as any."""
    draw = torch.Generator().manual_seed(0)
    for n in range(100, 140):
        factors = torch.stack([torch.randint(c, (n,), generator=draw) for c in (3, 7, 11)], 1)
        codes = torch.cat([noise(n, 2, seed=n), torch.full((n, 1), 0.1)], 1)
        alone = modularity(codes[:, :2], factors)
        assert modularity(codes, factors) == pytest.approx(alone, abs=1e-12)


# Invariance --------------------------------------------------------------------------------------


@every_code
def test_order_sign_and_scale_of_latents_do_not_matter(codes):
    other = codes.flip(1) * torch.tensor([-2.0, 0.01, -300.0, 1.0, -1.0])[: codes.shape[1]] + 5.0
    for score in (mig, modularity, mcc, few_votes):
        assert score(other, FACTORS) == pytest.approx(score(codes, FACTORS), abs=1e-6)
    before, after = halves(codes, FACTORS), halves(other, FACTORS)
    assert sap(*after) == pytest.approx(sap(*before), abs=0.02)  # ties of thresholds
    assert explicitness(*after) == pytest.approx(explicitness(*before), abs=1e-3)
    if codes is CODES["mixed"]:  # the forest draws other rows for other columns, and takes time
        assert dci(*after) == pytest.approx(dci(*before), abs=0.03)


def test_ranks_make_mcc_blind_to_monotone_functions():
    codes = noise(500, 3)
    bent = torch.stack([codes[:, 1].exp(), -(codes[:, 0] ** 3), codes[:, 2].sinh()], 1)
    assert mcc(codes, bent, ranks=True) == pytest.approx(1, abs=1e-12)
    assert mcc(codes, bent) < 0.95


def test_a_seed_gives_the_same_score_and_leaves_the_generator():
    before = torch.get_rng_state()
    q = Independent(Normal(SCALED[:300], 0.1), 1)
    for once in (
        lambda s: factor_vae_score(CODES["mixed"], FACTORS, votes=200, test_votes=200, seed=s),
        lambda s: mig(q, FACTORS[:300], seed=s),
    ):
        assert once(0) == once(0)
        assert once(0) != once(1)
    assert torch.equal(torch.get_rng_state(), before)


# Refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codes", "factors", "says"),
    [
        (torch.zeros(9), grid([3, 3]), r"codes have shape \[9\]; expected \[N, L\]"),
        (torch.full((9, 2), math.nan), grid([3, 3]), "every value finite"),
        (torch.rand(9, 2), grid([3, 3])[:, 0], r"int64 \[9\] for 9 codes; expected int64 \[N, F\]"),
        (torch.rand(9, 2), grid([3, 3]).double(), "float64"),
        (torch.rand(8, 2), grid([3, 3]), "for 8 codes"),
        (torch.rand(9, 2), grid([3, 3]) - 1, "Factor 0 goes from -1 to 1; .* without a label"),
        (torch.rand(3, 2), grid([3, 1]), "Factor 1 goes from 0 to 0; expected two classes"),
    ],
)
def test_what_cannot_be_scored_is_refused(codes, factors, says):
    for score in (mig, modularity, factor_vae_score):
        with pytest.raises(ValueError, match=says):
            score(codes, factors)
    for score in (dci, sap, explicitness):
        with pytest.raises(ValueError, match=says):
            score(codes, factors, codes, factors)


def test_what_one_score_cannot_do_it_says():
    factors, codes = grid([3, 3], 3), torch.rand(27, 2)
    with pytest.raises(ValueError, match="1 latent; expected two or more"):
        mig(codes[:, :1], factors)
    with pytest.raises(ValueError, match="two factors or more"):
        modularity(codes, factors[:, :1])
    with pytest.raises(ValueError, match="a latent that moves"):
        modularity(torch.ones(27, 2), factors)
    with pytest.raises(ValueError, match="0 latents that move"):
        factor_vae_score(torch.ones(27, 2), factors)
    with pytest.raises(ValueError, match="1 examples of the rarest class"):
        factor_vae_score(codes[:9], torch.arange(9)[:, None].expand(9, 2))
    with pytest.raises(ValueError, match="27 codes and 26 others"):
        mcc(codes, codes[:-1])
    with pytest.raises(ValueError, match="Train has 2 latents and 2 factors, test 1 and 2; "):
        sap(codes, factors, codes[:, :1], factors)
    for bad in (torch.zeros(3, 2), -torch.ones(3, 2), torch.ones(3)):
        with pytest.raises(ValueError, match="The importances have shape"):
            importance_scores(bad)
    q = MultivariateNormal(torch.zeros(27, 2), torch.eye(2))
    with pytest.raises(ValueError, match="MultivariateNormal .* expected independent dimensions"):
        mig(q, factors)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        dci(*of_whole(STRAIGHT, FACTORS))
