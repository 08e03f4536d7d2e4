"""Contenders that estimate log p(x): here an epoch is one estimate for all the examples."""

import torch
from of_pythae import pythae_vae

import vaelib
from vaelib.data import binarize


def log_marginal(case, model, x, done):
    bits, drawn = binarize(x), counted(model)
    for _ in range(case["epochs"]):
        mean = vaelib.log_marginal(model, bits, case["num_samples"]).mean
        done(mean, drawn=drawn() // len(x))


def get_nll(case, model, x, done):
    """pythae's: it returns plus log p(x). Without its gradients, which it does not turn off."""
    vae, bits, drawn = pythae_vae(case, model), binarize(x), counted(model)
    with torch.no_grad():
        for _ in range(case["epochs"]):
            mean = float(vae.get_nll(bits, n_samples=case["num_samples"]))
            done(mean, drawn=drawn() // len(x))


def nll_products(case, model, x, done):
    """The products of the decoder's layers for as many draws, into memory that is there before."""
    weights = [layer.weight.detach().T for layer in model.decoder if hasattr(layer, "weight")]
    rows = 2**19 // weights[-1].shape[1]  # as many at a time as log_marginal takes
    values = [torch.randn(rows, len(w)) for w in weights] + [torch.empty(rows, x[0].numel())]
    for _ in range(case["epochs"]):
        left = len(x) * case["num_samples"]
        while left > 0:
            n = min(rows, left)
            for weight, before, after in zip(weights, values, values[1:]):
                torch.mm(before[:n], weight, out=after[:n])
            left -= n
        done(0.0, drawn=case["num_samples"])


def counted(model):
    """A function that tells how many z were decoded since it was last asked."""
    rows = []
    model.decoder.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))

    def drawn():
        count = sum(rows)
        rows.clear()
        return count

    return drawn
