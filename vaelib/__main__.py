"""`python -m vaelib` says what is there; `python -m vaelib train` trains a first model."""

import argparse
import sys
from pathlib import Path

import torch

import vaelib


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m vaelib", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    train = commands.add_parser("train", help="train a VAE, score it, and draw samples from it")
    train.add_argument("--data", choices=["mnist"], default="mnist")
    train.add_argument("--epochs", type=int, default=10)
    train.add_argument("--latent-dim", type=int, default=20)
    train.add_argument("--num-samples", type=int, default=100, help="draws an image for the score")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--out", type=Path, required=True, help="folder for weights and samples")
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "train":
            run_training(arguments)
        else:
            describe()
    except (OSError, ValueError, ArithmeticError) as error:
        print(f"vaelib: {error}", file=sys.stderr)
        return 1
    return 0


def describe() -> None:
    where = vaelib.data.find("MNIST/raw")
    device = vaelib.device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device}"
    print(f"vaelib {vaelib.__version__}, torch {torch.__version__}")
    print(f"device: {name}, {torch.get_num_threads()} threads")
    print(f"MNIST: {where or 'not found; vaelib.data.mnist() downloads it'}")


def run_training(arguments: argparse.Namespace) -> None:
    from torchvision.utils import save_image

    train, test = getattr(vaelib.data, arguments.data)()
    torch.manual_seed(arguments.seed)
    model = vaelib.mlp_vae(latent_dim=arguments.latent_dim).to(vaelib.device())
    vaelib.fit(model, train, epochs=arguments.epochs, seed=arguments.seed, out=arguments.out)
    vaelib.save(model, arguments.out / "model.safetensors")
    estimate = vaelib.log_marginal(model, test.x, arguments.num_samples)
    print(f"test {estimate}")
    torch.manual_seed(arguments.seed)
    save_image(model.sample(64), arguments.out / "samples.png", nrow=8)
    print(f"weights and samples.png are in {arguments.out}")


if __name__ == "__main__":
    sys.exit(main())
