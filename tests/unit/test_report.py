"""`report`: every number is its own function's, and what cannot be measured is said."""

import csv
import json
import math
import sys
import types
from dataclasses import replace
from functools import partial

import pytest
import torch
from kinds import KINDS

import vaelib
from vaelib.data import Images
from vaelib.evaluate import (
    DigitNet,
    Report,
    Score,
    digit_net,
    encoded,
    information,
    linear_probe,
    nearest_neighbours,
    sample_scores,
)
from vaelib.modes import seeded


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
    bracket = found["mutual_information"].value, found["mutual_information"].high
    assert bracket == info.mutual_information
    assert (found["marginal_kl"].value, found["marginal_kl"].high) == info.marginal_kl
    assert found.curve == nll.curve
    assert found.kl_parts == info.kl_parts
    many = -vaelib.log_marginal(model, vaelib.data.binarize(digits[1].x)[:4], 20_000).mean
    assert found["nll_ais"].value == pytest.approx(many, abs=0.5)
    assert "; acceptance 0." in found["nll_ais"].note
    assert found["nll_ais"].value < -nll.values[:4].mean().item() - 1
    assert any("nats less on the same images" in warning for warning in found.warnings)
    codes = [part for d in digits for part in (encoded(model, d), d.y)]
    assert found["linear_probe"].value == linear_probe(*codes)
    assert found["nearest_neighbours"].value == nearest_neighbours(*codes)
    with seeded(model, 0):
        fake = model.sample(len(digits[1]), mean=False)
    samples = sample_scores(vaelib.data.binarize(digits[1].x), fake, digit_net())
    assert {name: found[name].value for name in samples} == {n: v for n, (v, _) in samples.items()}
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


class Flat(DigitNet):
    """A network for any x: its features are x itself."""

    def features(self, x):
        return x.double().flatten(1)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_model_has_a_report(name):
    kind = KINDS[name]
    model, (x, y) = kind.make(), kind.data(40)
    labels = torch.arange(40) % 3 if y is None else y
    data = Images(x, labels)
    found = vaelib.report(model, data, data, num_samples=8, ais_images=0, features=Flat())
    given = model.labels == "given"
    nll = vaelib.log_marginal(model, x, 8, y=y if given else None)
    assert found["nll"].value == -nll.mean and found["nll"].stderr == nll.stderr
    assert all(math.isfinite(score.value) for score in found.scores.values())
    text = " ".join(found.warnings)
    assert ("bound" in found["nll"].note) == kind.bound == ("is an upper bound" in text)
    assert ("log p(x|y)" in found["nll"].note) == given
    assert ("exact: every value" in found["nll"].note) == kind.exact
    several = len(kind.z_shapes) > 1
    assert (f"latents[0] of {len(kind.z_shapes)}" in found["active_units"].note) == several
    assert ("latents[0]" in found["linear_probe"].note) == several
    assert ("mutual_information" in found.scores) == (not several and not given and not kind.bound)
    assert ("mutual_information" in found.scores) != ("Mutual information" in text)
    assert ("frechet" in found.scores) != ("Samples are not scored" in text)
    assert ("frechet" in found.scores) == (kind.build.__name__ != "Missing")  # x has no features
    assert found.kl_parts is None if kind.kl is None else len(found.kl_parts) == kind.kl


def test_each_layers_nats_are_named():
    model, (x, _) = KINDS["top_down"].make(), KINDS["top_down"].data(20)
    found = vaelib.report(model, x, x, num_samples=4, ais_images=0)
    first, second = found.kl_parts
    assert f"latents[0] {first:.2f}, latents[1] {second:.2f}" in found["rate"].note


def test_a_model_that_does_not_dream_has_a_report_without_samples():
    class Mute(KINDS["top_down"].build):
        def generate(self, n, y=None):
            raise NotImplementedError("Mute writes no generate")

    model, (x, _) = Mute(), KINDS["top_down"].data(20)
    found = vaelib.report(model, x, x, num_samples=4, ais_images=0, features=Flat())
    assert "nll" in found.scores and "frechet" not in found.scores
    assert "Samples are not scored: Mute writes no generate." in found.warnings


def broken(*args, **settings):
    return torch.zeros(2) @ torch.ones(3)


def unsure(model, x, **settings):
    return replace(vaelib.log_marginal(model, x, 4), mean=math.nan, acceptance=0.5)


@pytest.mark.parametrize("second", [broken, unsure])
def test_a_second_opinion_that_fails_is_a_sentence(second, monkeypatch):
    model, (x, _) = KINDS["flat"].make(), KINDS["flat"].data(20)
    monkeypatch.setattr(vaelib.evaluate, "ais", second)
    found = vaelib.report(model, x, x, num_samples=4)
    assert "rate" in found.scores and "nll_ais" not in found.scores
    (warning,) = [text for text in found.warnings if "no second opinion by annealing: " in text]
    assert "inconsistent" in warning if second is broken else "nan nats" in warning


def test_a_second_opinion_whose_chains_stand_still_is_not_trusted(monkeypatch):
    model, (x, _) = KINDS["flat"].make(), KINDS["flat"].data(20)
    model.likelihood = vaelib.gaussian(1e-7)
    few = partial(vaelib.evaluate.ais, num_steps=3)
    monkeypatch.setattr(vaelib.evaluate, "ais", few)
    found = vaelib.report(model, x, x, num_samples=4, ais_images=2)
    assert "acceptance 0.0" in found["nll_ais"].note
    assert any("nll_ais is not to be trusted" in warning for warning in found.warnings)


def test_a_model_that_annealing_cannot_walk_says_so():
    model, (x, _) = KINDS["top_down"].make(), KINDS["top_down"].data(20)
    found = vaelib.report(model, x, x, num_samples=4)
    assert any("this model has 2 latents" in warning for warning in found.warnings)


def test_labels_that_are_no_classes_leave_codes_unscored():
    model, (x, _) = KINDS["flat"].make(), KINDS["flat"].data(20)
    factors = Images(x, torch.zeros(20, 6, dtype=torch.int64))
    found = vaelib.report(model, factors, factors, num_samples=4, ais_images=0)
    assert any("a class for each example, not int64 [20, 6]" in text for text in found.warnings)


def test_missing_pixels_are_no_dimensions():
    class Seen(torch.distributions.Bernoulli):
        def log_prob(self, value):
            return torch.where(value.isnan(), 0.0, super().log_prob(value.nan_to_num()))

    model = vaelib.mlp_vae(2, (8,), x_shape=(10,), likelihood=lambda p: Seen(logits=p))
    model.encoder.insert(0, Filled())
    model.missing = True
    x = torch.ones(6, 10)
    x[:, 5:] = torch.nan
    found = vaelib.report(model, x, x, num_samples=4, ais_images=0)
    assert found["bits_per_dim"].value == pytest.approx(found["nll"].value / (5 * math.log(2)))


class Filled(torch.nn.Module):
    def forward(self, x):
        return x.nan_to_num()


def test_a_bracket_prints_both_ends():
    assert str(Score("information", "mutual_information", 7.2, 0.03, "nats", high=9.2)) == (
        "7.2 to 9.2 nats"
    )
    assert str(Score("information", "rate", 7.21, 0.03, "nats")) == "7.210 +- 0.030 nats"


def test_scores_become_tables(found, tmp_path, monkeypatch):
    found.to_csv(tmp_path / "report.csv")
    with (tmp_path / "report.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(found.scores)
    assert float(rows[1]["value"]) == found["nll"].value
    (told,) = [row for row in rows if row["name"] == "mutual_information"]
    assert float(told["high"]) == found["mutual_information"].high
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas, or use to_csv"):
        found.to_frame()
    pandas = types.ModuleType("pandas")

    class DataFrame:
        def __init__(self, rows, columns):
            self.rows, self.columns = rows, columns

        def set_index(self, name):
            return {row[name]: row for row in self.rows}

    pandas.DataFrame = DataFrame
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    assert found.to_frame()["nll"]["value"] == found["nll"].value


def test_files_of_before_are_read(found, tmp_path):
    content = json.loads(found.to_json())
    for score in content["scores"].values():
        del score["high"]
    del content["settings"], content["seconds"]
    (tmp_path / "old.json").write_text(json.dumps(content), encoding="utf-8")
    old = Report.from_json(tmp_path / "old.json")
    assert old["nll"] == found["nll"] and old["mutual_information"].high is None
