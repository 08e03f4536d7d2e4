"""vaelib: variational autoencoders, measured. The package that the book's chapters share.

The public names, in the order in which a reader meets them.
"""

import importlib
from typing import TYPE_CHECKING, Any

from . import (
    bounds,
    data,
    disentanglement,
    evaluate,
    faces,
    likelihoods,
    nets,
    objectives,
    optimizers,
    posteriors,
    predictability,
    priors,
    quantizers,
    sprites,
)
from .callbacks import EarlyStopping
from .check import check_model
from .draw import Draw, Latent
from .estimates import Estimate, log_marginal
from .evaluate import Report, report
from .factories import conv_vae, mlp_vae
from .history import History
from .io import load, save
from .likelihoods import bernoulli, gaussian
from .model import VAE
from .modes import device
from .nonfinite import NonFiniteError
from .objectives import elbo, iwae, stl
from .results import results
from .tables import table
from .train import fit
from .verdict import Verdict

if TYPE_CHECKING:
    from . import plots
    from .explore import explore
    from .sliders import sliders

__version__ = "0.1.0"

__all__ = [
    "VAE",
    "Draw",
    "EarlyStopping",
    "Estimate",
    "History",
    "Latent",
    "NonFiniteError",
    "Report",
    "Verdict",
    "bernoulli",
    "bounds",
    "check_model",
    "conv_vae",
    "data",
    "device",
    "disentanglement",
    "elbo",
    "evaluate",
    "explore",
    "faces",
    "fit",
    "gaussian",
    "iwae",
    "likelihoods",
    "load",
    "log_marginal",
    "mlp_vae",
    "nets",
    "objectives",
    "optimizers",
    "plots",
    "posteriors",
    "predictability",
    "priors",
    "quantizers",
    "report",
    "results",
    "save",
    "sliders",
    "sprites",
    "stl",
    "table",
]


def __getattr__(name: str) -> Any:
    if name == "plots":  # matplotlib is slow to import, and not every user draws
        return importlib.import_module(".plots", __name__)
    if name in ("explore", "sliders"):  # nor opens a widget; the function takes its module's place
        globals()[name] = getattr(importlib.import_module(f".{name}", __name__), name)
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
