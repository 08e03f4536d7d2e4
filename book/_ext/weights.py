"""Train what the book ships in data/weights.

    python book/_ext/weights.py

DigitNet, whose features compare samples: two minutes on one thread. Trained on MNIST's first
55,000 training images, half of each batch with its pixels drawn.
"""

import json
import time

import torch
import vaelib
from torch.nn import functional as F
from vaelib.metrics import DigitNet

import chapters


def train_digit_net(train: vaelib.data.Images, epochs: int = 6, seed: int = 0) -> DigitNet:
    """A DigitNet after `epochs` of Adam, its rate falling to zero."""
    torch.manual_seed(seed)
    network = DigitNet()
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


def main() -> None:
    train, test = vaelib.data.mnist()
    start, commit = time.perf_counter(), chapters.commit()
    network = train_digit_net(train[:55_000])
    path = chapters.ROOT / "data" / "weights" / "digit_net.safetensors"
    vaelib.save(network, path)
    facts = {
        "made by": "python book/_ext/weights.py",
        "commit": commit,
        "seconds": round(time.perf_counter() - start),
        "validation accuracy": network.accuracy(*train[55_000:]),
        "test accuracy": network.accuracy(*test),
        "test accuracy, pixels drawn": network.accuracy(vaelib.data.binarize(test.x), test.y),
    }
    path.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
