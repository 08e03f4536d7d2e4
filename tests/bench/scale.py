"""What a step costs on a GPU as a VAE grows, and an autoencoder beside it, until memory is full.

    python tests/bench/scale.py        one minute on a GPU; installs nothing

Writes data/results/gpu/scale.json, which chapter 06 reads. The hidden layers double; a width is a
batch of 128 images, its fused Adam step, and the most memory that the device held.
"""

import json
import statistics
import time
from datetime import date
from pathlib import Path

import torch
from torch.nn import functional as F

import vaelib

OUT = Path(__file__).resolve().parents[2] / "data" / "results" / "gpu" / "scale.json"
WARM_UP, STEPS = 5, 20


def vae_loss(model, x):
    return -vaelib.elbo(model(x)).mean()


def autoencoder_loss(model, x):
    logits = model.decoder(model.encoder(x)[:, :20])
    return F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)


LOSSES = {"VAE": vae_loss, "autoencoder": autoencoder_loss}


def measure(width, loss_of, device):
    """Milliseconds a step, median and quartiles, and gigabytes at the most."""
    torch.manual_seed(0)
    torch.cuda.reset_peak_memory_stats()
    with device:  # made where it lives: the largest do not fit beside themselves
        model = vaelib.mlp_vae(20, (width, width))
        x = (torch.rand(128, 1, 28, 28) < 0.3).float()
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    times = []
    for step in range(WARM_UP + STEPS):
        torch.cuda.synchronize()
        started = time.perf_counter()
        adam.zero_grad()
        loss_of(model, x).backward()
        adam.step()
        torch.cuda.synchronize()
        if step >= WARM_UP:
            times.append(1e3 * (time.perf_counter() - started))
    low, middle, high = statistics.quantiles(times, n=4)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "milliseconds": round(middle, 3),
        "quartiles": [round(low, 3), round(high, 3)],
        "gigabytes": round(torch.cuda.max_memory_allocated() / 1e9, 3),
    }


def main():
    device = torch.device("cuda")
    content = {
        "date": date.today().isoformat(),
        "gpu": torch.cuda.get_device_name(),
        "memory, GB": round(torch.cuda.get_device_properties(0).total_memory / 1e9, 1),
        "versions": {"torch": torch.__version__},
        "batch_size": 128,
        "rows": [],
    }
    width = 100
    while True:
        row = {"width": width}
        try:
            for name, loss_of in LOSSES.items():
                row[name] = measure(width, loss_of, device)
                torch.cuda.empty_cache()
        except torch.cuda.OutOfMemoryError as error:
            content |= {"stopped_at": width, "stopped_by": str(error).split(". GPU")[0]}
            break
        row["parameters"] = row["VAE"].pop("parameters")
        del row["autoencoder"]["parameters"]
        content["rows"].append(row)
        print(row, flush=True)
        width *= 2
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(content["stopped_by"])


if __name__ == "__main__":
    main()
