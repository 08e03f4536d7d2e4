"""The contract: fit raises the bound, resumes to the bit, and refuses what would teach nothing.

The column train of the table in test_contract.py.
"""

import pytest
import torch
from contract import every_kind, mean_and_error, names, repeated, sampled
from kinds import KINDS
from kinds.codes import Drawn
from kinds.gaussians import SX, normal
from kinds.players import Critic
from small import Cut
from torch import nn
from torch.distributions import Categorical
from torch.testing import assert_close

import vaelib
from vaelib import Latent


def fitted(name, epochs=4, model=None, **settings):
    kind = KINDS[name]
    x, y = kind.data(48)
    model = kind.make() if model is None else model
    data = x if y is None else vaelib.data.Images(x, y)
    objective = settings.pop("objective", None) or kind.objective()
    settings = {"batch_size": 16, "lr": 0.02, "num_samples": kind.num_samples, **settings}
    return model, vaelib.fit(model, data, objective=objective, epochs=epochs, **settings)


@torch.no_grad()
def bound_of(name, model, objective):
    """The mean objective over 48 examples, and its Monte Carlo error."""
    x, y = KINDS[name].data(48)
    torch.manual_seed(0)
    rows = repeated(model, lambda draw: vaelib.objectives.total(objective(draw)), x, y, 8, 100)
    return mean_and_error(rows.mean(1))


# What every kind does ----------------------------------------------------------------------------


@every_kind
def test_fit_raises_the_bound(name):
    kind = KINDS[name]
    objective = vaelib.elbo if name == "player" else kind.objective()  # its game raises no sum
    before, first = bound_of(name, kind.make(), vaelib.elbo)
    model, history = fitted(name, epochs=16, objective=objective)
    assert not model.training and len(history.train) == 16
    after, last = bound_of(name, model, vaelib.elbo)
    assert after > before + 4 * (first**2 + last**2).sqrt() + 1e-9, (before, after)
    exact = kind.log_px(model, *kind.data(48)).mean()
    assert after < exact + 4 * last + 1e-9  # still a bound


@every_kind
def test_a_cut_run_ends_with_the_bits_of_an_uncut_one(name, tmp_path):
    objectives = [KINDS[name].objective() for _ in range(2)]
    whole, history = fitted(name, objective=objectives[0])

    def pull(model, history):
        if history.epoch[-1] == 2:
            raise Cut

    model = KINDS[name].make()
    with pytest.raises(Cut):
        fitted(name, model=model, objective=objectives[1], out=tmp_path, callback=pull)
    resumed = KINDS[name].make(seed=1)  # what it holds comes from the checkpoint
    again = KINDS[name].objective()
    resumed, taken_up = fitted(name, model=resumed, objective=again, out=tmp_path)
    for key, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[key]), key
    assert taken_up.train == history.train and taken_up.elbo == history.elbo
    assert taken_up.terms == history.terms
    if isinstance(again, nn.Module):
        for a, b in zip(objectives[0].state_dict().values(), again.state_dict().values()):
            assert torch.equal(a, b)


# What fit refuses --------------------------------------------------------------------------------


def test_fit_refuses_a_drawn_code_that_would_learn_nothing():
    model = KINDS["drawn"].make()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    with pytest.raises(ValueError, match="gradient"):
        fitted("drawn", model=model, objective=vaelib.elbo)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    for objective in (vaelib.iwae, sampled):
        with pytest.raises(ValueError, match="gradient"):
            fitted("drawn", objective=objective)


def test_fit_refuses_a_drawn_code_among_other_latents():
    class Second(Drawn):
        """z1 is continuous and learns; z2, drawn, would not."""

        def __init__(self):
            super().__init__()
            self.q1 = nn.Linear(5, 5, dtype=torch.float64)

        def infer(self, x, num_samples=1, noise=None, y=None):
            _, code = super().infer(x, num_samples, noise, y)
            q = normal(self.q1(x), torch.ones_like(x))
            z = q.rsample((num_samples,))
            p = normal(torch.zeros_like(x[0]), torch.ones_like(x[0]))
            return normal(self.table[code.z] + z, SX), Latent(z, q, p), code

        def generate(self, n, y=None):
            z = torch.randn(n, 5, dtype=torch.float64)
            code = Categorical(logits=self.logits).sample((n,))
            return normal(self.table[code] + z, SX), z, code

    with pytest.raises(ValueError, match="gradient"):
        vaelib.fit(Second(), KINDS["drawn"].data(8)[0], epochs=1)


@names("listed", "autoregressive", "labelled")
def test_fit_refuses_to_teach_a_listed_code_by_iwae(name):
    with pytest.raises(ValueError, match="listed"):
        fitted(name, objective=vaelib.iwae)


def test_fit_warns_of_an_objective_with_the_wrong_sign():
    def loss(draw):
        return -vaelib.elbo(draw)

    with pytest.warns(UserWarning, match="falls|sign|maximi") as caught:
        fitted("flat", objective=loss, epochs=2)
    assert len([w for w in caught if issubclass(w.category, UserWarning)]) == 1


# Objectives of several terms and players ---------------------------------------------------------


@names("quantized", "player")
def test_terms_are_logged_and_sum_to_what_is_maximised(name):
    _, history = fitted(name)
    expected = {
        "quantized": ["elbo", "codebook", "commitment"],
        "player": ["elbo", "fool", "judge"],
    }
    assert sorted(history.terms) == sorted(expected[name])
    assert all(len(column) == 4 for column in history.terms.values())
    for epoch, total in enumerate(history.train):
        assert_close(sum(column[epoch] for column in history.terms.values()), total)


def test_each_term_moves_its_own_player_alone():
    x, _ = KINDS["player"].data()
    player, critic = KINDS["player"].make(), Critic()
    terms = critic(player.draw(x))
    moved = {}
    for name, term in terms.items():
        both = [player.shift, critic.net.weight]
        found = torch.autograd.grad(term.sum(), both, retain_graph=True, allow_unused=True)
        moved[name] = [g is not None and bool((g != 0).any()) for g in found]
    assert moved == {"elbo": [True, False], "fool": [True, False], "judge": [False, True]}


def test_two_players_find_their_equilibrium():
    """A strongly monotone game: 300 steps of descent at 0.05 leave e^-15 of where they began.

    What is left is the noise of 64 x 64 draws, below 1e-3 a step; 0.01 is stated.
    """
    player, critic = KINDS["player"].make(), Critic()
    x, _ = KINDS["player"].data(64)
    shift, weight = critic.equilibrium(x)
    start = torch.cat(
        [player.shift.detach() - shift, critic.net.weight.detach()[0] - weight]
    ).norm()
    assert start > 1
    vaelib.fit(
        player,
        x,
        objective=critic,
        epochs=300,
        batch_size=64,
        num_samples=64,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05),
    )
    assert (player.shift - shift).norm() < 0.01
    assert (critic.net.weight[0] - weight).norm() < 0.01


def test_an_objective_is_a_group_of_its_own():
    seen = []

    def optimizer(parameters):
        groups = list(parameters)
        seen.extend(groups)
        return torch.optim.SGD(groups, lr=0.01)

    critic = Critic()
    player, _ = fitted("player", objective=critic, epochs=1, optimizer=optimizer)
    named = [
        group for group in seen if isinstance(group, dict) and group.get("name") == "objective"
    ]
    assert len(named) == 1 and list(named[0]["params"]) == [critic.net.weight]
    assert not any(name.startswith("net") for name in player.state_dict())
