"""What the tests of the contract share: which kinds a test is of, and how far is far.

Statistical tests have fixed seeds and allow 4 standard errors.
"""

import math

import pytest
from kinds import KINDS

import vaelib

every_kind = pytest.mark.parametrize("name", KINDS)


def kinds_with(test):
    return pytest.mark.parametrize("name", [n for n, kind in KINDS.items() if test(kind)])


def names(*chosen):
    return pytest.mark.parametrize("name", chosen)


def within(found, expected, error, slack=1e-9):
    """Whether found is expected to 4 standard errors, elementwise."""
    return bool(((found - expected).abs() <= 4 * error + slack).all())


def mean_and_error(rows):
    return rows.mean(0), rows.std(0) / math.sqrt(len(rows))


def repeated(model, bound, x, y, num_samples, times=200):
    """`times` independent bounds of each example, [times, B]."""
    x = x.repeat(times, *[1] * (x.dim() - 1))
    y = None if y is None else y.repeat(times)
    return bound(model.draw(x, num_samples, y=y)).reshape(times, -1)


def sampled(draw):
    return vaelib.elbo(draw, analytic=False)
