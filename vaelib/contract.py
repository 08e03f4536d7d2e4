"""What loops and estimates ask of a model, whoever wrote it: its labels, its x, its likelihood.

Nothing here needs a `VAE`: a module whose forward returns a `Draw` answers as well.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from .arrays import Data, Images, as_labels, as_tensor, check_shape, scale_pixels
from .draw import Draw, as_inferred
from .model import VAE
from .modes import said, seeded, tensor_like


def labels_kind(model: nn.Module) -> Literal["given", "learnt"] | None:
    """When the model is handed labels: at every use, in training only, or never."""
    return getattr(model, "labels", None)


def takes_missing(model: nn.Module) -> bool:
    """Whether NaN is, to this model, a missing entry of x."""
    return bool(getattr(model, "missing", False))


def labels_of(model: nn.Module, data: Any, y: Any = None, training: bool = False) -> Tensor | None:
    """The labels that a model is to be handed with data: y, or those of Images, or none.

    A model with labels = "learnt" is told them in training only. Raises ValueError where a model
    that needs labels gets none, and where one is handed labels that it does not take.
    """
    kind = labels_kind(model)
    if kind not in (None, "given", "learnt"):
        raise ValueError(f"model.labels is {kind!r}; expected None, 'given' or 'learnt'.")
    if kind is None or (kind == "learnt" and not training):
        if y is not None:
            when = "takes no labels" if kind is None else "is told labels in training only"
            raise ValueError(f"y was handed over, but the model {when}; expected none.")
        return None
    if y is None and isinstance(data, Images):
        y = data.y
    if y is None:
        how = ", -1 where it is missing" if kind == "learnt" else ""
        also = "" if training else ", or y="
        raise ValueError(
            f'The model has labels = "{kind}", but the data have none; expected Images(x, y){also},'
            f" a label for each example{how}."
        )
    y = as_labels(y)
    if len(y) != len(data):
        raise ValueError(f"y has {len(y)} labels for {len(data)} examples; expected one for each.")
    return y


def prepared(model: nn.Module, x: Tensor) -> Tensor:
    """x as a model takes it, also one that shares nothing with `VAE`."""
    if isinstance(model, VAE):
        return model.prepare(x)
    like = tensor_like(model)
    x = scale_pixels(x.to(like.device), like.dtype)
    return x.to(like.dtype) if x.is_floating_point() else x


@torch.no_grad()
def likelihood_of(model: nn.Module, x: Data | None = None, y: Any = None) -> Distribution:
    """p(x|z) as the model returns it, for two examples of x: tells which likelihood it has.

    y: their labels, where not in x; a model with labels = "learnt" is handed none. Without x, of
    one z from the prior. In eval mode; the random state is left as it was.
    """
    if x is None:
        with seeded(model, 0):
            return model.generate(1)[0]  # type: ignore[operator]
    y = labels_of(model, x, y)
    y = None if y is None else y[:2]
    x = as_tensor(x)
    check_shape(x, getattr(model, "x_shape", None))
    few = x[:2]
    try:
        with seeded(model, 0):
            few = prepared(model, few)
            if isinstance(model, VAE):
                px_z = as_inferred(model.infer(few, 1, None, model.prepare_labels(y, len(few))))[0]
            else:
                draw = model(few, 1, **({} if y is None else {"y": y}))
                if not isinstance(draw, Draw):
                    raise TypeError(
                        f"The model returned a {type(draw).__name__}; expected a vaelib.Draw, as "
                        "vaelib.Draw.of makes it."
                    )
                px_z = draw.px_z
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, IndexError) as error:
        raise ValueError(
            f"The model failed on two examples of data of shape {list(x.shape)}, {x.dtype} "
            f"({said(error).rstrip('.')}); expected data such as it is made for: reshape, or "
            "change the model."
        ) from error
    if px_z is None:
        raise ValueError(
            f"The Draw of {type(model).__name__} says no p(x|z); expected one: build it with "
            "vaelib.Draw.of(x, px_z, latent)."
        )
    if len(px_z.batch_shape) != 2:
        raise ValueError(
            f"p(x|z) has batch shape {list(px_z.batch_shape)} and event shape "
            f"{list(px_z.event_shape)}; expected [K, B], and the shape of an example: declare "
            "every other axis with Independent."
        )
    return px_z
