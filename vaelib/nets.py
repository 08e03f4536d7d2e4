"""Networks: plain `nn.Sequential`s, so that a reader can print one and see all of it."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

Activation = Literal["relu", "silu", "gelu", "tanh", "elu", "softplus"]

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
}


# What networks are called under: None, or the dtype of autocast. `fit` sets it, `call` reads it.
_autocast: torch.dtype | None = None


def call(network: nn.Module, *inputs: Tensor, held: bool = False) -> Any:
    """The network's output, in the precision that `vaelib.fit` was asked for.

    Under precision="bf16" the network alone runs under autocast: its outputs (a tensor, or a tuple
    of them) come back in the network's own dtype, so that densities keep theirs. A model that
    writes `infer` calls its networks by this.

    Args:
        network: called with the inputs.
        inputs: at least one.
        held: whether its weights are held still, so that the gradient is of the inputs alone.

    Example:
        >>> import torch, vaelib
        >>> vaelib.nets.call(torch.nn.Linear(4, 2), torch.zeros(3, 4)).shape
        torch.Size([3, 2])
    """
    if _autocast is None:
        return _outputs(network, inputs, held)
    with torch.autocast(inputs[0].device.type, _autocast):
        outputs = _outputs(network, inputs, held)
    dtype = next((p.dtype for p in network.parameters()), inputs[0].dtype)
    if isinstance(outputs, Tensor):
        return outputs.to(dtype)
    return tuple(t.to(dtype) if t.is_floating_point() else t for t in outputs)


def _outputs(network: nn.Module, inputs: tuple[Tensor, ...], held: bool) -> Any:
    if not held:
        return network(*inputs)
    weights = {name: p.detach() for name, p in network.named_parameters()}
    return functional_call(network, weights, inputs)


@contextmanager
def autocast(dtype: torch.dtype | None) -> Iterator[None]:
    """Let `call` run networks under autocast, as `vaelib.fit` does.

    Args:
        dtype: such as torch.bfloat16; None for the networks' own.

    Example:
        >>> import torch, vaelib
        >>> with vaelib.nets.autocast(torch.bfloat16):
        ...     out = vaelib.nets.call(torch.nn.Linear(4, 2), torch.zeros(3, 4))
        >>> out.dtype
        torch.float32
    """
    global _autocast
    before, _autocast = _autocast, dtype
    try:
        yield
    finally:
        _autocast = before


class Flatten(nn.Flatten):
    """Flatten x, and make floats of the model's dtype of counts (int64): what an `mlp` takes.

    Example:
        >>> import torch, vaelib
        >>> vaelib.nets.Flatten()(torch.tensor([[[1, 2], [3, 4]]]))
        tensor([[1., 2., 3., 4.]])
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("like", torch.empty(0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return x if x.is_floating_point() else x.to(self.like.dtype)  # type: ignore[arg-type]


def mlp(
    sizes: Sequence[int], activation: Activation = "relu", norm: Literal["layer"] | None = None
) -> nn.Sequential:
    """A multilayer perceptron, [N, sizes[0]] -> [N, sizes[-1]], its last layer linear.

    Args:
        sizes: from input to output.
        activation: after each layer but the last.
        norm: "layer" puts a LayerNorm before each activation.

    Raises:
        ValueError: for an unknown activation or norm, and for sizes that are not at least two
            positive whole numbers.

    Example:
        >>> import vaelib
        >>> vaelib.nets.mlp((4, 8, 2))
        Sequential(
          (0): Linear(in_features=4, out_features=8, bias=True)
          (1): ReLU()
          (2): Linear(in_features=8, out_features=2, bias=True)
        )
    """
    if len(sizes) < 2 or not all(isinstance(n, int) and n > 0 for n in sizes):
        raise ValueError(
            f"mlp got sizes {tuple(sizes)}; expected at least two positive whole numbers, from "
            "input to output."
        )
    if norm not in (None, "layer"):
        raise ValueError(f"norm is {norm!r}; expected None or 'layer'.")
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers.append(nn.Linear(n_in, n_out))
        if norm == "layer":
            layers.append(nn.LayerNorm(n_out))
        layers.append(_activation(activation))
    hidden_end = -1 if norm is None else -2
    return nn.Sequential(*layers[:hidden_end])  # nothing after the last linear layer


class MaskedLinear(nn.Linear):
    """A linear layer of which a mask keeps some weights, [..., n_in] -> [..., n_out].

    Args:
        mask: bool [n_out, n_in], True where an output reads an input.

    Example:
        >>> import torch, vaelib
        >>> layer = vaelib.nets.MaskedLinear(torch.tensor([[True, False]]))
        >>> bool(layer(torch.tensor([1.0, 2.0])) == layer(torch.tensor([1.0, 3.0])))
        True
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


def masked_mlp(
    dim: int,
    hidden: int,
    num_outputs: int = 1,
    activation: Activation = "silu",
    reverse: bool = False,
) -> nn.Sequential:
    """An autoregressive perceptron of one hidden layer, [..., dim] -> [..., num_outputs * dim].

    Output d of each of the ``num_outputs`` blocks reads the inputs before d alone (MADE, Germain et
    al., ICML 2015, https://arxiv.org/abs/1502.03509, Equations 8 and 9). Some hidden units read no
    input: what a `WithContext` adds to them reaches the first output, too.

    Args:
        dim: how many inputs, in their order.
        hidden: units of the hidden layer.
        num_outputs: numbers for each input.
        activation: as in `mlp`.
        reverse: whether the last input comes first.

    Raises:
        ValueError: for an unknown activation, and for sizes that are not positive whole numbers.

    Example:
        >>> import torch, vaelib
        >>> net = vaelib.nets.masked_mlp(3, 16)
        >>> slope = torch.autograd.functional.jacobian(net, torch.zeros(3))
        >>> bool((slope.triu() == 0).all())
        True
    """
    for size in (dim, hidden, num_outputs):
        if not isinstance(size, int) or size < 1:
            raise ValueError(
                f"masked_mlp got dim={dim!r}, hidden={hidden!r} and num_outputs={num_outputs!r}; "
                "expected positive whole numbers."
            )
    rank = torch.arange(dim).flip(0) if reverse else torch.arange(dim)
    last = torch.arange(hidden) * dim // hidden - 1  # of the inputs that a unit reads; -1: none
    reads, feeds = rank <= last.unsqueeze(1), last < rank.unsqueeze(1)
    return nn.Sequential(
        MaskedLinear(reads), _activation(activation), MaskedLinear(feeds.repeat(num_outputs, 1))
    )


class WithContext(nn.Module):
    """A perceptron whose first layer also reads a context: [..., n_in], [..., C] -> [..., n_out].

    The context need not have all of the leading axes: it is read once, whatever the number of
    draws that share it.

    Args:
        net: as of `mlp` or `masked_mlp`.
        context_dim: C.

    Example:
        >>> import torch, vaelib
        >>> net = vaelib.nets.WithContext(vaelib.nets.mlp((4, 8, 2)), context_dim=3)
        >>> net(torch.zeros(5, 7, 4), torch.zeros(7, 3)).shape
        torch.Size([5, 7, 2])
    """

    def __init__(self, net: nn.Sequential, context_dim: int) -> None:
        super().__init__()
        self.net = net
        self.context = nn.Linear(context_dim, net[0].out_features, bias=False)  # type: ignore[arg-type]

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        first, *others = self.net
        x = first(x) + self.context(context)
        for layer in others:
            x = layer(x)
        return x


class ResidualBlock(nn.Module):
    """x + f(x), [N, channels, H, W], with f twice norm, activation and 3x3 convolution.

    The norm is over groups of an example's own channels, so the examples of a batch know nothing
    of each other (He et al., ECCV 2016, https://arxiv.org/abs/1603.05027, Figure 4e).

    Args:
        channels: of x.
        activation: as in `mlp`.

    Example:
        >>> import torch, vaelib
        >>> vaelib.nets.ResidualBlock(8)(torch.zeros(1, 8, 4, 4)).shape
        torch.Size([1, 8, 4, 4])
    """

    def __init__(self, channels: int, activation: Activation = "silu") -> None:
        super().__init__()
        self.body = nn.Sequential(
            _group_norm(channels),
            _activation(activation),
            nn.Conv2d(channels, channels, 3, padding=1),
            _group_norm(channels),
            _activation(activation),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def conv_encoder(
    x_shape: Sequence[int],
    num_outputs: int,
    channels: Sequence[int] = (32, 64),
    blocks: int = 0,
    activation: Activation = "silu",
) -> nn.Sequential:
    """A convolutional network, [N, C, H, W] -> [N, num_outputs].

    Args:
        x_shape: (C, H, W).
        num_outputs: of the linear layer that ends it.
        channels: of its stages, each of which halves height and width.
        blocks: residual blocks a stage.
        activation: as in `mlp`.

    Raises:
        ValueError: for an x_shape of other length, an unknown activation, and sizes that are not
            positive whole numbers.

    Example:
        >>> import torch, vaelib
        >>> vaelib.nets.conv_encoder((1, 28, 28), 4, (8, 16))(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 4])
    """
    sizes = _sizes(x_shape, channels, blocks)
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise((x_shape[0], *channels)):
        layers.append(nn.Conv2d(n_in, n_out, 3, stride=2, padding=1))
        layers += [ResidualBlock(n_out, activation) for _ in range(blocks)]
        layers += [_group_norm(n_out), _activation(activation)]
    num_features = channels[-1] * math.prod(sizes[-1])
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(num_features, num_outputs))


def conv_decoder(
    num_inputs: int,
    out_shape: Sequence[int],
    channels: Sequence[int] = (32, 64),
    blocks: int = 0,
    activation: Activation = "silu",
) -> nn.Sequential:
    """The mirror image of `conv_encoder`, [N, num_inputs] -> [N, C, H, W].

    Args:
        num_inputs: of the linear layer that begins it.
        out_shape: (C, H, W).
        channels: of the encoder's stages.
        blocks: residual blocks a stage.
        activation: as in `mlp`.

    Raises:
        ValueError: as `conv_encoder` does.

    Example:
        >>> import torch, vaelib
        >>> vaelib.nets.conv_decoder(2, (1, 28, 28), (8, 16))(torch.zeros(3, 2)).shape
        torch.Size([3, 1, 28, 28])
    """
    sizes = _sizes(out_shape, channels, blocks)
    shape = (channels[-1], *sizes[-1])
    layers = [nn.Linear(num_inputs, math.prod(shape)), nn.Unflatten(1, shape)]
    widths = pairwise((*reversed(channels), out_shape[0]))
    for (n_in, n_out), (small, large) in zip(widths, pairwise(reversed(sizes)), strict=True):
        layers += [ResidualBlock(n_in, activation) for _ in range(blocks)]
        layers += [_group_norm(n_in), _activation(activation)]
        odd = (large[0] - 2 * small[0] + 1, large[1] - 2 * small[1] + 1)
        layers.append(nn.ConvTranspose2d(n_in, n_out, 3, stride=2, padding=1, output_padding=odd))
    return nn.Sequential(*layers)


def _sizes(shape: Sequence[int], channels: Sequence[int], blocks: int) -> list[tuple[int, int]]:
    """Height and width before the first layer and after each, the arguments checked."""
    numbers = (*shape, *channels)
    if len(shape) != 3 or not channels or not all(isinstance(n, int) and n > 0 for n in numbers):
        raise ValueError(
            f"A convolutional network got shape {tuple(shape)} and channels {tuple(channels)}; "
            "expected (C, H, W) and at least one number of channels, positive and whole."
        )
    if not isinstance(blocks, int) or blocks < 0:
        raise ValueError(f"blocks is {blocks!r}; expected a whole number of at least 0.")
    sizes = [(shape[1], shape[2])]
    for _ in channels:
        height, width = sizes[-1]
        sizes.append((-(-height // 2), -(-width // 2)))
    return sizes


def _activation(name: Activation) -> nn.Module:
    if name not in ACTIVATIONS:
        raise ValueError(f"activation is {name!r}; expected one of {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]()


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(channels, 8), channels)


__all__ = [
    "Flatten",
    "MaskedLinear",
    "ResidualBlock",
    "WithContext",
    "autocast",
    "call",
    "conv_decoder",
    "conv_encoder",
    "masked_mlp",
    "mlp",
]
