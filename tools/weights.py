"""Train what the book ships in data/weights, on the first 55,000 training images.

    python tools/weights.py [NAME ...]

- digit_net: DigitNet, whose features compare samples; half of each batch with its pixels drawn.
- fashion_net: the same for Fashion-MNIST.
- pocket_vae: the VAE of the live explorers, two latents, small enough for a page.

About two minutes each on one thread.
"""

import argparse
import json
import time
from functools import partial

import torch
from torch.nn import functional as F

import notebooks
import running
import vaelib
from vaelib.metrics import DigitNet, FashionNet
from vaelib.optimizers import warm_cosine


def train_judge(
    kind: type[DigitNet], train: vaelib.data.Images, epochs: int = 6, seed: int = 0
) -> DigitNet:
    """A DigitNet, or its like, after `epochs` of Adam, its rate falling to zero."""
    torch.manual_seed(seed)
    network = kind()
    batches = epochs * -(-len(train) // 128)
    adam = torch.optim.Adam(network.parameters(), lr=2e-3)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, batches)
    for _ in range(epochs):
        for index in torch.randperm(len(train)).split(128):
            x, y = train.x[index] / 255.0, train.y[index]
            x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x, torch.bernoulli(x))
            loss = F.cross_entropy(network(x), y)
            adam.zero_grad()
            loss.backward()
            adam.step()
            falling.step()
    spread = network.features(train).var(0).mean().sqrt()
    # Features of mean variance one, and the same logits: ReLU commutes with a positive factor.
    with torch.no_grad():
        network.body[-2].weight /= spread
        network.body[-2].bias /= spread
        network.head.weight *= spread
    return network.eval()


def train_pocket_vae(train: vaelib.data.Images, epochs: int = 60, seed: int = 0) -> vaelib.VAE:
    """A two-latent VAE whose weights, as float16 in base64, are below 300 kB."""
    torch.manual_seed(seed)
    model = vaelib.mlp_vae(2, hidden=(60, 40, 32), activation="silu", norm="layer")
    pixel_means = (train.x / 255).mean(0).clamp(1e-3, 1 - 1e-3)
    with torch.no_grad():
        model.decoder[-2].bias.copy_(pixel_means.logit().flatten())

    style = {"batch_size": 256, "lr": 4e-3, "schedule": warm_cosine, "seed": seed}
    vaelib.fit(model, train, epochs=epochs, **style)
    with torch.no_grad():  # a page keeps float16: so Python and the page have the same numbers
        for weight in model.parameters():
            weight.copy_(weight.half())
    return model


def describe_judge(network: DigitNet, validation, test) -> dict:
    return {
        "validation accuracy": network.accuracy(*validation),
        "test accuracy": network.accuracy(*test),
        "test accuracy, pixels drawn": network.accuracy(vaelib.data.binarize(test.x), test.y),
    }


def describe_pocket_vae(model: vaelib.VAE, validation, test) -> dict:
    nll = {
        name: -vaelib.log_marginal(model, part, 100).mean
        for name, part in {"validation": validation, "test": test}.items()
    }
    return {f"{name} NLL, nats, K = 100": round(value, 2) for name, value in nll.items()}


mnist, fashion = vaelib.data.mnist, vaelib.data.fashion_mnist
NETWORKS = {  # the data, what trains on them, what describes it
    "digit_net": (mnist, partial(train_judge, DigitNet), describe_judge),
    "fashion_net": (fashion, partial(train_judge, FashionNet, epochs=12), describe_judge),
    "pocket_vae": (mnist, train_pocket_vae, describe_pocket_vae),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(NETWORKS))
    names = parser.parse_args().names or list(NETWORKS)
    if unknown := set(names) - set(NETWORKS):
        parser.error(f"there is no {', '.join(unknown)}; expected some of {', '.join(NETWORKS)}.")
    for name in names:
        data, make, describe = NETWORKS[name]
        train, test = data()
        start, commit = time.perf_counter(), running.commit()
        network = make(train[:55_000])
        path = notebooks.ROOT / "data" / "weights" / f"{name}.safetensors"
        vaelib.save(network, path)
        facts = {
            "made by": f"python tools/weights.py {name}",
            "commit": commit,
            "seconds": round(time.perf_counter() - start),
            **describe(network, train[55_000:], test),
        }
        path.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
