"""The loop written by hand trains what `fit` trains: the same weights to rounding."""

import copy

import peers
import pytest
import torch

import vaelib


@pytest.mark.parametrize("hidden", [(12,), (16, 9)])
@pytest.mark.parametrize("bits", [False, True])
def test_its_weights_and_objectives_are_those_of_fit(hidden, bits):
    torch.manual_seed(0)
    start = vaelib.mlp_vae(3, hidden, x_shape=(1, 5, 7))
    x = torch.randint(0, 256, (50, 1, 5, 7), dtype=torch.uint8)  # batches of 16, 16, 16 and 2
    if bits:
        x = (x > 127).float()
    case = {"epochs": 3, "batch_size": 16}
    models, objectives = {}, {}
    for contender in (peers.by_hand, peers.fit):
        model, found = copy.deepcopy(start), []
        contender(case, model, x, lambda objective, found=found, **facts: found.append(objective))
        models[contender.__name__], objectives[contender.__name__] = model.state_dict(), found
    assert objectives["by_hand"] == pytest.approx(objectives["fit"], rel=1e-6)
    assert len(set(objectives["fit"])) == 3
    for name, weight in models["by_hand"].items():
        torch.testing.assert_close(weight, models["fit"][name], rtol=1e-4, atol=1e-6)
        assert not torch.equal(weight, start.state_dict()[name])
