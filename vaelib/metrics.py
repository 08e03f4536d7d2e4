"""Metrics of samples and codes: distances between clouds of features, and what codes know.

Features are [N, D]; a metric of images is a metric of the features of the network that looks at
them, so its name must name the network. Introduced in book/models/07_evaluation.ipynb.
"""

import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .arrays import Data, as_tensor, scale_pixels
from .data import find
from .modes import tensor_like


class DigitNet(nn.Module):
    """A small convolutional classifier of digits: [N, 1, 28, 28] -> logits [N, 10].

    Its features are the 64 numbers before the last layer, scaled to mean variance one on MNIST's
    training images. Trained on MNIST as it is and with its pixels drawn, since models draw theirs.

    Example:
        >>> import torch, vaelib
        >>> vaelib.evaluate.DigitNet().features(torch.zeros(3, 1, 28, 28)).shape
        torch.Size([3, 64])
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, 64),
            nn.ReLU(),
        )
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    @torch.no_grad()
    def features(self, x: Data) -> Tensor:
        """[N, 64], a batch at a time, on the network's device; x uint8 or floats in [0, 1]."""
        like = tensor_like(self)
        batches = as_tensor(x).split(512)
        return torch.cat([self.body(scale_pixels(b.to(like.device)).to(like)) for b in batches])

    @torch.no_grad()
    def accuracy(self, x: Data, y: Tensor) -> float:
        """The share of x [N, 1, 28, 28] that gets its label y [N]."""
        guess = self.head(self.features(x)).argmax(-1)
        return (guess == y.to(guess.device)).double().mean().item()


class FashionNet(DigitNet):
    """The same network for Fashion-MNIST, trained on it in the same way.

    Example:
        >>> import torch, vaelib
        >>> vaelib.evaluate.FashionNet().features(torch.zeros(3, 1, 28, 28)).shape
        torch.Size([3, 64])
    """


def digit_net() -> DigitNet:
    """The trained DigitNet that the repository ships, in eval mode.

    Raises:
        OSError: where it is not.

    Example:
        >>> import vaelib
        >>> _, test = vaelib.data.mnist()
        >>> network = vaelib.evaluate.digit_net()
        >>> network.accuracy(test.x[:1000], test.y[:1000]) > 0.95
        True
    """
    return _shipped(DigitNet, "digit_net")


def fashion_net() -> FashionNet:
    """The trained FashionNet that the repository ships, in eval mode.

    Raises:
        OSError: where it is not.

    Example:
        >>> import vaelib
        >>> _, test = vaelib.data.fashion_mnist()
        >>> network = vaelib.evaluate.fashion_net()
        >>> network.accuracy(test.x[:1000], test.y[:1000]) > 0.85
        True
    """
    return _shipped(FashionNet, "fashion_net")


Judge = TypeVar("Judge", bound=DigitNet)


def _shipped(kind: type[Judge], name: str) -> Judge:
    from .io import load

    folder = find("weights")
    if folder is None:
        raise FileNotFoundError(
            f"No weights/{name}.safetensors in the folders that vaelib looks in; expected the "
            "repository's data folder: clone it, or set VAELIB_DATA to a copy of it."
        )
    with torch.device("meta"):  # initial weights would draw from the caller's generator
        network = kind()
    return load(folder / f"{name}.safetensors", into=network.to_empty(device="cpu"))


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared Frechet distance of the Gaussians fitted to two clouds of features.

    ``|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a^1/2 S_b S_a^1/2)^1/2)``, in float64. It is biased
    upwards by about 1 / N: compare at equal N only (Dowson & Landau, 1982; Heusel et al., NeurIPS
    2017, https://arxiv.org/abs/1706.08500, who use the features of another network).

    Args:
        a: features [N, D].
        b: features [M, D].

    Raises:
        ValueError: for other shapes, and fewer than two of each.

    Example:
        >>> import torch, vaelib
        >>> a = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
        >>> round(vaelib.evaluate.frechet_distance(a, a + 3), 4)
        18.0
    """
    a, b = _features(a, b, at_least=2)
    root = _root(a.T.cov())
    middle = _root(root @ b.T.cov() @ root)
    spread = a.T.cov().trace() + b.T.cov().trace() - 2 * middle.trace()
    return ((a.mean(0) - b.mean(0)).square().sum() + spread).item()


def kernel_distance(a: Tensor, b: Tensor, blocks: int = 10) -> tuple[float, float]:
    """Squared maximum mean discrepancy of two clouds of features, and its standard error.

    Kernel (x . y / D + 1)^3, unbiased, so it may fall below 0 (Binkowski et al., ICLR 2018,
    https://arxiv.org/abs/1801.01401, Section 3).

    Args:
        a: features [N, D].
        b: features [M, D].
        blocks: of rows that share none, over which it is a mean.

    Raises:
        ValueError: for other shapes, and fewer than two rows a block.

    Example:
        >>> import torch, vaelib
        >>> zeros, ones = torch.zeros(20, 2), torch.ones(20, 2)
        >>> vaelib.evaluate.kernel_distance(zeros, ones)  # 1 + (1 + 1)^3 - 2
        (7.0, 0.0)
    """
    a, b = _features(a, b, at_least=2 * blocks)
    values = torch.stack(
        [_mmd(x, y) for x, y in zip(a.chunk(blocks), b.chunk(blocks), strict=True)]
    )
    return values.mean().item(), values.std().item() / math.sqrt(blocks)


def _mmd(a: Tensor, b: Tensor) -> Tensor:
    def mean_kernel(x: Tensor, y: Tensor, same: bool) -> Tensor:
        k = (x @ y.T / x.shape[1] + 1) ** 3
        return (k.sum() - k.trace()) / (len(x) * (len(x) - 1)) if same else k.mean()

    return mean_kernel(a, a, True) + mean_kernel(b, b, True) - 2 * mean_kernel(a, b, False)


def precision_recall(real: Tensor, fake: Tensor, k: int = 5) -> dict[str, float]:
    """Precision, recall, density and coverage of samples against data.

    A ball reaches from each point to its k-th neighbour of the same kind. Precision is the share of
    fakes in some real ball, recall that of reals in some fake ball (Kynkaanniemi et al., NeurIPS
    2019, https://arxiv.org/abs/1904.06991, Equation 2). Density counts the real balls around a
    fake, over k, which one outlier cannot fill; coverage is the share of real balls with a fake in
    them (Naeem et al., ICML 2020, https://arxiv.org/abs/2002.09797, Equations 3 and 4).

    Args:
        real: features [N, D].
        fake: features [M, D].
        k: which neighbour.

    Raises:
        ValueError: for other shapes, and no more than k of each.

    Example:
        >>> import torch, vaelib
        >>> real = torch.arange(10.0).view(10, 1)
        >>> vaelib.evaluate.precision_recall(real, real[:5] + 0.1, k=1)
        {'precision': 1.0, 'recall': 0.6, 'density': 2.0, 'coverage': 0.6}
    """
    real, fake = _features(real, fake, at_least=k + 1)
    real_radius, fake_radius = _radius(real, k), _radius(fake, k)
    around, inside = 0.0, 0.0  # real balls around each fake; fakes that are in one
    covered = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    recalled = covered.clone()
    for chunk, radius in zip(fake.split(512), fake_radius.split(512), strict=True):
        distance = _distance(real, chunk)
        in_real = distance <= real_radius[:, None]
        around += in_real.sum().item()
        inside += in_real.any(0).sum().item()
        covered |= in_real.any(1)
        recalled |= (distance <= radius).any(1)
    return {
        "precision": inside / len(fake),
        "recall": recalled.double().mean().item(),
        "density": around / (k * len(fake)),
        "coverage": covered.double().mean().item(),
    }


def _radius(points: Tensor, k: int) -> Tensor:
    """The squared distance from each point to its k-th neighbour, itself not counted."""
    return torch.cat([_distance(c, points).kthvalue(k + 1, 1).values for c in points.split(512)])


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances [N, M] by a product of matrices, in float64; a copy's is 0."""
    length = a.square().sum(1)[:, None] + b.square().sum(1)
    squared = length - 2 * a @ b.T
    return torch.where(squared > 1e-12 * length, squared, 0.0)  # below is rounding


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def _features(a: Tensor, b: Tensor, at_least: int) -> tuple[Tensor, Tensor]:
    for name, t in (("first", a), ("second", b)):
        if t.dim() != 2 or t.shape[1:] != a.shape[1:] or len(t) < at_least:
            raise ValueError(
                f"The {name} features have shape {list(t.shape)}; expected [N, D] with N at least "
                f"{at_least} and one D for both: flatten images, or take more of them."
            )
    return a.double(), b.double()


def linear_probe(
    train: Tensor, train_y: Tensor, test: Tensor, test_y: Tensor, decay: float = 1e-3
) -> float:
    """Accuracy on test of a logistic regression fitted to train.

    Codes are scaled by train's mean and deviation. Fitted by L-BFGS from zero, so without any
    randomness.

    Args:
        train: codes [N, D].
        train_y: labels [N].
        test: codes [M, D].
        test_y: labels [M].
        decay: half the weight of ``|w|^2`` in the mean loss.

    Example:
        >>> import torch, vaelib
        >>> codes, labels = torch.linspace(-1, 1, 10).view(10, 1), torch.arange(10) // 5
        >>> vaelib.evaluate.linear_probe(codes, labels, codes, labels)
        1.0
    """
    mean, deviation = train.mean(0), train.std(0).clamp(min=1e-8)
    train, test = (train - mean) / deviation, (test - mean) / deviation
    classes = int(train_y.max()) + 1
    weight = train.new_zeros(train.shape[1], classes, requires_grad=True)
    bias = train.new_zeros(classes, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(train @ weight + bias, train_y) + decay * weight.square().sum() / 2
        value.backward()
        return value

    with torch.enable_grad():
        solver.step(loss)  # type: ignore[no-untyped-call]
    return ((test @ weight + bias).argmax(-1) == test_y).double().mean().item()


def nearest_neighbours(
    train: Tensor, train_y: Tensor, test: Tensor, test_y: Tensor, k: int = 10
) -> float:
    """Accuracy on test of the vote of the nearest codes in train.

    Args:
        train: codes [N, D].
        train_y: labels [N].
        test: codes [M, D].
        test_y: labels [M].
        k: how many vote.

    Example:
        >>> import torch, vaelib
        >>> codes, labels = torch.linspace(-1, 1, 10).view(10, 1), torch.arange(10) // 5
        >>> vaelib.evaluate.nearest_neighbours(codes, labels, codes, labels, k=3)
        1.0
    """
    guesses = []
    for chunk in test.split(512):
        nearest = torch.cdist(chunk, train).topk(k, largest=False).indices
        guesses.append(train_y[nearest].mode(-1).values)
    return (torch.cat(guesses) == test_y).double().mean().item()
