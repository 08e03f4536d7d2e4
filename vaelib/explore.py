"""`explore(model)`: move through the latent space and watch the image follow.

The networks are described for js/network.js, which runs them in the reader's browser.
"""

import base64
import json
import math
import operator
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import traitlets
from torch import Tensor, nn
from torch.distributions import Distribution

from .arrays import Data, Images, as_tensor, scale_pixels
from .contract import likelihood_of
from .distributions import is_bernoulli
from .estimates import dream, why_not_flat
from .information import encoded
from .model import VAE
from .modes import in_eval_mode, tensor_like
from .nets import Flatten, ResidualBlock
from .plots import CLASS_COLORS
from .posteriors import normal
from .regions import regions
from .widget import Weights, Widget, callable_module, film, png

LARGE = 1_500_000  # bytes of weights, as text, beyond which a page is told to be heavy
SPAN = 3.0  # the pad shows -SPAN to SPAN, or more where the points need it

ACTIVATIONS: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.SiLU: "silu",
    nn.GELU: "gelu",
    nn.Tanh: "tanh",
    nn.ELU: "elu",
    nn.Softplus: "softplus",
    nn.Sigmoid: "sigmoid",
}
# In eval mode these change nothing but, perhaps, the shape.
SILENT = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten, nn.Unflatten)
LAYERS: tuple[type[nn.Module], ...] = (
    *SILENT,
    nn.Linear,
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
)
KNOWN = (
    "Sequential, Linear, Conv2d, ConvTranspose2d, LayerNorm, GroupNorm, BatchNorm, ResidualBlock, "
    "Flatten, Unflatten, Dropout, " + ", ".join(kind.__name__ for kind in ACTIVATIONS)
)


def steps_of(
    module: nn.Module, shape: Sequence[int], weights: Weights
) -> tuple[list[dict[str, Any]], tuple[int, ...]]:
    """A network as steps for network.js, and the shape of what comes out.

    shape: that of one input, without the batch. Raises ValueError for a module that network.js
    does not run, or a setting of one.
    """
    shape = tuple(shape)
    kind = type(module)
    # A subclass or a hook computes something else than the layer whose name it bears.
    usual = kind is Flatten or all(
        kind.forward is layer.forward for layer in LAYERS if isinstance(module, layer)
    )
    if not usual or module._forward_hooks or module._forward_pre_hooks:
        raise _refusal(module)
    if kind is nn.Sequential:
        steps: list[dict[str, Any]] = []
        for part in module.children():
            more, shape = steps_of(part, shape, weights)
            steps += more
        return steps, shape
    if kind is ResidualBlock:
        body, after = steps_of(module.body, shape, weights)  # type: ignore[arg-type]
        return [{"op": "residual", "body": body}], after
    if kind in ACTIVATIONS:
        plain = kind()
        for setting in ("approximate", "alpha", "beta", "threshold"):
            if getattr(module, setting, None) != getattr(plain, setting, None):
                raise _refusal(module)
        return [{"op": ACTIVATIONS[kind]}], shape
    step = None if isinstance(module, SILENT) else _layer(module, shape, weights)
    if step is not None and step["op"] in ("norm", "affine"):
        return [step], shape
    with torch.no_grad(), in_eval_mode(module):
        after = tuple(module(tensor_like(module).new_zeros(1, *shape)).shape[1:])
    return ([] if step is None else [step]), after


def _layer(module: nn.Module, shape: tuple[int, ...], weights: Weights) -> dict[str, Any]:
    """One layer with weights; shape is its input's."""
    if isinstance(module, nn.Linear) and len(shape) == 1:
        bias: Tensor | None = module.bias
        return {
            "op": "linear",
            "sizes": [module.in_features, module.out_features],
            "weight": weights.put(module.weight),
            "bias": weights.put(torch.zeros(module.out_features) if bias is None else bias),
        }
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and len(shape) == 3:
        square = len(set(module.kernel_size)) == len(set(module.stride)) == 1
        padding = module.padding
        simple = module.groups == 1 and module.dilation == (1, 1)
        if not (square and simple and module.padding_mode == "zeros" and padding[0] == padding[1]):
            raise _refusal(module)
        bias = module.bias
        return {
            "op": "conv" if isinstance(module, nn.Conv2d) else "transposed",
            "channels": [module.in_channels, module.out_channels],
            "size": list(shape[1:]),
            "kernel": module.kernel_size[0],
            "stride": module.stride[0],
            "padding": padding[0],
            "extra": list(module.output_padding),
            "weight": weights.put(module.weight),
            "bias": weights.put(torch.zeros(module.out_channels) if bias is None else bias),
        }
    if isinstance(module, nn.LayerNorm) and tuple(module.normalized_shape) == shape:
        return _norm(module, 1, shape, weights)  # a single group whose every value is a channel
    if isinstance(module, nn.GroupNorm):
        return _norm(module, module.num_groups, (module.num_channels,), weights)
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_var is not None:
        scale, shift = _affine(module, (module.num_features,))
        mean, var = module.running_mean.cpu().double(), module.running_var.cpu().double()  # type: ignore[union-attr]
        per_value = scale / (var + module.eps).sqrt()
        return {
            "op": "affine",
            "channels": module.num_features,
            "weight": weights.put(per_value),
            "bias": weights.put(shift - mean * per_value),
        }
    raise _refusal(module)


def _norm(module: Any, groups: int, sizes: tuple[int, ...], weights: Weights) -> dict[str, Any]:
    scale, shift = _affine(module, sizes)
    return {
        "op": "norm",
        "groups": groups,
        "channels": scale.numel(),
        "eps": module.eps,
        "weight": weights.put(scale),
        "bias": weights.put(shift),
    }


def _affine(module: Any, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    scale = torch.ones(shape) if module.weight is None else module.weight.detach().cpu()
    shift = torch.zeros(shape) if module.bias is None else module.bias.detach().cpu()
    return scale.double(), shift.double()


def _refusal(module: nn.Module) -> ValueError:
    return ValueError(
        f"explore cannot run {module} in a page; expected, in their usual settings, {KNOWN}: build "
        "the network of these, or look at the model with model.decode."
    )


class Explorer(Widget):
    """The widget that `vaelib.explore` makes; it follows the reader's hand in a live kernel.

    Attributes:
        z: the latent point, a list of latent_dim floats; set it to move the pad.

    Example:
        >>> import vaelib
        >>> widget = vaelib.explore(vaelib.mlp_vae(2, (8,)))
        >>> widget.z = [1.0, -0.5]
        >>> widget.image.shape
        torch.Size([1, 28, 28])
    """

    PLACE = "z"
    z = traitlets.List(traitlets.Float()).tag(sync=True)
    drawing = traitlets.CBytes().tag(sync=True)  # a memoryview arrives

    def __init__(self, model: VAE, poster: Tensor, **traits: Any) -> None:
        self.model = model
        super().__init__(png(poster), POSTER, SENTENCE, **traits)

    @traitlets.validate("z")
    def _valid_z(self, proposal: Any) -> list[float]:
        z, latent_dim = proposal.value, self.model.latent_dim
        if len(z) != latent_dim or not all(map(math.isfinite, z)):
            raise traitlets.TraitError(f"z is {z}; expected {latent_dim} finite numbers.")
        return z

    @property
    def image(self) -> Tensor:
        """The mean of p(x|z) at the pad's z, [C, H, W]."""
        with torch.no_grad(), in_eval_mode(self.model):
            return self.model.decode(tensor_like(self.model).new_tensor([self.z])).mean[0]

    @property
    def drawn(self) -> Tensor | None:
        """The drawing, [1, 1, H, W] in [0, 1], fit for `encode`; None while there is none."""
        if not self.drawing:
            return None
        _, height, width = json.loads(str(self.spec))["shape"]
        ink = torch.frombuffer(bytearray(self.drawing), dtype=torch.uint8)
        return (ink.view(1, 1, height, width) / 255).to(tensor_like(self.model))


POSTER = "A grid of images, each decoded from one point of the latent plane."
SENTENCE = (
    "Images decoded from a grid over the latent plane. Where JavaScript is on, you can move "
    "through the plane and see each point decoded."
)


@torch.no_grad()
def explore(
    model: VAE,
    *,
    axes: tuple[int, int] = (0, 1),
    points: Images | None = None,
    draw: bool = False,
    interpolate: bool = False,
    replay: Data | None = None,
    contours: Mapping[str, Distribution] | None = None,
) -> Explorer:
    """A pad over two latents and the image decoded there, live in Jupyter, Colab and the page.

    Args:
        model: a `VAE` of one flat latent, of networks that the page can run.
        axes: which two latents the pad moves; up to eight others have sliders.
        points: Images whose codes are dots on the pad, coloured by class.
        draw: a canvas whose strokes are encoded, placed on the pad with the posterior's ellipse,
            and reconstructed, with the rate and distortion of the drawing; for Bernoulli models of
            one channel, with a standard normal prior.
        interpolate: two pins, and a slider along the line between them.
        replay: pictures [T, H, W] or [T, C, H, W], such as a latent grid an epoch, with a slider.
        contours: densities over the plane by name, a menu of them: the smallest regions that hold
            50, 90 and 99 % of the chosen one are drawn; for models of two latents.

    Raises:
        ValueError: for a model that is not of one flat latent, or whose image is neither its
            decoder's output nor the sigmoid of that, for modules that the page does not run, for
            axes that are not two latents, and for contours over another space.
        TypeError: for points without labels.

    Example:
        >>> import vaelib
        >>> widget = vaelib.explore(vaelib.mlp_vae(2, (8,)), interpolate=True)
    """
    net, latent_dim = _decoder(model)
    axes = tuple(map(operator.index, axes))  # type: ignore[assignment]
    if len(axes) != 2 or len({*axes}) != 2 or not all(0 <= d < latent_dim for d in axes):
        raise ValueError(
            f"axes is {axes!r}; expected two different latents of 0 to {latent_dim - 1}."
        )
    weights = Weights()
    decoder, _ = steps_of(net, (latent_dim,), weights)
    px_z = likelihood_of(model)
    shape = tuple(px_z.event_shape)
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ValueError(
            f"The model is over {list(shape)}; explore shows images [1 or 3, height, width]."
        )
    spec: dict[str, Any] = {
        "kind": "explorer",
        "shape": shape,
        "latentDim": latent_dim,
        "axes": axes,
        "span": SPAN,
        "head": _head(model, net, latent_dim),
        "decoder": decoder,
        "interpolate": interpolate,
    }
    if draw:
        if shape[0] != 1 or not is_bernoulli(px_z) or spec["head"] != "sigmoid":
            raise ValueError(
                "draw=True needs a Bernoulli model of images with one channel, such as digits, "
                "whose decoder gives logits."
            )
        usual = type(model).encode is VAE.encode and model.posterior is normal
        if model.prior is not None or model.encoder is None or not usual:
            raise ValueError(
                "draw=True needs the standard prior, and a normal q(z|x) as VAE.encode has it."
            )
        spec["encoder"], _ = steps_of(model.encoder, shape, weights)
    if points is not None:
        if not isinstance(points, Images):
            raise TypeError(f"points is a {type(points).__name__}; expected Images, with labels.")
        codes = encoded(model, points).cpu().double()[:, list(axes)]
        classes = sorted(set(np.asarray(points.y).tolist()))
        if len(classes) > len(CLASS_COLORS) or not codes.isfinite().all():
            raise ValueError(
                f"points have {len(classes)} classes and codes up to {codes.abs().max():.3g}; "
                f"expected up to {len(CLASS_COLORS)} classes and finite codes."
            )
        reach = codes.abs().flatten().quantile(0.999).item()
        spec["span"] = max(SPAN, math.ceil(2 * reach) / 2)
        spec["points"] = {
            "z": codes.round(decimals=3).tolist(),
            "classes": classes,
            "y": [classes.index(y) for y in np.asarray(points.y).tolist()],
        }
        if draw:
            ten = (scale_pixels(as_tensor(points)[:10].cpu()) * 255).round().to(torch.uint8)
            spec["examples"] = base64.b64encode(ten.numpy().tobytes()).decode()
    if replay is not None:
        spec["replay"] = _replay(replay)
    if contours is not None:
        if latent_dim != 2:
            raise ValueError(f"contours are for models of two latents; this one has {latent_dim}.")
        spec["contours"] = [
            {"name": name, "regions": regions(p, axes, spec["span"])}
            for name, p in contours.items()
        ]
    packed, described = weights.to_bytes(), json.dumps(spec, allow_nan=False)
    weight = len(packed) * 4 / 3 + len(described)
    if weight > LARGE:
        warnings.warn(
            f"This explorer weighs {weight / 1e6:.1f} MB in a page; a smaller model, or fewer "
            "points, would load faster.",
            stacklevel=3,  # torch.no_grad stands between
        )
    return Explorer(
        model,
        _grid(model, latent_dim, axes, spec["span"]),
        spec=described,
        weights=packed,
        z=[0.0] * latent_dim,
    )


def _decoder(model: VAE) -> tuple[nn.Module, int]:
    """The network that makes the image of z, and z's size; ValueError for models of other kinds."""
    if model.labels == "given":
        why = "this one is p(x|y), whose decoder reads a label, too"
    elif model.decoder is None or model.latent_dim is None:
        why = f"{type(model).__name__} has none"
    elif type(model).infer is not VAE.infer and (why := why_not_flat(dream(model))):
        pass
    elif model.latent_dim < 2:
        why = f"this one has {model.latent_dim} latent"
    else:
        return model.decoder, model.latent_dim
    raise ValueError(
        f"explore decodes a flat z of two or more latents by model.decoder, but {why}; expected "
        "such a model: look at others with model.sample and model.reconstruct."
    )


def _head(model: VAE, decoder: nn.Module, latent_dim: int) -> str:
    """How the image follows from the decoder's output."""
    z = 2 * torch.randn(256, latent_dim, generator=torch.Generator().manual_seed(0))
    z = z.to(tensor_like(model))
    with in_eval_mode(model):
        output, mean = decoder(z), model.decode(z).mean
    for name, image in (("identity", output), ("sigmoid", output.sigmoid())):
        if image.shape == mean.shape and torch.allclose(image, mean, atol=1e-5):
            return name
    raise ValueError(
        "explore shows models whose mean is the decoder's output or the sigmoid of it, as under "
        "bernoulli and gaussian; this likelihood has another."
    )


def _grid(model: VAE, latent_dim: int, axes: tuple[int, int], span: float, side: int = 7) -> Tensor:
    """Decoded images over the pad, [C, side * H, side * W]."""
    ticks = torch.linspace(-span, span, side)
    z = tensor_like(model).new_zeros(side, side, latent_dim)
    z[..., axes[0]], z[..., axes[1]] = ticks.to(z), ticks.flip(0)[:, None].to(z)
    with in_eval_mode(model):
        images = model.decode(z.flatten(0, 1)).mean.unflatten(0, (side, side))
    return images.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2).clamp(0, 1)


def _replay(pictures: Data) -> dict[str, Any]:
    x = as_tensor(pictures)
    x = x.unsqueeze(1) if x.dim() == 3 else x
    if x.dim() != 4 or x.shape[1] not in (1, 3):
        raise ValueError(
            f"replay has shape {list(x.shape)}; expected pictures [T, H, W] or [T, 1 or 3, H, W]."
        )
    x = x.float() / 255 if x.dtype == torch.uint8 else x
    return film(x)


callable_module(__name__, explore)

__all__ = ["Explorer", "explore"]
