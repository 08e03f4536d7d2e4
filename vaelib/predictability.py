"""Disentanglement by prediction and matching: the scores that take scikit-learn or SciPy.

A code is [N, L], factors are int64 classes [N, F]; what is fitted to train is scored on test. The
two packages are imported when a score first needs them.

Introduced in book/models/14_disentanglement.ipynb.
"""

import importlib
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .disentanglement import checked, columns_of, gap


def dci(
    train: Tensor,
    train_factors: Tensor,
    test: Tensor,
    test_factors: Tensor,
    classifier: Any = None,
    seed: int = 0,
) -> dict[str, float]:
    """Disentanglement, completeness and informativeness, each in [0, 1].

    A classifier is fitted for each factor. The importances that it gives to the latents make the
    first two, see `importance_scores`; its accuracy on test is the third (Eastwood & Williams, ICLR
    2018, https://openreview.net/forum?id=By-7dz-AZ, Section 2). The scores are those of the
    classifier as much as of the code: name it beside them.

    Args:
        train: codes [N, L].
        train_factors: classes [N, F].
        test: codes [M, L].
        test_factors: classes [M, F].
        classifier: of scikit-learn, with ``feature_importances_``; by default a random forest that
            sees every latent at each split, of leaves of at least a hundredth of train.
        seed: of the default forest.

    Raises:
        ImportError: where scikit-learn is not installed.
        ValueError: for other shapes, values that are not finite, and a factor of one value.

    Example:
        >>> import torch, vaelib
        >>> factors = torch.cartesian_prod(torch.arange(4), torch.arange(4)).repeat(20, 1)
        >>> vaelib.predictability.dci(factors.double(), factors, factors.double(), factors)
        {'disentanglement': 1.0, 'completeness': 1.0, 'informativeness': 1.0}
    """
    if classifier is None:
        # The usual sqrt(L) latents a split would force splits on latents that know nothing.
        classifier = _optional("sklearn.ensemble").RandomForestClassifier(
            n_estimators=50, max_features=None, min_samples_leaf=0.01, random_state=seed
        )
    importances, accuracy = [], 0.0
    for x, y, test_x, test_y in _by_factor(train, train_factors, test, test_factors):
        fitted = _optional("sklearn.base").clone(classifier).fit(x, y)
        importances.append(torch.as_tensor(fitted.feature_importances_))
        accuracy += (fitted.predict(test_x) == test_y).mean()
    scores = importance_scores(torch.stack(importances, 1))
    return {**scores, "informativeness": float(accuracy / len(importances))}


def importance_scores(importances: Tensor) -> dict[str, float]:
    """Disentanglement and completeness, each in [0, 1], of importances [L, F], none negative.

    Disentanglement: one minus the entropy (base F) of a latent's importances over the factors, each
    latent weighted by its share of all; completeness: the same of a factor's over the latents, base
    L (Eastwood & Williams, ICLR 2018, Section 2). Take the importances from where you will: of a
    Lasso, the sizes of its weights.

    Args:
        importances: [L, F], of each latent for each factor.

    Raises:
        ValueError: for other shapes, negative importances, and importances that are all 0.

    Example:
        >>> import torch, vaelib
        >>> importances = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
        >>> vaelib.predictability.importance_scores(importances)
        {'disentanglement': 1.0, 'completeness': 0.75}
    """
    r = importances.double()
    if r.dim() != 2 or min(r.shape) < 2 or not (r >= 0).all() or not 0 < r.sum() < torch.inf:
        raise ValueError(
            f"The importances have shape {list(r.shape)} and a sum of {r.sum().item():.3g}; "
            "expected [L, F] of two latents and two factors or more, none negative, not all 0: "
            "give sizes, such as weights.abs(), of a code that moves."
        )

    def one_less_entropy(rows: Tensor) -> float:
        weight = rows.sum(1) / rows.sum()
        p = rows / rows.sum(1, keepdim=True).clamp(min=1e-300)  # an unused row has weight 0
        entropy = torch.special.entr(p).sum(1) / math.log(rows.shape[1])
        return 1.0 - (weight * entropy).sum().item()

    return {"disentanglement": one_less_entropy(r), "completeness": one_less_entropy(r.T)}


def sap(train: Tensor, train_factors: Tensor, test: Tensor, test_factors: Tensor) -> float:
    """Separated attribute predictability: how far the best latent leads as sole predictor.

    In [0, 1 - 1/C], C the classes of a factor. Each latent by itself predicts each factor by up to
    C - 1 thresholds, fitted on train; the score is the gap between the two best balanced accuracies
    on test, a mean over factors (Kumar et al., ICLR 2018, https://arxiv.org/abs/1711.00848, Section
    3). Locatello et al. (2019) put a linear SVM in place of the thresholds, which cannot cut out a
    middle class: their numbers are lower, and not comparable.

    Args:
        train: codes [N, L], L at least 2.
        train_factors: classes [N, F].
        test: codes [M, L].
        test_factors: classes [M, F].

    Raises:
        ImportError: where scikit-learn is not installed.
        ValueError: as `dci` does, and for one latent.

    Example:
        >>> import torch, vaelib
        >>> factors = torch.cartesian_prod(torch.arange(4), torch.arange(4)).repeat(20, 1)
        >>> halves = (factors.double(), factors, factors.double(), factors)
        >>> round(vaelib.predictability.sap(*halves), 6)  # 1 - 1/4
        0.75
    """
    columns = []
    for x, y, test_x, test_y in _by_factor(train, train_factors, test, test_factors):
        classes = sorted(set(y.tolist()) & set(test_y.tolist()))
        tree = _optional("sklearn.tree").DecisionTreeClassifier(
            max_leaf_nodes=len(set(y.tolist())), class_weight="balanced", random_state=0
        )
        guesses = [tree.fit(x[:, [i]], y).predict(test_x[:, [i]]) for i in range(x.shape[1])]
        recalls = [[(g[test_y == c] == c).mean() for c in classes] for g in guesses]
        columns.append(torch.tensor(recalls, dtype=torch.float64).mean(1))
    return gap(torch.stack(columns, 1))


def explicitness(train: Tensor, train_factors: Tensor, test: Tensor, test_factors: Tensor) -> float:
    """Explicitness, at most 1, 0 by chance: can factors be read off the whole code by planes?

    Twice the area under the ROC curve less one, of a logistic regression for each class of each
    factor, on test, a mean over them (Ridgeway & Mozer, NeurIPS 2018, Section 3). It says nothing
    of single latents: a rotated code scores as the straight one. No plane cuts out a middle class,
    so a copy of ordered factors stays below 1; a softmax over the classes, which others use, does
    not.

    Args:
        train: codes [N, L].
        train_factors: classes [N, F].
        test: codes [M, L].
        test_factors: classes [M, F].

    Raises:
        ImportError: where scikit-learn is not installed.
        ValueError: as `dci` does.

    Example:
        >>> import torch, vaelib
        >>> factors = torch.cartesian_prod(torch.arange(2), torch.arange(2)).repeat(20, 1)
        >>> vaelib.predictability.explicitness(factors.double(), factors, factors.double(), factors)
        1.0
    """
    linear, area = _optional("sklearn.linear_model"), _optional("sklearn.metrics").roc_auc_score
    means = []
    for x, y, test_x, test_y in _by_factor(train, train_factors, test, test_factors):
        mean, deviation = x.mean(0), x.std(0, ddof=1).clip(1e-8)
        x, test_x = (x - mean) / deviation, (test_x - mean) / deviation
        areas = [
            area(test_y == c, linear.LogisticRegression().fit(x, y == c).decision_function(test_x))
            for c in set(y.tolist()) & set(test_y.tolist())
        ]
        means.append(sum(areas) / len(areas))
    return float(2 * sum(means) / len(means) - 1)


def mcc(codes: Tensor, others: Tensor, ranks: bool = False) -> float:
    """Mean correlation coefficient, in [0, 1], of two codes, or of a code and factors.

    Each column of the narrower is paired with another of the wider so that the mean absolute
    correlation is greatest (Hyvarinen & Morioka, NeurIPS 2016, https://arxiv.org/abs/1605.06336;
    Khemakhem et al., AISTATS 2020, https://arxiv.org/abs/1907.04809). The best of all pairings is
    above 0 by chance, by about 1 / sqrt(N).

    Args:
        codes: [N, L].
        others: [N, M].
        ranks: correlate ranks (Spearman), for codes known up to monotone functions.

    Raises:
        ImportError: where SciPy is not installed.
        ValueError: for other shapes and values that are not finite.

    Example:
        >>> import torch, vaelib
        >>> codes = torch.randn(50, 3)
        >>> round(vaelib.predictability.mcc(codes, -2 * codes[:, [2, 0, 1]]), 5)
        1.0
    """
    codes, others = columns_of("codes", codes), columns_of("others", others)
    if len(codes) != len(others):
        raise ValueError(
            f"There are {len(codes)} codes and {len(others)} others; expected those of the same "
            "examples, in one order: encode the same rows."
        )
    if ranks:
        codes, others = _ranks(codes), _ranks(others)
    a, b = (F.normalize(t - t.mean(0), dim=0) for t in (codes, others))
    correlation = (a.T @ b).abs().clamp(max=1)
    rows, columns = _optional("scipy.optimize").linear_sum_assignment(-correlation.numpy())
    return correlation[rows, columns].mean().item()


def _ranks(columns: Tensor) -> Tensor:
    """Ranks [N, L], equal values sharing their mean rank."""
    ranks = []
    for column in columns.T:
        _, place, counts = column.unique(return_inverse=True, return_counts=True)
        ranks.append((counts.cumsum(0) - counts.double() / 2)[place])
    return torch.stack(ranks, 1)


def _by_factor(
    train: Tensor, train_factors: Tensor, test: Tensor, test_factors: Tensor
) -> list[tuple[Any, Any, Any, Any]]:
    """Codes and one factor's classes, of train and of test, as arrays; a tuple a factor."""
    train, train_factors = checked(train, train_factors)
    test, test_factors = checked(test, test_factors)
    have, has = (train.shape[1], train_factors.shape[1]), (test.shape[1], test_factors.shape[1])
    if have != has:
        raise ValueError(
            f"Train has {have[0]} latents and {have[1]} factors, test {has[0]} and {has[1]}; "
            "expected the same columns: encode both with one model."
        )
    x, test_x = train.numpy(), test.numpy()
    return [(x, y.numpy(), test_x, t.numpy()) for y, t in zip(train_factors.T, test_factors.T)]


def _optional(name: str) -> Any:
    """A module of scikit-learn or SciPy, which vaelib does without elsewhere."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"vaelib.predictability got no {name} to import; expected it installed: pip install "
            "scikit-learn, which brings SciPy."
        ) from error


__all__ = ["dci", "explicitness", "importance_scores", "mcc", "sap"]
