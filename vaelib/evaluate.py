"""Evaluation: `report`, all that the book measures of a model in one call, and its parts.

Introduced in book/models/07_evaluation.ipynb.
"""

import math
import time
from collections.abc import Callable
from typing import ParamSpec

import torch
from torch import Tensor, nn

from .annealing import ais, bidirectional
from .arrays import Data, Images, as_tensor
from .distributions import support_of
from .draw import latents_of
from .estimates import Estimate, Scored, log_marginal, scored
from .information import Information, active_units, coverage, encoded, information
from .metrics import (
    DigitNet,
    FashionNet,
    digit_net,
    fashion_net,
    frechet_distance,
    kernel_distance,
    linear_probe,
    nearest_neighbours,
    precision_recall,
)
from .modes import said, seeded
from .scores import Report, Score

P = ParamSpec("P")
Section = tuple[list[Score], list[str]]  # what was measured, and sentences on what was not


def report(
    model: nn.Module,
    train: Data,
    test: Data,
    *,
    num_samples: int = 500,
    ais_images: int = 16,
    features: DigitNet | None = None,
    data_seed: int = 0,
    seed: int = 0,
) -> Report:
    """Measure a model: likelihood, information, samples and codes.

    A minute or two for the book's small models on MNIST. What cannot be measured of this model is
    a sentence in the report's ``warnings``, and the rest goes on.

    Args:
        model: any model of the contract.
        train: Images, or an array [N, ...] without labels, which leaves the codes unscored. A model
            of p(x|y) is handed the labels.
        test: likewise. Likelihood and information are those of test, all of it.
        num_samples: importance samples an image.
        ais_images: how many images of test annealed importance sampling looks at, as a second
            opinion; 0 for none.
        features: the network in whose features samples are compared: 10,000 of them, or as many
            as test has. By default the shipped `evaluate.DigitNet`, where it gets nine labels of
            ten in test right.
        data_seed: of the bits.
        seed: of all else that is drawn.

    Raises:
        ValueError: as `log_marginal` does.
        TypeError: likewise.

    Example:
        >>> import torch, vaelib
        >>> model, x = vaelib.mlp_vae(2, (8,), x_shape=(4,)), torch.ones(20, 4)
        >>> found = vaelib.report(model, x, x, num_samples=10, ais_images=0)
        >>> found["nll"].unit, found["bits_per_dim"].unit
        ('nats', 'bits')
    """
    started = time.perf_counter()
    data = scored(model, test, data_seed=data_seed)
    likelihood = log_marginal(model, test, num_samples, data_seed, seed)
    info = information(model, test, data_seed=data_seed, seed=seed)
    sections = [_likelihood(data, likelihood, info)]
    if ais_images and not data.exact:
        opinion = (model, data.head(ais_images), likelihood, seed)
        sections.append(_tried("There is no second opinion by annealing", _annealed, *opinion))
    sections.append(_information(model, data, info))
    sections.append(
        _tried("Samples are not scored", _samples, model, test, data.head(10_000), features, seed)
    )
    sections.append(_tried("Codes are not scored", _codes, model, train, test, data))
    settings: dict[str, int | None] = {
        "num_train": len(as_tensor(train)),
        "num_test": len(data.x),
        "num_samples": likelihood.num_samples,
        "data_seed": likelihood.data_seed,
        "seed": seed,
    }
    return Report(
        {score.name: score for scores, _ in sections for score in scores},
        [warning for _, warnings in sections for warning in warnings],
        likelihood.curve,
        info.kl_parts,
        settings,
        round(time.perf_counter() - started, 1),
    )


def _tried(else_say: str, section: Callable[P, Section], *args: P.args, **kw: P.kwargs) -> Section:
    """A section, or the sentence why there is none: no part of a report ends the others."""
    try:
        return section(*args, **kw)
    except Exception as error:
        return [], [f"{else_say}: {said(error).rstrip('.')}."]


def _likelihood(data: Scored, found: Estimate, info: Information) -> Section:
    group, warnings = "likelihood", []
    what = "log p(x|y)" if found.conditional else "log p(x)"
    scores = [
        Score(group, "elbo", -info.elbo, info.elbo_stderr, "nats", "-ELBO: an upper bound on NLL")
    ]
    note = f"-{what}, K = {found.num_samples:,}; Monte Carlo error {found.mc_stderr:.3f}"
    if data.exact:
        note = f"-{what}, exact: every value of the latents is listed"
    if found.bound:
        note = f"an upper bound on {note}"
        warnings.append(
            f"The NLL is an upper bound, however many draws: {what} itself is not known of a model "
            "whose posterior is a point, or one of whose densities is a bound."
        )
    scores.append(Score(group, "nll", -found.mean, found.stderr, "nats", note))
    if found.density_stderr:
        warnings.append(
            "A density of this model is an estimate: its standard error of "
            f"{found.density_stderr:.3f} nats is one for all examples, beside those of the NLL."
        )
    if found.last_gain > 0.1:
        warnings.append(
            f"The K-curve has not flattened: the last doubling of K, to {found.num_samples:,}, "
            f"took {found.last_gain:.2f} nats off the NLL, and at least as much may be left."
        )
    note = f"median effective draws of {found.num_samples:,}"
    scores.append(Score(group, "ess", found.ess.median().item(), None, "", note))
    support = support_of(data.px_z)
    if support is not None and support.is_discrete:
        numbers = (~data.x.isnan()).sum().item() / len(data.x)  # of an example, without missing
        bit = numbers * math.log(2)
        bits = (-found.mean / bit, found.stderr / bit)
        scores.append(Score(group, "bits_per_dim", *bits, "bits", "NLL over dimensions, in bits"))
    else:
        warnings.append(
            "The likelihood is a density, so its NLL depends on the units of x: bits per "
            "dimension are left out."
        )
    return scores, warnings


def _annealed(model: nn.Module, few: Scored, likelihood: Estimate, seed: int) -> Section:
    second = ais(model, few.x, start="posterior", seed=seed, y=few.y)  # type: ignore[arg-type]
    if not math.isfinite(second.mean) or second.acceptance is None:
        raise ValueError(f"its estimate is {second.mean} nats")
    nll = -likelihood.values[: len(few.x)].mean().item()
    note = f"annealed, of the first {len(few.x)} images alone, whose nll is {nll:.2f}"
    note = f"{note}; acceptance {second.acceptance:.2f}"
    warnings = []
    if nll + second.mean > 0.5:
        warnings.append(
            f"Annealing finds {nll + second.mean:.2f} nats less on the same images: K is too "
            "small for this encoder, and the NLL too high."
        )
    if second.acceptance < 0.1:
        share = f"{second.acceptance:.0%} of its moves"
        warnings.append(f"Annealing accepted {share}, so nll_ais is not to be trusted.")
    score = Score("likelihood", "nll_ais", -second.mean, second.mc_stderr, "nats", note)
    return [score], warnings


def _information(model: nn.Module, data: Scored, info: Information) -> Section:
    group, note = "information", "E KL(q(z|x) || p(z))"
    if len(latents_of(data.first)) > 1 and info.kl_parts is not None:
        parts = (f"latents[{i}] {nats:.2f}" for i, nats in enumerate(info.kl_parts))
        note = f"{note}; {', '.join(parts)}"
    scores = [
        Score(group, "rate", info.rate, info.rate_stderr, "nats", note),
        Score(
            group, "distortion", info.distortion, info.distortion_stderr, "nats", "-E log p(x|z)"
        ),
    ]
    if info.mutual_information is not None and info.marginal_kl is not None:
        low, high = info.mutual_information
        error, most = info.mutual_information_stderr, math.log(len(data.x))
        note = f"I(x; z); the lower end cannot pass log N = {most:.2f}"
        scores.append(Score(group, "mutual_information", low, error, "nats", note, high))
        low, high = info.marginal_kl
        scores.append(Score(group, "marginal_kl", low, None, "nats", "KL(q(z) || p(z))", high))
    note = f"numbers of the code that vary{_of_code(model, data)}"
    scores.append(Score(group, "active_units", info.active_units, None, "", note))
    return scores, info.notes


def _of_code(model: nn.Module, data: Scored) -> str:
    """Which layer the code is, where there are several."""
    layers, place = len(latents_of(data.first)), getattr(model, "code", 0)
    return f" (latents[{place}] of {layers})" if layers > 1 else ""


def sample_scores(
    real: Tensor, fake: Tensor, network: DigitNet
) -> dict[str, tuple[float, float | None]]:
    """All that compares samples with data, each a value and, where it has one, its error.

    Args:
        real: images [N, 1, 28, 28], bits or grey.
        fake: samples of the same kind.
        network: in whose features they are compared.

    Returns:
        Frechet and kernel distance, precision, recall, density and coverage, by name.

    Example:
        >>> import torch, vaelib
        >>> real, fake = torch.rand(2, 40, 1, 28, 28)
        >>> list(vaelib.evaluate.sample_scores(real, fake, vaelib.evaluate.DigitNet()))
        ['frechet', 'kernel_distance', 'precision', 'recall', 'density', 'coverage']
    """
    a, b = network.features(real), network.features(fake)
    found: dict[str, tuple[float, float | None]] = {
        "frechet": (frechet_distance(a, b), None),
        "kernel_distance": kernel_distance(a, b),
    }
    for name, value in precision_recall(a, b).items():
        found[name] = (value, None)
    return found


def _samples(
    model: nn.Module, test: Data, data: Scored, network: DigitNet | None, seed: int
) -> Section:
    if network is None:
        if not isinstance(test, Images) or test.x.shape[1:] != (1, 28, 28):
            return [], ["Samples are not scored: no network was given for such images."]
        network = digit_net()
        accuracy = network.accuracy(test.x, test.y)
        if accuracy < 0.9:
            sentence = (
                f"Samples are not scored: DigitNet names {accuracy:.0%} of these images, so its "
                "features mean nothing here."
            )
            return [], [sentence]
    real = data.x
    with seeded(model, seed):
        draws = [
            model.sample(len(batch), mean=False, **labels)  # type: ignore[operator]
            for batch, labels in data.batches(512)
        ]
    notes = {
        "frechet": f"of {type(network).__name__}'s features, not FID; {len(real):,} samples",
        "kernel_distance": "squared, cubic kernel, same features",
        "precision": "samples among the data",
        "recall": "data among the samples",
        "density": "how deep among the data",
        "coverage": "data with a sample near",
    }
    found = sample_scores(real, torch.cat(draws), network)
    return [
        Score("samples", name, value, stderr, "", notes[name])
        for name, (value, stderr) in found.items()
    ], []


def _codes(model: nn.Module, train: Data, test: Data, data: Scored) -> Section:
    if not (isinstance(train, Images) and isinstance(test, Images)):
        return [], ["Codes are not scored: that takes labels, so Images for train and test."]
    if train.y.dim() != 1 or train.y.is_floating_point():
        shape = f"{train.y.dtype} {list(train.y.shape)}".replace("torch.", "")
        return [], [f"Codes are not scored: that takes a class for each example, not {shape}."]
    train, test = (
        part if bool((part.y >= 0).all()) else part[part.y >= 0]  # -1: no label
        for part in (train, test)
    )
    train = train[:10_000]
    codes = (encoded(model, train).cpu(), train.y, encoded(model, test).cpu(), test.y)
    scores = []
    for name, accuracy, note in (
        ("linear_probe", linear_probe(*codes), "accuracy of a logistic regression on the codes"),
        ("nearest_neighbours", nearest_neighbours(*codes), "accuracy of the 10 nearest codes"),
    ):
        error = math.sqrt(accuracy * (1 - accuracy) / len(test))
        note = f"{note}{_of_code(model, data)}, first {len(train):,} of train"
        scores.append(Score("codes", name, accuracy, error, "", note))
    return scores, []


__all__ = [
    "DigitNet",
    "Estimate",
    "FashionNet",
    "Information",
    "Report",
    "Score",
    "active_units",
    "ais",
    "bidirectional",
    "coverage",
    "digit_net",
    "encoded",
    "fashion_net",
    "frechet_distance",
    "information",
    "kernel_distance",
    "linear_probe",
    "log_marginal",
    "nearest_neighbours",
    "precision_recall",
    "report",
    "sample_scores",
]
