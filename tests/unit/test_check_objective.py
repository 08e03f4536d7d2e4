"""What is asked of an objective, by `check_model` and by `fit` before its first step.

That it gives a value an example, that it teaches q, and that it is maximised.
"""

import warnings
from functools import partial

import pytest
import torch
from breakable import C, Drawn, Flat, Listed, TwoLayers, X, check, normal
from kinds import KINDS
from kinds.codes import Score
from torch import nn
from torch.distributions import Categorical

import vaelib
from vaelib import Draw, Latent
from vaelib.refusals import check_objective

# By check_model ----------------------------------------------------------------------------------


def test_an_objectives_own_parameters_are_to_have_a_gradient():
    class Objective(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(()))

        def forward(self, draw):
            return {"elbo": vaelib.elbo(draw), "own": -(self.used**2).expand(len(draw.x))}

    with pytest.raises(ValueError, match="no gradient reached the objective's spare; expected"):
        check(Flat, objective=Objective())


@pytest.mark.parametrize(
    ("objective", "says"),
    [
        (lambda draw: vaelib.elbo(draw).mean(), r"gave shape \[\]; expected \[40\]"),
        (lambda draw: vaelib.elbo(draw).detach(), "depends on no parameter"),
    ],
)
def test_an_objective_of_no_use_is_named(objective, says):
    with pytest.raises(ValueError, match=says):
        check(Flat, objective=objective)


def test_schedules_get_their_step():
    check(Flat, objective=partial(vaelib.elbo, beta=vaelib.objectives.linear(10)))


# By fit ------------------------------------------------------------------------------------------


def ask(build, objective, x=X, **given):
    """check_objective on a first batch, as fit calls it; a warning is an error."""
    torch.manual_seed(0)
    draw = build()(x, 3)
    value = vaelib.objectives.total(objective(draw, **given))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_objective(draw, value, objective)
    value.sum().backward()  # the graph is still there


def test_a_drawn_code_needs_an_objective_that_supplies_its_gradient():
    with pytest.raises(ValueError, match=r"latent 0 \(Categorical\) .* supplies_gradient"):
        ask(Drawn, vaelib.elbo)
    ask(Drawn, Score())
    ask(Drawn, partial(partial(Score())))


def test_a_detached_draw_is_refused_by_its_place():
    class Second(TwoLayers):
        def infer(self, x, num_samples=1, noise=None, y=None):
            px_z, first, second = super().infer(x, num_samples)
            return px_z, first, Latent(second.z.detach(), second.q, second.p)

    with pytest.raises(ValueError, match=r"q of latent 1 \(Normal\) has parameters"):
        ask(Second, vaelib.elbo)


class ListedByChance(Listed):
    """Its q is made of probabilities, not of logits."""

    def latent(self, x, num_samples):
        latent = super().latent(x, num_samples)
        return Latent(latent.z, Categorical(probs=latent.q.probs), latent.p, values=C)


@pytest.mark.parametrize("build", [Listed, ListedByChance])
@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_a_listed_q_is_refused_where_the_objective_teaches_it_nothing(build, scale):
    ask(build, lambda draw: scale * vaelib.elbo(draw))
    ask(build, lambda draw: scale * vaelib.elbo(draw, analytic=False))
    ask(build, partial(vaelib.elbo, beta=0.0))
    with pytest.raises(ValueError, match=r"q of latent 0 \(Categorical\) is listed, and .* iwae"):
        ask(build, lambda draw: scale * vaelib.iwae(draw))


def test_a_listed_q_that_has_nothing_to_learn_yet_is_no_fault():
    class Even(Listed):
        def __init__(self):
            super().__init__()
            nn.init.zeros_(self.table)
            nn.init.zeros_(self.enc.weight)
            nn.init.zeros_(self.enc.bias)

    ask(Even, vaelib.elbo)


@pytest.mark.parametrize("name", KINDS)
def test_no_kind_is_refused_with_its_objective(name):
    kind, objective = KINDS[name], KINDS[name].objective()
    x, y = kind.data()
    draw = kind.make()(x, kind.num_samples, **({} if y is None else {"y": y}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_objective(draw, vaelib.objectives.total(objective(draw)), objective)


@pytest.mark.parametrize(
    "objective",
    [
        vaelib.elbo,
        vaelib.iwae,
        vaelib.stl,
        partial(vaelib.elbo, beta=4.0),
        partial(vaelib.elbo, capacity=25.0),
        partial(vaelib.elbo, free_bits=1.0),
        lambda draw: -draw.kl,
        lambda draw: 1e-3 * draw.mean(draw.log_px_z),
        lambda draw: vaelib.elbo(draw) - 100 * draw.z.square().sum(-1).mean(0),
    ],
)
def test_no_objective_that_is_maximised_gets_a_warning(objective):
    ask(Flat, objective)


def test_annealing_from_nothing_gets_no_warning():
    schedule = vaelib.objectives.linear(100)
    ask(Flat, lambda draw, step: schedule(step) * vaelib.elbo(draw), step=torch.tensor(0))


@pytest.mark.parametrize("objective", [vaelib.elbo, vaelib.iwae])
def test_an_objective_of_the_wrong_sign_gets_one(objective):
    with pytest.raises(UserWarning, match=r"falls as log p\(x\|z\) rises"):
        ask(Flat, lambda draw: -objective(draw))


def test_the_warning_points_at_the_line_that_called_fit():
    with pytest.warns(UserWarning, match="rises") as caught:
        vaelib.fit(Flat(), X, objective=lambda draw: -vaelib.elbo(draw), epochs=1, batch_size=10)
    assert [warning.filename for warning in caught] == [__file__]


def test_draws_without_latents_are_asked_for_their_z():
    """As a model of one's own makes them, by hand."""
    q = normal(torch.zeros(5, 2, requires_grad=True), 1.0)
    for z in (q.rsample((3,)), q.sample((3,))):
        log_q, log_p = q.log_prob(z), normal(torch.zeros(2), 1.0).log_prob(z)
        draw = Draw(X[:5], z, -z.square().sum(-1), log_p, log_q, q)
        value = vaelib.elbo(draw)
        if z.requires_grad:
            check_objective(draw, value, vaelib.elbo)
        else:
            with pytest.raises(ValueError, match="q of latent 0"):
                check_objective(draw, value, vaelib.elbo)
