"""vaelib: variational autoencoders, measured. The package that the book's chapters share.

The public names, in the order in which a reader meets them.
"""

import importlib
from typing import TYPE_CHECKING, Any

from . import data, evaluate, likelihoods, nets, optimizers, priors
from .estimates import Estimate, log_marginal
from .evaluate import Report, report
from .io import load, save
from .likelihoods import bernoulli, gaussian
from .model import VAE, Draw, conv_vae, device, mlp_vae
from .objectives import elbo, iwae, stl
from .train import History, NonFiniteError, fit
from .verdict import Verdict

if TYPE_CHECKING:
    from . import plots
    from .explore import explore
    from .sliders import sliders

__version__ = "0.1.0"

__all__ = [
    "VAE",
    "Draw",
    "Estimate",
    "History",
    "NonFiniteError",
    "Report",
    "Verdict",
    "bernoulli",
    "conv_vae",
    "data",
    "device",
    "elbo",
    "evaluate",
    "explore",
    "fit",
    "gaussian",
    "iwae",
    "likelihoods",
    "load",
    "log_marginal",
    "mlp_vae",
    "nets",
    "optimizers",
    "plots",
    "priors",
    "report",
    "save",
    "sliders",
    "stl",
]


def __getattr__(name: str) -> Any:
    if name == "plots":  # matplotlib is slow to import, and not every user draws
        return importlib.import_module(".plots", __name__)
    if name in ("explore", "sliders"):  # nor opens a widget; the function takes its module's place
        globals()[name] = getattr(importlib.import_module(f".{name}", __name__), name)
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
