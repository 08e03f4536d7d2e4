"""Networks: plain `nn.Sequential`s, so that a reader can print one and see all of it."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
}


def mlp(sizes: Sequence[int], activation: str = "relu", norm: str | None = None) -> nn.Sequential:
    """A multilayer perceptron, [N, sizes[0]] -> [N, sizes[-1]], its last layer linear.

    `norm="layer"` puts a LayerNorm before each activation. Raises ValueError for an unknown
    activation or norm, and for sizes that are not at least two positive whole numbers.
    """
    if len(sizes) < 2 or not all(isinstance(n, int) and n > 0 for n in sizes):
        raise ValueError(
            f"mlp got sizes {tuple(sizes)}; expected at least two positive whole numbers, from "
            "input to output."
        )
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}; expected one of {', '.join(ACTIVATIONS)}.")
    if norm not in (None, "layer"):
        raise ValueError(f"norm is {norm!r}; expected None or 'layer'.")
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers.append(nn.Linear(n_in, n_out))
        if norm == "layer":
            layers.append(nn.LayerNorm(n_out))
        layers.append(ACTIVATIONS[activation]())
    hidden_end = -1 if norm is None else -2
    return nn.Sequential(*layers[:hidden_end])  # nothing after the last linear layer
