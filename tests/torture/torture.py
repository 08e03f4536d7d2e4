"""What the torture tests share: how long to go on, child processes, small models, comparisons."""

import functools
import json
import multiprocessing.forkserver
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import train_script
from safetensors import safe_open

import vaelib
from vaelib.io import read_tensors

FULL = os.environ.get("VAELIB_TORTURE") == "full"
PATIENCE = 120.0  # seconds until a child counts as hung, on a machine that is busy
TIMES = ("seconds", "examples_per_second")
KEYWORDS = {"epochs": 4, "batch_size": 25, "ema": 0.9}  # of `whole`, a run of 16 steps


class Cut(Exception):
    """What ends a run in a test, by way of its objective or its callback."""


@functools.cache
def fork():
    """A server that has imported torch and read MNIST: a child is forked in milliseconds."""
    if not hasattr(os, "fork"):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["train_script"])
    with pytest.MonkeyPatch.context() as patch:  # Python 3.11 does not pass sys.path on
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        multiprocessing.forkserver.ensure_running()
    return context


def amount(short, full):
    """How often to do something: `VAELIB_TORTURE=full` makes it many times."""
    return full if FULL else short


class Run:
    """A training run in a folder, by child processes: `train_script.train` with these options."""

    def __init__(self, folder, **options):
        folder = Path(folder)
        self.out, self.log, self.result = folder / "out", folder / "log", folder / "result"
        self.options = {"out": str(self.out), "log": str(self.log), "result": str(self.result)}
        self.options |= options
        self.process = None

    def start(self, fresh=False, **options):
        """Start a child, forked, or a fresh interpreter; its log then tells what it does."""
        self.since = len(self.events())
        options = self.options | options
        if fresh:
            command = [sys.executable, train_script.__file__, json.dumps(options)]
            self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        else:
            self.process = fork().Process(target=train_script.train, args=(options,))
            self.process.start()
        return self

    def events(self):
        return self.log.read_text().split() if self.log.exists() else []

    def steps(self):
        """The steps that the last child has begun."""
        return [int(event) for event in self.events()[self.since :] if event.isdigit()]

    def wait_for(self, condition):
        end = time.monotonic() + PATIENCE
        while not condition():
            assert self.alive(), f"The child ended early: {self.error()}"
            assert time.monotonic() < end, "The child hangs."
            time.sleep(0.001)

    def wait_for_step(self, step):
        self.wait_for(lambda: max(self.steps(), default=-1) >= step)

    def alive(self):
        if isinstance(self.process, subprocess.Popen):
            return self.process.poll() is None
        return self.process.is_alive()

    def send(self, number):
        os.kill(self.process.pid, number)

    def ended(self):
        """The exit code, once the child has ended: minus the signal that killed it."""
        if isinstance(self.process, subprocess.Popen):
            self.stderr = self.process.communicate(timeout=PATIENCE)[1]
            return self.process.returncode
        self.process.join(PATIENCE)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError("The child hangs.")
        return self.process.exitcode

    def kill(self):
        self.send(signal.SIGKILL)
        assert self.ended() == -signal.SIGKILL, self.error()

    def finish(self, **options):
        """Run to the end."""
        self.start(**options)
        assert self.ended() == 0, self.error()

    def error(self):
        """The error that the last child ended with, `Type: message`."""
        path = Path(f"{self.result}.error")
        return path.read_text() if path.exists() else ""

    def checkpoints(self):
        return sorted(self.out.glob("step_*.safetensors"))

    def newest_step(self):
        """The step that a restart has to go on from."""
        paths = self.checkpoints()
        return int(paths[-1].name.split("_")[1].split(".")[0]) if paths else 0

    def outcome(self):
        """Weights, averaged weights, optimizer, random states: by name; and the history."""
        tensors, _ = read_tensors(self.checkpoints()[-1])
        with safe_open(self.result, framework="pt") as file:
            tensors |= {f"result.{name}": file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            history = json.loads(file.metadata()["history"])
        return tensors, {name: values for name, values in history.items() if name not in TIMES}


def assert_same_outcome(run, uncut):
    (tensors, history), (expected, expected_history) = run.outcome(), uncut.outcome()
    assert tensors.keys() == expected.keys()
    different = [name for name in expected if not torch.equal(tensors[name], expected[name])]
    assert different == []
    assert history == expected_history


def contents(folder):
    """Every file of a folder by name, the lock aside."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.name != "lock"}


def small(seed=0, dtype=torch.float32, **keywords):
    """A VAE over 4 x 4 pixels."""
    torch.manual_seed(seed)
    return vaelib.mlp_vae(2, (8,), x_shape=(1, 4, 4), **keywords).to(dtype)


def grey(n=100, seed=5):
    """n images of 4 x 4 uint8 pixels."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(n, 1, 4, 4, generator=generator) * 256).to(torch.uint8)


def state(model):
    return {name: t.detach().clone() for name, t in model.state_dict().items()}


def same_bits(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def measured(history):
    """The history without times and weights."""
    return {name: v for name, v in history.columns().items() if name not in TIMES}
