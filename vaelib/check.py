"""Does a model keep the contract? One sentence for each promise that it breaks.

Introduced in book/bring_your_own.md.
"""

import copy
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from .arrays import Data, binarize, check_data, scale_pixels
from .contract import labels_kind, labels_of, likelihood_of, takes_missing
from .distributions import is_bernoulli, kind_of
from .draw import latents_of
from .follows import look, unlike
from .io import load, save
from .modes import positive_int, said, seeded, tensor_like
from .objectives import Objective, elbo
from .promises import (
    FAILURES,
    Case,
    alone,
    densities_agree,
    draws_follow,
    finite,
    nested_layers,
    noise_counts,
    same_bits,
    same_draw,
    same_seed,
    shapes,
    state_of,
    weights_sum,
)
from .refusals import listed

EXAMPLES = 64  # of the data, at most


def check_model(
    model: nn.Module,
    data: Data,
    *,
    objective: Objective = elbo,
    y: Any = None,
    seed: int = 0,
    num_samples: int = 1000,
) -> None:
    """Check that a model keeps the contract that `fit`, estimates and `save` rely on.

    Looked at: shapes, finiteness and agreement of everything in its Draw; draws that follow q, by
    distances from its cdf (or its own draws), Stein's identities and its integral; weights of
    listed values; the closed-form KL against the sampled one; a gradient of the objective for each
    parameter within a few steps; no leak between examples and nothing moved in eval mode; the same
    bits for the same seed; noise; `generate`; and `save` with `load`. It takes seconds, works on a
    copy, and leaves the model and the caller's random state as they were. A q that says no
    `support` counts as one on all of R^D.

    Statistical promises come in families of tests, at most a dozen for each latent. As far as means
    of thousands of draws are normal, a family finds fault with a model that has none for one seed
    in a million.

    Args:
        model: a `VAE`, or any module whose forward returns a `Draw`.
        data: Images, a tensor or an array, [N, ...], N at least 2; the first 64 are used. Grey
            under a Bernoulli likelihood is binarized.
        objective: what it is to be trained by.
        y: labels, [N, ...], for a model that takes them, where they are not in data.
        seed: of all that is drawn.
        num_samples: draws of each of 8 examples, for what is statistical.

    Raises:
        ValueError: with a sentence for each broken promise: what was given, what was expected,
            what to do.

    Example:
        >>> import torch, vaelib
        >>> model = vaelib.mlp_vae(latent_dim=2, hidden=(16,), x_shape=(1, 4, 4))
        >>> vaelib.check_model(model, torch.rand(32, 1, 4, 4))
    """
    num_samples = positive_int("num_samples", num_samples)
    if len(data) < 2:
        raise ValueError(f"The data have {len(data)} example; expected at least 2, to tell apart.")
    y = labels_of(model, data, y, training=True)
    model, data = copy.deepcopy(model), data[:EXAMPLES]
    y = None if y is None else y[:EXAMPLES].to(tensor_like(model).device)
    with _others_random_state():
        try:
            px_z = likelihood_of(model, data, y if labels_kind(model) == "given" else None)
        except ValueError as error:  # it has a sentence already
            raise ValueError(said(error)) from error
        except FAILURES as error:
            raise ValueError(f"The model gave no p(x|z) for 2 examples: {said(error)}") from error
        x = _prepared(model, data, px_z, seed)
        case = Case(model, x, y, objective, seed, num_samples)
        broken: list[str] = []
        with seeded(model, seed + 1_000_000):
            for promise in PROMISES:
                try:
                    broken += promise(case)
                except FAILURES as error:
                    broken.append(f"Checking {promise.__doc__}, the model failed: {said(error)}")
                if broken and promise is shapes:
                    break  # nothing else can be read
    if broken:
        raise ValueError("\n".join(dict.fromkeys(broken)))


def _prepared(model: nn.Module, data: Data, px_z: Distribution, seed: int) -> Tensor:
    """The data as `fit` hands them to a model."""
    missing, like = takes_missing(model), tensor_like(model)
    x = check_data(data, px_z, whole=False, missing=missing)
    x = binarize(x, seed, missing=missing) if is_bernoulli(px_z) else scale_pixels(x, like.dtype)
    if next(model.parameters(), None) is None:
        return x
    return x.to(like.device, like.dtype if x.is_floating_point() else x.dtype)


# The promises that ask for more than a draw ------------------------------------------------------


def _gradients(case: Case) -> Iterator[str]:
    """training"""
    yield from case.trained[1]


def _generate(case: Case) -> Iterator[str]:
    """generate"""
    generate = getattr(case.model, "generate", None)
    if generate is None:
        return
    draw, n = case.draw(case.few, 1, case.told[0]), max(100, case.num_samples)
    given = {}
    if labels_kind(case.model) == "given" and case.y is not None:
        given["y"] = case.y[torch.arange(n) % len(case.y)].to(tensor_like(case.model).device)
    try:
        with seeded(case.model, case.seed), torch.no_grad():
            px_z, *zs = generate(n, **given)
            x = px_z.sample()
    except FAILURES as error:
        yield f"generate({n}) failed: {said(error)}"
        return
    ours = draw.px_z
    if px_z.batch_shape != (n,) or (ours is not None and px_z.event_shape != ours.event_shape):
        event = list(draw.x.shape[1:] if ours is None else ours.event_shape)
        yield (
            f"generate({n}) gave p(x|z) of batch shape {list(px_z.batch_shape)} and event shape "
            f"{list(px_z.event_shape)}; expected [{n}] and {event}, as infer has it."
        )
    elif x.shape != (n, *px_z.event_shape):
        yield f"A sample of generate({n})'s p(x|z) has shape {list(x.shape)}; expected [{n}, ...]."
    if ours is not None and kind_of(px_z) != kind_of(ours):
        yield (
            f"generate gave a p(x|z) that is a {kind_of(px_z)}, and infer a {kind_of(ours)}; "
            "expected one likelihood."
        )
    latents = latents_of(draw)
    got, expected = [list(z.shape[1:]) for z in zs], [list(t.z.shape[2:]) for t in latents]
    floats = [z.is_floating_point() for z in zs] == [t.z.is_floating_point() for t in latents]
    if got != expected or not floats or any(len(z) != n for z in zs):
        yield (
            f"generate({n}) gave latents of shapes {[list(z.shape) for z in zs]} and kinds "
            f"{[_short(z) for z in zs]}; expected {[[n, *shape] for shape in expected]} and "
            f"{[_short(t.z) for t in latents]}, in infer's order."
        )
    elif draw.latents:
        for i, (z, latent) in enumerate(zip(zs, latents)):
            if latent.p.batch_shape == () and not latent.is_bound:  # the same for every example
                with torch.no_grad():
                    found = unlike([look(latent.p, z.unsqueeze(1))], 1)
                if found is not None:
                    yield (
                        f"generate's latent {i} does not follow the p of infer's latent {i}: "
                        f"{found}, and give the latents in infer's order."
                    )


def _files(case: Case) -> Iterator[str]:
    """save and load"""
    plain = [
        ".".join(filter(None, (where, name)))
        for where, module in case.model.named_modules()
        for name, t in vars(module).items()
        if isinstance(t, Tensor)
    ]
    if plain:
        yield (
            f"{listed(plain)} is a tensor, but no parameter and no buffer, so that save leaves "
            "it out and .to(device) leaves it behind; expected self.register_buffer(name, tensor)."
        )
    trained, other = case.trained[0], copy.deepcopy(case.model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        try:
            save(trained, path)
            load(path, into=other)
        except FAILURES as error:
            yield f"save and load(path, into=model) failed: {said(error)}"
            return
    a, b = state_of(trained), state_of(other)
    lost = [name for name in trained.state_dict() if not same_bits(a[name], b[name])]
    if lost:
        yield f"save and load(into=) changed {listed(lost)}; expected the same bits."
        return
    drawn = [case.draw(case.few, 3, case.told[0], model=m) for m in (trained, other)]
    again = case.draw(case.few, 3, case.told[0], model=trained)
    if same_draw(drawn[0], again) and not same_draw(*drawn):
        yield (
            "After save and load(into=) the model draws otherwise: training moved something that "
            "is not in its state_dict; expected parameters and buffers to hold all of it."
        )


def _short(t: Tensor) -> str:
    return str(t.dtype).removeprefix("torch.")


@contextmanager
def _others_random_state() -> Iterator[None]:
    """Put NumPy's and Python's random state back, should a model draw from them."""
    states = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(states[0])  # noqa: NPY002
        random.setstate(states[1])


PROMISES: tuple[Callable[[Case], Iterator[str]], ...] = (
    shapes,
    finite,
    densities_agree,
    weights_sum,
    nested_layers,
    draws_follow,
    same_seed,
    noise_counts,
    alone,
    _gradients,
    _generate,
    _files,
)


__all__ = ["check_model"]
