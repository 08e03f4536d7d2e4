"""A training run on MNIST for the torture tests to cut: `python train_script.py '{"out": ...}'`.

Everything is on at once: a schedule, averaged weights, clipping, validation, dropout, which draws
from torch's own generator, and noise, which `fit` draws.
"""

import json
import math
import os
import signal
import sys
import warnings
from pathlib import Path

import torch
import torch._dynamo  # every optimizer imports it, in seconds: here once, for all children
from safetensors.torch import save_file
from torch import nn

import vaelib

IMAGES, VALIDATION, EPOCHS, BATCH_SIZE = 6000, 500, 4, 128
STEPS = EPOCHS * math.ceil(IMAGES / BATCH_SIZE)

TRAIN, _ = vaelib.data.mnist()


def train(options):
    """Train as the options say; write what came out, or the error, to the file `result`."""
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    result = options["result"]
    with open(f"{result}.error", "w") as file:  # now, while this process has the right to
        try:
            model, history = _train(options)
        except BaseException as error:
            file.write(f"{type(error).__name__}: {error}")
            raise
    tensors = {f"model.{name}": t for name, t in model.state_dict().items()}
    tensors |= {f"ema.{name}": t for name, t in history.ema.items()}
    save_file(tensors, result, {"history": json.dumps(history.columns())})


class Peaked(vaelib.EarlyStopping):
    """Sees the best validation after the second epoch, whatever it was."""

    def __call__(self, model, history):
        history.validation[-1] = -abs(history.epoch[-1] - 2.0)
        return super().__call__(model, history)


def _train(options):
    out = options.get("out")
    log = os.open(options["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def objective(draw, step):
        if torch.is_grad_enabled():  # not in validation
            os.write(log, f"{int(step)}\n".encode())
        if int(step) == options.get("limit_files_at"):
            _limit_files(options["limit"], options.get("limit_kills", False))
        return draw.log_px_z.mean(0) - (step / 50).clamp(max=1) * draw.kl

    if "die_at_event" in options:
        _die_at_event(options["die_at_event"], out, options["log"])
    if "become" in options:  # root may write everywhere; another user may not
        os.chdir(options["folder"])  # so that the folders above need not be open to it
        os.setuid(options["become"])
    torch.manual_seed(options.get("seed", 0))
    model = vaelib.mlp_vae(8, (64,))
    model.encoder.append(nn.Dropout(0.1))
    os.write(log, b"ready\n")
    history = vaelib.fit(
        model,
        TRAIN[:IMAGES],
        objective=objective,
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        validation=TRAIN[-VALIDATION:],
        schedule=lambda t: 0.5 * (1 + math.cos(math.pi * t)),
        ema=0.99,
        clip=50.0,
        out=out,
        save_every=options.get("save_every", 0.05),
        callback=Peaked(options["patience"]) if "patience" in options else None,
    )
    return model, history


def _die_at_event(number, out, log):
    """Kill this process at an event in the folder: as it opens, renames or removes a file there.

    Events are counted from 0 at the first after a step of this process.
    """
    already = Path(log).read_text().count("\n") + 1 if Path(log).exists() else 1
    left = number

    def hook(event, arguments):
        nonlocal left
        if event not in ("open", "os.rename", "os.remove", "os.scandir", "os.listdir"):
            return
        if not any(str(a).startswith(out) for a in arguments):
            return
        if left == number and Path(log).read_text().count("\n") <= already:
            return
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    sys.addaudithook(hook)


def _limit_files(size, kills):
    """From here on no file may grow beyond `size` bytes; the attempt is an error, or kills."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if kills else signal.SIG_IGN)


if __name__ == "__main__":
    train(json.loads(sys.argv[1]))
