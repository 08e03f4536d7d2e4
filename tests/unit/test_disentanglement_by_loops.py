"""Disentanglement scores against a second way to compute them, which shares no code with vaelib.

Loops over the papers' formulas in NumPy.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from known_codes import CLASSES, CODES, FACTORS, SCALED, every_code, halves, noise
from scipy import stats
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from torch.distributions import Independent, Normal

from vaelib.disentanglement import factor_information, factor_vae_score, mig, modularity
from vaelib.predictability import dci, explicitness, importance_scores, mcc, sap


def information_by_loops(codes, factors, bins=20):
    """Sum of p log(p / (p q)) over cells that np.histogram cuts: [L, F]."""
    codes, factors = np.asarray(codes), np.asarray(factors)
    n, table = len(codes), np.zeros((codes.shape[1], factors.shape[1]))
    for i, k in np.ndindex(*table.shape):
        edges = np.histogram_bin_edges(codes[:, i], bins)
        cell = np.digitize(codes[:, i], edges[1:-1])
        for b, c in itertools.product(range(bins), set(factors[:, k].tolist())):
            both = ((cell == b) & (factors[:, k] == c)).sum() / n
            if both:
                apart = (cell == b).mean() * (factors[:, k] == c).mean()
                table[i, k] += both * math.log(both / apart)
    return table


@every_code
def test_scores_of_information_are_those_of_the_papers(codes):
    table = information_by_loops(codes, FACTORS)
    assert factor_information(codes, FACTORS).numpy() == pytest.approx(table, abs=1e-12)
    gaps = [
        (sorted(table[:, k])[-1] - sorted(table[:, k])[-2]) / math.log(c)
        for k, c in enumerate(CLASSES)
    ]
    assert mig(codes, FACTORS) == pytest.approx(np.mean(gaps), abs=1e-12)
    deviations = []
    for m in table:  # Ridgeway & Mozer: the distance to a template of one entry
        template = np.where(np.arange(4) == m.argmax(), m.max(), 0)
        deviations.append(((m - template) ** 2).sum() / (m.max() ** 2 * 3))
    assert modularity(codes, FACTORS) == pytest.approx(1 - np.mean(deviations), abs=1e-12)


def test_information_of_a_posterior_is_that_of_two_loops():
    """Chen et al.: E log q(z|v) - log q(z), each a mean over the examples that it is of."""
    n, rows = 40, torch.randperm(1440, generator=torch.Generator().manual_seed(0))[:40]
    mean, factors = SCALED[rows], FACTORS[rows]
    q = Independent(Normal(mean, 0.2), 1)
    torch.manual_seed(7)
    z = q.sample().numpy()
    table = np.zeros((4, 4))
    for i, k, a in itertools.product(range(4), range(4), range(n)):
        density = np.exp(-((z[a, i] - mean[:, i].numpy()) ** 2) / 0.08)  # less a factor
        members = [b for b in range(n) if factors[b, k] == factors[a, k]]
        table[i, k] += math.log(np.mean([density[b] for b in members]) / np.mean(density)) / n
    found = factor_information(q, factors, seed=7).numpy()
    assert found == pytest.approx(table.clip(0), abs=1e-12)


def importance_scores_by_loops(r):
    latents, factors = r.shape
    d = sum(
        r[i].sum() / r.sum() * (1 - stats.entropy(r[i], base=factors))
        for i in range(latents)
        if r[i].sum()
    )
    c = sum(
        r[:, k].sum() / r.sum() * (1 - stats.entropy(r[:, k], base=latents)) for k in range(factors)
    )
    return {"disentanglement": d, "completeness": c}


def test_importance_scores_are_those_of_the_paper():
    r = noise(6, 4).abs()
    assert importance_scores(r) == pytest.approx(importance_scores_by_loops(r.numpy()), abs=1e-12)
    r[2] = 0  # a latent that nothing uses
    assert importance_scores(r) == pytest.approx(importance_scores_by_loops(r.numpy()), abs=1e-12)


@pytest.mark.parametrize(
    "classifier",
    [
        RandomForestClassifier(5, max_depth=4, random_state=0),
        GradientBoostingClassifier(n_estimators=3, random_state=0),
    ],
)
def test_dci_is_that_of_the_paper_for_any_classifier(classifier):
    a, fa, b, fb = (t.numpy() for t in halves(CODES["mixed"], FACTORS))
    columns, right = [], []
    for k in range(4):
        classifier.fit(a, fa[:, k])
        columns.append(classifier.feature_importances_)
        right.append(np.mean([g == t for g, t in zip(classifier.predict(b), fb[:, k])]))
    expected = importance_scores_by_loops(np.stack(columns, 1))
    expected["informativeness"] = np.mean(right)
    found = dci(*halves(CODES["mixed"], FACTORS), classifier=classifier)
    assert found == pytest.approx(expected, abs=1e-12)


@every_code
def test_mcc_is_the_best_of_all_pairings(codes):
    a, b = codes.numpy(), FACTORS.double().numpy()
    pairings = itertools.permutations(range(a.shape[1]), 4)
    table = np.abs([[np.corrcoef(x, y)[0, 1] for y in b.T] for x in a.T])
    ranked = np.abs([[stats.spearmanr(x, y).statistic for y in b.T] for x in a.T])
    best = max(np.mean([table[i, k] for k, i in enumerate(p)]) for p in pairings)
    assert mcc(codes, FACTORS) == pytest.approx(best, abs=1e-12)
    pairings = itertools.permutations(range(a.shape[1]), 4)
    best = max(np.mean([ranked[i, k] for k, i in enumerate(p)]) for p in pairings)
    assert mcc(codes, FACTORS, ranks=True) == pytest.approx(best, abs=1e-12)


def one_threshold(x, y, test_x, test_y):
    """Balanced accuracy on test of the threshold on train that leaves the least Gini impurity."""
    weight = np.where(y == 1, 1 / (y == 1).sum(), 1 / (y == 0).sum())
    order = np.argsort(x)
    best = (math.inf, None, None, None)
    for i in range(1, len(x)):
        left, right = order[:i], order[i:]
        if x[left[-1]] == x[right[0]]:
            continue
        impurity, guess = 0.0, []
        for part in (left, right):
            ones, both = weight[part] @ y[part], weight[part].sum()
            impurity += 2 * ones * (both - ones) / both
            guess.append(int(2 * ones > both))
        best = min(best, (impurity, (x[left[-1]] + x[right[0]]) / 2, *guess))
    _, threshold, below, above = best
    g = np.where(test_x <= threshold, below, above)
    return np.mean([(g[test_y == c] == c).mean() for c in (0, 1)])


def test_sap_of_binary_factors_is_that_of_every_threshold_tried():
    factors = torch.randint(2, (400, 3), generator=torch.Generator().manual_seed(0))
    factors[:, 2] *= torch.randint(2, (400,), generator=torch.Generator().manual_seed(1))  # 1 of 4
    codes = factors.double() @ noise(3, 4, seed=2) + 0.7 * noise(400, 4)
    a, fa, b, fb = (t.numpy() for t in halves(codes, factors))
    gaps = []
    for k in range(3):
        scores = sorted(one_threshold(a[:, i], fa[:, k], b[:, i], fb[:, k]) for i in range(4))
        gaps.append(scores[-1] - scores[-2])
    assert sap(*halves(codes, factors)) == pytest.approx(np.mean(gaps), abs=1e-12)


def test_explicitness_is_the_share_of_pairs_in_order():
    a, fa, b, fb = (t.numpy() for t in halves(CODES["mixed"], FACTORS))
    a, b = (a - a.mean(0)) / a.std(0, ddof=1), (b - a.mean(0)) / a.std(0, ddof=1)
    means = []
    for k, count in enumerate(CLASSES):
        areas = []
        for c in range(count):
            p = LogisticRegression().fit(a, fa[:, k] == c).predict_proba(b)[:, 1]
            inside, outside = p[fb[:, k] == c, None], p[fb[:, k] != c]
            areas.append(np.mean((inside > outside) + (inside == outside) / 2))
        means.append(np.mean(areas))
    expected = 2 * np.mean(means) - 1
    assert explicitness(*halves(CODES["mixed"], FACTORS)) == pytest.approx(expected, abs=1e-6)


@every_code
def test_factor_vae_score_is_that_of_a_generator(codes):
    """Kim & Mnih's own way: factors are drawn, one is fixed, a function encodes them."""
    rng = np.random.default_rng(0)
    where = {tuple(row): [] for row in FACTORS.tolist()}
    for i, row in enumerate(FACTORS.tolist()):
        where[tuple(row)].append(i)
    z, deviation = codes.numpy(), codes.numpy().std(0)

    def vote():
        k = rng.integers(4)
        v = [rng.integers(c, size=64) for c in CLASSES]
        v[k][:] = v[k][0]
        batch = z[[where[row][rng.integers(10)] for row in zip(*(x.tolist() for x in v))]]
        return int(np.argmin((batch / deviation).var(0))), k

    votes = [vote() for _ in range(600)]
    stands_for = {
        i: max(range(4), key=lambda k: votes.count((i, k))) for i in range(codes.shape[1])
    }
    new = [vote() for _ in range(600)]
    expected = np.mean([stands_for[i] == k for i, k in new])
    found = factor_vae_score(codes, FACTORS)
    error = math.sqrt(0.25 / 600 + 0.25 / 5000)
    assert found == pytest.approx(expected, abs=4 * error)
