"""Training runs for the tests of torchrun: `python ddp_script.py FOLDER '["bernoulli", ...]'`.

Every process writes what it ended with to FOLDER/<case>.<rank>; checkpoints go to FOLDER/<case>.
"""

import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.distributions import Independent, Normal
from torch.utils.data import TensorDataset

import vaelib

RANK = int(os.environ.get("RANK", 0))
ATTEMPT = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
FOLDER = None


def grey(n):
    generator = torch.Generator().manual_seed(5)
    return (torch.rand(n, 1, 4, 4, generator=generator) * 256).to(torch.uint8)


def model_of(seed=0, **keywords):
    torch.manual_seed(seed)
    return vaelib.mlp_vae(2, (16,), x_shape=(1, 4, 4), **keywords).double()


class OwnModel(nn.Module):
    """It shares nothing with vaelib's and draws its own noise."""

    latent_dim = 2

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner = vaelib.mlp_vae(2, (16,), x_shape=(1, 4, 4)).double()

    def forward(self, x, num_samples=1):
        qz_x = self.inner.encode(x)
        z = qz_x.rsample((num_samples,))
        pz = Independent(Normal(torch.zeros_like(z[0]), 1.0), 1)
        return vaelib.Draw.of(x, self.inner.decode(z), vaelib.Latent(z, qz_x, pz))


class OwnDraw(vaelib.VAE):
    """A VAE whose `draw` is overwritten and takes no noise."""

    def draw(self, x, num_samples=1):
        return super().draw(x, num_samples)


def own_draw():
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    decoder = nn.Sequential(nn.Linear(2, 16), nn.Unflatten(1, (1, 4, 4)))
    return OwnDraw(encoder, decoder, 2).double()


def with_unused_parameters():
    model = model_of()
    model.spare = nn.Linear(3, 3).double()
    return model


def warmed(draw, step):
    return draw.log_px_z.mean(0) - (step / 20).clamp(max=1) * draw.kl


class Weighted(nn.Module):
    """An objective with a parameter of its own, and terms."""

    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def forward(self, draw, step):
        fit = draw.log_px_z.mean(0) - self.temperature.exp() * draw.kl
        return {"fit": fit, "price": -((self.temperature - 0.1 * step) ** 2).expand(len(draw.x))}


def bad_for_some(draw):
    """Not finite wherever an image's first pixel is ink and its next three are not."""
    first = draw.x[:, 0, 0]
    bad = (first[:, 0] == 1) & (first[:, 1:].sum(1) == 0)
    return vaelib.elbo(draw) + torch.where(bad, float("nan"), 0.0)


def stopping_at(epoch):
    """Ends the run after that epoch, with other weights than training left."""

    def callback(model, history):
        if history.epoch[-1] == epoch:
            with torch.no_grad():
                next(model.parameters()).mul_(0.5)
        return history.epoch[-1] == epoch

    return callback


def killing(draw, step):
    """Kill a process in each of its first lives, from the midst of the second epoch on."""
    victims = os.environ.get("VICTIMS", "")  # the rank to kill in the first life, in the second ...
    if torch.is_grad_enabled() and int(step) == 20 + 5 * ATTEMPT:
        if victims[ATTEMPT : ATTEMPT + 1] == str(RANK):
            os.kill(os.getpid(), signal.SIGKILL)
    if FOLDER is not None and torch.is_grad_enabled():
        with open(FOLDER / f"steps.{RANK}.{ATTEMPT}", "a") as file:
            file.write(f"{int(step)}\n")
    return vaelib.elbo(draw)


def waiting(draw, step):
    """Give a Ctrl-C the time to come, to all processes; or press it here, in one."""
    if torch.is_grad_enabled() and "PRESSED_BY" in os.environ:
        (FOLDER / f"waiting.{RANK}").write_text(str(int(step)))
        if os.environ["PRESSED_BY"] == str(RANK) and int(step) == int(os.environ["PRESSED_AT"]):
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
    return vaelib.elbo(draw)


# Four epochs of 13 batches are 52 steps.
COMMON = {"epochs": 4, "batch_size": 16, "lr": 1e-2}
GAUSSIAN = {"likelihood": vaelib.gaussian(0.5)}
CASES = {
    # The last batch has 9: 4 and 5.
    "bernoulli": lambda: (model_of(), grey(201), {"ema": 0.9, "clip": 1.0}),
    # The last batch has 1: one process has none.
    "gaussian": lambda: (
        model_of(**GAUSSIAN),
        grey(193).double() / 255,
        {"ema": 0.99, "accumulate": 2, "num_samples": 2, "validation": grey(20).double() / 255},
    ),
    "batch of 1": lambda: (model_of(), grey(26), {"batch_size": 1, "epochs": 2, "ema": 0.9}),
    "larger than the data": lambda: (model_of(), grey(3), {"batch_size": 100, "epochs": 50}),
    "parts": lambda: (
        model_of(),
        grey(101),
        {"batch_size": 7, "accumulate": 3, "num_samples": 3, "objective": vaelib.iwae},
    ),
    "schedule": lambda: (
        model_of(),
        grey(201),
        {
            "objective": warmed,
            "schedule": lambda t: 1 - t,
            "optimizer": lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9),
        },
    ),
    "streamed": lambda: (model_of(), TensorDataset(grey(201), torch.arange(201)), {"skip": 1.0}),
    "skipping": lambda: (model_of(), grey(201), {"objective": bad_for_some, "on_nan": "skip"}),
    "seeded apart": lambda: (model_of(seed=RANK), grey(201), {"ema": 0.999, "epochs": 1}),
    # Each process has a clock of its own, and only the first one saves.
    "saved by the clock": lambda: (model_of(), grey(201), {"save_every": 0.003, "epochs": 8}),
    "unused": lambda: (with_unused_parameters(), grey(201), {"epochs": 1}),
    "own model": lambda: (OwnModel(), grey(201), {"num_samples": 2}),
    "own draw": lambda: (own_draw(), grey(201), {}),
    "objective with a parameter": lambda: (
        model_of(),
        grey(201),
        {"objective": Weighted(), "clip": 1.0, "validation": grey(20).double() / 255},
    ),
    "stopped early": lambda: (
        model_of(),
        grey(201),
        {"validation": grey(20).double() / 255, "callback": stopping_at(2), "ema": 0.9},
    ),
    "killed": lambda: (
        model_of(),
        grey(201),
        {
            "objective": killing,
            "save_every": 1e-9,
            "ema": 0.9,
            "validation": grey(20).double() / 255,
        },
    ),
    "interrupted": lambda: (model_of(), grey(201), {"objective": waiting, "save_every": 1000.0}),
}
STOPPING = {"stopping": lambda: (model_of(), grey(201), {"objective": bad_for_some})}


def run(name, folder):
    """Train; return weights, averaged weights and history."""
    global FOLDER
    FOLDER = folder
    model, data, keywords = (CASES | STOPPING)[name]()
    try:
        history = vaelib.fit(model, data, out=folder / name, **(COMMON | keywords))
    except vaelib.NonFiniteError as error:
        return {"indices": error.indices}, {"error": str(error)}
    tensors = dict(model.state_dict())
    tensors |= {f"ema.{name}": t for name, t in (history.ema or {}).items()}
    if isinstance(keywords.get("objective"), nn.Module):
        tensors |= keywords["objective"].state_dict(prefix="objective.")
    columns = history.columns()
    del columns["seconds"], columns["examples_per_second"]
    return tensors, columns


def main():
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    folder, names = Path(sys.argv[1]), json.loads(sys.argv[2])
    written = []

    def hook(event, arguments):
        if event in ("os.mkdir", "os.rename", "os.remove") or (
            event == "open" and set(str(arguments[1])) & set("wax+")
        ):
            written.append(str(arguments[0]))

    sys.addaudithook(hook)
    for name in names:
        written.clear()
        try:
            tensors, columns = run(name, folder)
        except Exception as error:
            if len(names) == 1:
                raise
            print(f"{name} failed: {error!r}", file=sys.stderr)  # in both; on to the next case
            continue
        ours = [path for path in written if path.startswith(str(folder / name))]
        metadata = {"history": json.dumps(columns), "written": json.dumps(ours)}
        save_file({n: t.clone() for n, t in tensors.items()}, folder / f"{name}.{RANK}", metadata)


if __name__ == "__main__":
    main()
