"""Files: safetensors and JSON, never pickle; checked before use, replaced in one step.

Every file carries a SHA-256 over its description and its tensors, so a truncated, flipped or
lengthened file never loads.
"""

import hashlib
import inspect
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar, overload

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from . import likelihoods, posteriors, priors
from .factories import FACTORIES
from .model import VAE

FORMAT = "vaelib 1"
Model = TypeVar("Model", bound=nn.Module)


def save(model: nn.Module, path: str | Path) -> None:
    """Write a model's weights and, where a vaelib factory made it, its architecture.

    The file is written beside the path and then renamed, so a cut or a full disk leaves the old one
    untouched.

    Args:
        model: any module; `load` rebuilds what the factories made.
        path: such as "first.safetensors".

    Raises:
        OSError: where it cannot be written.
        TypeError: for what is no model.

    Example:
        >>> import tempfile, torch, vaelib
        >>> model = vaelib.mlp_vae(2, (8,), x_shape=(4,))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     vaelib.save(model, f"{folder}/first.safetensors")
        ...     again = vaelib.load(f"{folder}/first.safetensors")
        >>> torch.equal(again.decoder[0].weight, model.decoder[0].weight)
        True
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"save got a {type(model).__name__}; expected a model, then a path.")
    write_tensors(path, model.state_dict(), {"architecture": _describe(model)})


@overload
def load(path: str | Path, into: None = None) -> VAE: ...
@overload
def load(path: str | Path, into: Model) -> Model: ...
def load(path: str | Path, into: nn.Module | None = None) -> nn.Module:
    """Read what `save` wrote: a new model, or one of yours filled with the weights; in eval mode.

    Args:
        path: of the file.
        into: a model of your own parts, whose names and shapes must match. Without it, what
            vaelib's factories made is rebuilt, of vaelib's likelihoods, posteriors and priors, on
            the CPU.

    Raises:
        OSError: for a missing file.
        ValueError: for a damaged or foreign one; then nothing is changed.

    Example:
        >>> import tempfile, torch, vaelib
        >>> def own():
        ...     return vaelib.VAE(torch.nn.Linear(4, 4), torch.nn.Linear(2, 4), latent_dim=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     vaelib.save(own(), f"{folder}/own.safetensors")
        ...     model = vaelib.load(f"{folder}/own.safetensors", into=own())
    """
    tensors, description = read_tensors(path)
    if "architecture" not in description:
        raise ValueError(f"{path} is not a saved model but another file of vaelib's.")
    if into is not None:
        _same_tensors(path, into, tensors)
        into.load_state_dict(tensors)
        return into.eval()
    if description["architecture"] is None:
        raise ValueError(
            f"{path} holds a model of its author's own parts; expected one of vaelib's factories: "
            "build the model and call load(path, into=model)."
        )
    try:
        with torch.device("meta"):  # names and shapes only: a hostile file allocates nothing
            model = _build(description["architecture"], most_layers=len(tensors))
    except (TypeError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{path} describes no model that vaelib can build: {error}") from error
    _same_tensors(path, model, tensors)
    model.load_state_dict(tensors, assign=True)
    for module in model.modules():  # what no file holds has no numbers either: `Flatten.like`
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                module.register_buffer(name, torch.empty_like(buffer, device="cpu"), False)
    return model.eval()


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], description: Any) -> None:
    """Write tensors and a JSON description to one file, in one step, with a SHA-256 over both."""
    path = Path(path)
    text = json.dumps(description, sort_keys=True)
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    metadata = {"format": FORMAT, "description": text, "sha256": _digest(text, tensors)}
    content = to_bytes(tensors, metadata)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _flush_folder(path.parent)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise type(error)(
            error.errno,
            f"{path} could not be written ({error.strerror}); expected a folder with room and the "
            "right to write: choose another path",
        ) from error


def _flush_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the system lets a folder be flushed."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], Any]:
    """Read what `write_tensors` wrote; OSError if missing, ValueError if damaged or foreign."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; expected one that vaelib.save wrote.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise ValueError(
            f"{path} is damaged, or no safetensors file ({error}); expected one that vaelib.save "
            "wrote: fetch or save it again. Pickles are never opened."
        ) from error
    text = metadata.get("description", "")
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} was not written by vaelib: expected the format {FORMAT!r}.")
    if metadata.get("sha256") != _digest(text, tensors):
        raise ValueError(f"{path} is damaged: its SHA-256 is wrong; fetch or save it again.")
    try:
        description = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no file of vaelib's: its description is no JSON.") from error
    if not isinstance(description, dict):
        raise ValueError(f"{path} is no file of vaelib's: its description is no JSON object.")
    return tensors, description


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        t = tensors[name]
        digest.update(f"\0{name}\0{t.dtype}\0{tuple(t.shape)}\0".encode())
        digest.update(t.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def pack(state: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A state dict as JSON: its tensors go into `tensors`, and their names stay in their place.

    name: what the names of its tensors begin with; the way to each follows. TypeError for what
    is neither.
    """
    if isinstance(state, Tensor):
        while name in tensors:  # as the ways {"a.b": t} and {"a": {"b": t}}
            name += "'"
        tensors[name] = state
        return {"tensor": name}
    if isinstance(state, Mapping):
        return {str(key): pack(value, f"{name}.{key}", tensors) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [pack(value, f"{name}.{i}", tensors) for i, value in enumerate(state)]
    if state is None or isinstance(state, str | int | float):
        return state
    raise TypeError(
        f"The state of the {name.split('.')[0]} holds a {type(state).__name__}; expected tensors, "
        "numbers, words, lists and dicts, since that is what a checkpoint keeps."
    )


def unpack(state: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `pack` was given, but for tuples, which are lists now, and keys, which are words."""
    if isinstance(state, dict):
        if state.keys() == {"tensor"}:
            return tensors[state["tensor"]]
        return {key: unpack(value, tensors) for key, value in state.items()}
    return [unpack(value, tensors) for value in state] if isinstance(state, list) else state


# Architectures -----------------------------------------------------------------------------------

# Parts that a model may bring: where vaelib has those that it can name and rebuild.
PARTS = {"likelihood": likelihoods, "posterior": posteriors, "prior": priors}
DEFAULTS = {"posterior": {"name": "normal"}, "prior": None}  # what older files do not say


def _describe(model: nn.Module) -> dict[str, Any] | None:
    """The architecture as JSON, or None for a model whose parts vaelib cannot rebuild."""
    architecture = getattr(model, "architecture", None)
    if not isinstance(model, VAE) or architecture is None:
        return None
    try:
        parts = {name: _described(name, getattr(model, name)) for name in PARTS}
    except LookupError:
        return None
    architecture = {**architecture, **parts}
    with torch.device("meta"):
        built = _build(architecture)
    shapes = {name: t.shape for name, t in model.state_dict().items()}
    if shapes != {name: t.shape for name, t in built.state_dict().items()}:
        return None  # parts were replaced after the factory made it
    return architecture


def _described(part: str, thing: Any) -> dict[str, Any] | None:
    """A part's name and settings; LookupError for one that is not vaelib's."""
    if thing is None:
        return None
    kind = thing if isinstance(thing, FunctionType) else type(thing)
    if kind.__name__ not in PARTS[part].__all__ or getattr(PARTS[part], kind.__name__) is not kind:
        raise LookupError(kind.__name__)
    settings = {}
    if isinstance(kind, type):
        settings = {name: getattr(thing, name) for name in inspect.signature(kind).parameters}
    return {"name": kind.__name__, **settings}


def _rebuilt(part: str, described: dict[str, Any] | None, budget: int | None) -> Any:
    if described is None:
        return None
    settings = dict(described)
    name = settings.pop("name")
    if name not in PARTS[part].__all__:
        raise ValueError(f"{part} is {name!r:.60}; expected one of vaelib.{part}s.")
    _check_sizes(settings, budget)
    thing = getattr(PARTS[part], name)
    return thing(**settings) if isinstance(thing, type) else thing


def _build(architecture: dict[str, Any], most_layers: int | None = None) -> VAE:
    """The model, from `architecture`; of at most `most_layers` layers, where the file has so many.

    A hostile file asks for sizes that are no sizes, or for more layers than it holds.
    """
    settings = DEFAULTS | architecture
    name = settings.pop("factory")
    if name not in FACTORIES:
        raise ValueError(f"factory is {name!r:.60}; expected one of {', '.join(FACTORIES)}.")
    parts = {part: _rebuilt(part, settings.pop(part), most_layers) for part in PARTS}
    _check_sizes(settings, most_layers)
    return FACTORIES[name](**settings, **parts)


def _check_sizes(settings: dict[str, Any], most_layers: int | None) -> None:
    lists = [value for value in settings.values() if isinstance(value, list)]
    for value in lists:
        if not all(type(n) is int and n > 0 for n in value):  # or a product repeats a list
            raise ValueError(f"A size is {value!r:.60}; expected positive whole numbers.")
    layers = sum(map(len, lists))
    layers += sum(settings.get(name) or 0 for name in ("blocks", "num_layers"))
    if most_layers is not None and layers > most_layers + 4:  # the shape of x has up to four
        raise ValueError(f"{layers} layers, but {most_layers} tensors.")


def _same_tensors(path: str | Path, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    ours = {name: (tuple(t.shape), t.dtype) for name, t in model.state_dict().items()}
    theirs = {name: (tuple(t.shape), t.dtype) for name, t in tensors.items()}
    for name in sorted(ours.keys() | theirs.keys()):
        mine, read = ours.get(name), theirs.get(name)
        same = mine is not None and read is not None and mine[0] == read[0]
        if not same or mine[1].is_floating_point != read[1].is_floating_point:  # type: ignore[index]
            raise ValueError(
                f"{path} holds another model: {name!r} is {read and (list(read[0]), read[1])} in "
                f"the file and {mine and (list(mine[0]), mine[1])} in the model; expected the same "
                "names and shapes."
            )


__all__ = ["load", "save"]
