"""Contenders that leave the derivatives to autograd: PyTorch's example, a plain loop, and `fit`."""

import torch
import torch.nn.functional as F
from network import ROOT, Orders
from torch.utils.data import DataLoader, Dataset, TensorDataset

import vaelib
from vaelib.arrays import scale_pixels


class Pictures(Dataset):
    """What torchvision's data sets do for each image, for arrays that it has no class for."""

    def __init__(self, x):
        self.arrays = x.permute(0, 2, 3, 1).contiguous().numpy()
        try:
            from PIL import Image
            from torchvision.transforms import ToTensor

            self.to_image, self.to_tensor = Image.fromarray, ToTensor()
        except ImportError:
            self.to_tensor = None

    def __len__(self):
        return len(self.arrays)

    def __getitem__(self, i):
        array = self.arrays[i]
        if self.to_tensor is None:  # ToTensor's own steps
            return torch.from_numpy(array).permute(2, 0, 1).contiguous().div(255), 0
        grey = array.shape[-1] == 1
        return self.to_tensor(self.to_image(array[..., 0] if grey else array)), 0


def picture_loader(case, x):
    """The DataLoader of PyTorch's VAE example: torchvision's MNIST where there is one."""
    options = {"num_workers": 1, "pin_memory": True} if case["device"] == "cuda" else {}
    dataset = None
    if case["images"] == "mnist":
        try:
            from torchvision import datasets, transforms

            dataset = datasets.MNIST(ROOT / "data", download=True, transform=transforms.ToTensor())
            dataset.data = dataset.data[: len(x)]
            dataset.targets = dataset.targets[: len(x)]
        except (ImportError, RuntimeError):
            pass
    return DataLoader(
        dataset or Pictures(x), batch_size=case["batch_size"], shuffle=True, **options
    )


def classic(case, model, x, done):
    """The loop of https://github.com/pytorch/examples/blob/main/vae/main.py."""
    loader = picture_loader(case, x)
    if x.is_floating_point():
        sampler = Orders(len(x), case["batch_size"])
        loader = DataLoader(TensorDataset(x, torch.zeros(len(x))), batch_sampler=sampler)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(case["epochs"]):
        train_loss = 0.0
        for grey, _ in loader:
            # The one line that the example lacks: it scores grey pixels, whose cross-entropy is
            # no likelihood. Bits make its nats comparable; ones and zeros stay as they are.
            data = torch.bernoulli(grey.to(case["device"]))
            optimizer.zero_grad()
            mu, log_var = model.encoder(data).chunk(2, 1)
            std = torch.exp(0.5 * log_var)
            recon = torch.sigmoid(model.decoder(mu + torch.randn_like(std) * std))
            bce = F.binary_cross_entropy(recon, data, reduction="sum")
            kld = -0.5 * torch.sum(1 + log_var - mu.pow(2) - log_var.exp())
            loss = bce + kld
            loss.backward()
            train_loss += loss.item()
            optimizer.step()
        done(-train_loss / len(x))


def resident(case, model, x, done):
    """A plain loop over data on the device, with torch's defaults throughout."""
    x = x.to(case["device"])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(case["epochs"]):
        total = torch.zeros((), device=x.device)
        order = torch.randperm(len(x), generator=generator).to(x.device)
        for index in order.split(case["batch_size"]):
            bits = torch.bernoulli(scale_pixels(x[index]))
            mu, log_var = model.encoder(bits).chunk(2, 1)
            z = mu + (0.5 * log_var).exp() * torch.randn_like(mu)
            logits = model.decoder(z)
            distortion = F.binary_cross_entropy_with_logits(logits, bits, reduction="sum")
            rate = -0.5 * (1 + log_var - mu**2 - log_var.exp()).sum()
            loss = (distortion + rate) / len(bits)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(bits)
        done(-total.item() / len(x))


def fit(case, model, x, done, **options):
    vaelib.fit(
        model,
        x,
        epochs=case["epochs"],
        batch_size=case["batch_size"],
        lr=1e-3,
        callback=lambda model, history: done(history.train[-1], own=history.seconds[-1]),
        **options,
    )


def fit_compiled(case, model, x, done):
    fit(case, model, x, done, compile=True)


def fit_bf16(case, model, x, done):
    fit(case, model, x, done, precision="bf16")
