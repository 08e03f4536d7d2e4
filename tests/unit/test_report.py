"""`report`: every number is its own function's, and what cannot be measured is said."""

import json

import pytest
import torch

import vaelib
from vaelib.evaluate import Report, information


@pytest.fixture(scope="module")
def digits():
    train, test = vaelib.data.mnist()
    return train[:2000], test[:300]


@pytest.fixture(scope="module")
def model(digits):
    torch.manual_seed(0)
    model = vaelib.mlp_vae(4, (64,))
    vaelib.fit(model, digits[0], epochs=3, batch_size=64)
    return model


@pytest.fixture(scope="module")
def found(model, digits):
    state = torch.get_rng_state()
    found = vaelib.report(model, *digits, num_samples=50, ais_images=4)
    assert torch.equal(torch.get_rng_state(), state)
    return found


def test_each_number_is_its_functions(model, digits, found):
    nll = vaelib.log_marginal(model, digits[1], 50)
    info = information(model, digits[1])
    assert found["nll"].value == -nll.mean
    assert found["nll"].stderr == nll.stderr
    assert found["bits_per_dim"].value == pytest.approx(-nll.mean / (784 * 0.6931471805599453))
    assert found["elbo"].value == pytest.approx(found["rate"].value + found["distortion"].value)
    assert found["rate"].value == info.rate
    assert found["mutual_information"].value == info.mutual_information[0]
    assert found.curve == nll.curve
    assert found.kl_parts == info.kl_parts
    many = -vaelib.log_marginal(model, vaelib.data.binarize(digits[1].x)[:4], 20_000).mean
    assert found["nll_ais"].value == pytest.approx(many, abs=0.5)
    assert found["nll_ais"].value < -nll.values[:4].mean().item() - 1
    assert any("nats less on the same images" in warning for warning in found.warnings)
    assert 0.2 < found["linear_probe"].value < 1
    assert 0.2 < found["nearest_neighbours"].value < 1
    assert 0 <= found["recall"].value <= found["coverage"].value + 1
    assert found["frechet"].value > 0
    with pytest.raises(KeyError, match="no 'fid'; it has elbo, nll"):
        found["fid"]


def test_it_reads_well_and_survives_json(found, tmp_path):
    text = found.to_json(tmp_path / "report.json")
    assert json.loads(text)["scores"]["nll"]["unit"] == "nats"
    assert Report.from_json(tmp_path / "report.json") == found
    assert "<table>" in found._repr_html_()
    assert "DigitNet" in found._repr_html_()
    assert "not FID" in found._repr_html_()
    assert all(name in repr(found) for name in found.scores)


def test_what_should_not_be_trusted_is_said(model, digits):
    train, test = digits
    few = vaelib.report(model, train.x, test.x[:20], num_samples=4, ais_images=0)
    text = " ".join(few.warnings)
    assert "The K-curve has not flattened: the last doubling of K, to 4," in text
    assert "Samples are not scored" in text
    assert "Codes are not scored: that takes labels" in text
    assert "nll_ais" not in few.scores
    upside_down = vaelib.data.Images(255 - test.x.flip(2), test.y)
    text = " ".join(vaelib.report(model, train, upside_down, num_samples=4, ais_images=0).warnings)
    assert "Samples are not scored: DigitNet names" in text


def test_a_density_has_no_bits():
    torch.manual_seed(0)
    model = vaelib.mlp_vae(2, (8,), x_shape=(5,), likelihood=vaelib.gaussian(0.5))
    found = vaelib.report(model, torch.randn(30, 5), torch.randn(30, 5), num_samples=8)
    assert "bits_per_dim" not in found.scores
    assert any("The likelihood is a density" in warning for warning in found.warnings)
