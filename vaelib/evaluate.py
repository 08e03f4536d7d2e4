"""Evaluation: `report`, all that the book measures of a model in one call, and its parts.

Introduced in book/models/07_evaluation.ipynb.
"""

import json
import math
import time
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path

import torch
from torch import Tensor, nn

from .annealing import ais, bidirectional
from .data import Data, Images, as_tensor
from .estimates import (
    Estimate,
    Information,
    active_units,
    coverage,
    encoded,
    information,
    log_marginal,
    scored,
    seeded,
)
from .metrics import (
    DigitNet,
    digit_net,
    frechet_distance,
    kernel_distance,
    linear_probe,
    nearest_neighbours,
    precision_recall,
)
from .model import VAE, likelihood_of


@dataclass(frozen=True)
class Score:
    """One number of a report: its value, its standard error where it has one, and its unit."""

    group: str
    name: str
    value: float
    stderr: float | None = None
    unit: str = ""
    note: str = ""

    def __str__(self) -> str:
        text = f"{self.value:,.{_digits(self.value, self.stderr)}f}"
        if self.stderr is not None and math.isfinite(self.stderr):
            text += f" +- {self.stderr:,.{_digits(self.value, self.stderr)}f}"
        return f"{text} {self.unit}".rstrip()


@dataclass(frozen=True)
class Report:
    """What `report` found: `report["nll"].value`, a table in Jupyter, JSON on disk.

    - scores: by name; `warnings`: sentences about what not to trust, and why.
    - curve: the K-curve, {k: mean log p(x) estimate}; kl_parts: the rate of each latent.
    - settings: sizes, seeds and draws, what it takes to repeat it; seconds: what it took.
    """

    scores: dict[str, Score]
    warnings: list[str]
    curve: dict[int, float]
    kl_parts: list[float] | None
    settings: dict[str, int | None] = field(default_factory=dict)
    seconds: float = math.nan

    def __getitem__(self, name: str) -> Score:
        if name not in self.scores:
            raise KeyError(f"The report has no {name!r}; it has {', '.join(self.scores)}.")
        return self.scores[name]

    def to_json(self, path: str | Path | None = None) -> str:
        """The report as JSON, also written to `path` if there is one."""
        text = json.dumps(asdict(self), indent=2)
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    @classmethod
    def from_json(cls, path: str | Path) -> "Report":
        """Read what `to_json` wrote."""
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        content["scores"] = {name: Score(**score) for name, score in content["scores"].items()}
        content["curve"] = {int(k): value for k, value in content["curve"].items()}
        return cls(**content)

    def __repr__(self) -> str:
        lines = [f"{s.group:15} {s.name:30} {s}" for s in self.scores.values()]
        return "\n".join(lines + [f"! {warning}" for warning in self.warnings])

    def _repr_html_(self) -> str:
        rows, group = [], None
        for score in self.scores.values():
            if score.group != group:
                group = score.group
                rows.append(f'<tr><th colspan="3">{escape(group)}</th></tr>')
            cells = (score.name.replace("_", " "), str(score), score.note)
            rows.append("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in cells) + "</tr>")
        warnings = "".join(f"<li>{escape(warning)}</li>" for warning in self.warnings)
        head = "".join(f"<th>{name}</th>" for name in ("score", "value", "what it is"))
        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>" + (
            f"<ul>{warnings}</ul>" if warnings else ""
        )


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

    - train, test: Images, or arrays [N, ...] without labels, which leave the codes unscored.
      Likelihood and information are those of test, all of it.
    - num_samples: importance samples an image; ais_images: how many images of test annealed
      importance sampling looks at, as a second opinion; 0 for none.
    - features: the network in whose features samples are compared: 10,000 of them, or as many as
      test has. By default the shipped DigitNet, where it gets nine labels of ten in test right.

    A minute or two for the book's small models on MNIST. Raises what `log_marginal` raises.
    """
    started = time.perf_counter()
    px_z = likelihood_of(model)
    x, _ = scored(test, px_z, data_seed)
    scores: list[Score] = []
    warnings: list[str] = []
    n = len(x)

    likelihood = log_marginal(model, test, num_samples, data_seed, seed)
    info = information(model, test, data_seed=data_seed, seed=seed)
    group = "likelihood"
    scores.append(
        Score(group, "elbo", -info.elbo, info.elbo_stderr, "nats", "-ELBO: an upper bound on NLL")
    )
    note = f"-log p(x), K = {num_samples:,}; Monte Carlo error {likelihood.mc_stderr:.3f}"
    scores.append(Score(group, "nll", -likelihood.mean, likelihood.stderr, "nats", note))
    if likelihood.last_gain > 0.1:
        warnings.append(
            f"The K-curve has not flattened: the last doubling of K, to {num_samples:,}, took "
            f"{likelihood.last_gain:.2f} nats off the NLL, and at least as much may be left."
        )
    share = likelihood.ess.median().item()
    scores.append(
        Score(group, "ess", share, None, "", f"median effective draws of {num_samples:,}")
    )
    if px_z.support is not None and px_z.support.is_discrete:
        bit = x[0].numel() * math.log(2)
        bits = (-likelihood.mean / bit, likelihood.stderr / bit)
        scores.append(Score(group, "bits_per_dim", *bits, "bits", "NLL over dimensions, in bits"))
    else:
        warnings.append(
            "The likelihood is a density, so its NLL depends on the units of x: bits per "
            "dimension are left out."
        )
    if ais_images and isinstance(model, VAE):
        few = x[:ais_images]
        second = ais(model, few, start="posterior", seed=seed)
        nll = -likelihood.values[: len(few)].mean().item()
        note = f"annealed, of the first {len(few)} images alone, whose nll is {nll:.2f}"
        scores.append(Score(group, "nll_ais", -second.mean, second.mc_stderr, "nats", note))
        if nll + second.mean > 0.5:
            warnings.append(
                f"Annealing finds {nll + second.mean:.2f} nats less on the same images: K is too "
                "small for this encoder, and the NLL too high."
            )

    group = "information"
    scores.append(Score(group, "rate", info.rate, info.rate_stderr, "nats", "E KL(q(z|x) || p(z))"))
    scores.append(
        Score(group, "distortion", info.distortion, info.distortion_stderr, "nats", "-E log p(x|z)")
    )
    low, high = info.mutual_information
    most = f"log N = {math.log(n):.2f}"
    note = f"I(x; z), from below, where it cannot pass {most}; from above {high:.2f}"
    scores.append(
        Score(group, "mutual_information", low, info.mutual_information_stderr, "nats", note)
    )
    low, high = info.marginal_kl
    note = f"KL(q(z) || p(z)), from below; from above {high:.2f}"
    scores.append(Score(group, "marginal_kl", low, None, "nats", note))
    scores.append(
        Score(group, "active_units", info.active_units, None, "", "latents whose mean varies")
    )

    _score_samples(scores, warnings, model, test, x, features, seed)
    _score_codes(scores, warnings, model, train, test)
    settings: dict[str, int | None] = {
        "num_train": len(as_tensor(train)),
        "num_test": n,
        "num_samples": num_samples,
        "data_seed": likelihood.data_seed,
        "seed": seed,
    }
    return Report(
        {score.name: score for score in scores},
        warnings,
        likelihood.curve,
        info.kl_parts,
        settings,
        round(time.perf_counter() - started, 1),
    )


def sample_scores(
    real: Tensor, fake: Tensor, network: DigitNet
) -> dict[str, tuple[float, float | None]]:
    """Frechet and kernel distance, precision, recall, density and coverage, with their errors.

    real, fake: images [N, 1, 28, 28] of one kind: both bits, or both grey.
    """
    a, b = network.features(real), network.features(fake)
    found: dict[str, tuple[float, float | None]] = {
        "frechet": (frechet_distance(a, b), None),
        "kernel_distance": kernel_distance(a, b),
    }
    for name, value in precision_recall(a, b).items():
        found[name] = (value, None)
    return found


def _score_samples(
    scores: list[Score],
    warnings: list[str],
    model: nn.Module,
    test: Data,
    x: Tensor,  # test, as it is scored
    network: DigitNet | None,
    seed: int,
) -> None:
    if network is None:
        if not isinstance(test, Images) or test.x.shape[1:] != (1, 28, 28):
            warnings.append("Samples are not scored: no network was given for such images.")
            return
        network = digit_net()
        accuracy = network.accuracy(test.x, test.y)
        if accuracy < 0.9:
            warnings.append(
                f"Samples are not scored: DigitNet names {accuracy:.0%} of these images, so its "
                "features mean nothing here."
            )
            return
    real = x[:10_000]
    with seeded(model, seed):
        draws = [model.sample(len(part), mean=False) for part in real.split(512)]  # type: ignore[operator]
    fake = torch.cat(draws)
    notes = {
        "frechet": f"of {type(network).__name__}'s features, not FID; {len(real):,} samples",
        "kernel_distance": "squared, cubic kernel, same features",
        "precision": "samples among the data",
        "recall": "data among the samples",
        "density": "how deep among the data",
        "coverage": "data with a sample near",
    }
    for name, (value, stderr) in sample_scores(real, fake, network).items():
        scores.append(Score("samples", name, value, stderr, "", notes[name]))


def _score_codes(
    scores: list[Score], warnings: list[str], model: nn.Module, train: Data, test: Data
) -> None:
    if not (isinstance(train, Images) and isinstance(test, Images)):
        warnings.append("Codes are not scored: that takes labels, so Images for train and test.")
        return
    train = train[:10_000]
    codes = (encoded(model, train).cpu(), train.y, encoded(model, test).cpu(), test.y)
    for name, accuracy, note in (
        ("linear_probe", linear_probe(*codes), "accuracy of a logistic regression on the codes"),
        ("nearest_neighbours", nearest_neighbours(*codes), "accuracy of the 10 nearest codes"),
    ):
        error = math.sqrt(accuracy * (1 - accuracy) / len(test))
        scores.append(
            Score("codes", name, accuracy, error, "", f"{note}, first {len(train):,} of train")
        )


def _digits(value: float, stderr: float | None) -> int:
    """Two digits of the error where there is one, else four of the value."""
    scale = stderr if stderr and math.isfinite(stderr) else abs(value) / 100
    if scale == 0 or not math.isfinite(scale) or float(value).is_integer():
        return 0 if float(value).is_integer() and not stderr else 2
    return max(0, min(6, 1 - math.floor(math.log10(scale))))


__all__ = [
    "DigitNet",
    "Estimate",
    "Information",
    "Report",
    "Score",
    "active_units",
    "ais",
    "bidirectional",
    "coverage",
    "digit_net",
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
