"""What bench.py times: ways to train one network, each in a process of its own.

    python tests/bench/peers.py CASE CONTENDER        CASE is JSON, see cases.py

All train the same modules, from the same weights, with Adam at 1e-3 in float32. A contender
calls `done` after each epoch, which hands the seconds over and waits until bench.py asks for the
next epoch: so the contenders take turns, and a machine that slows down slows all of them.

A contender is a function of (case, model, x, done): x is uint8 images to be timed on, or, for the
nats, bits as floats, which every contender then sees in fit's order.
"""

import json
import os
import sys
import time

import torch
from by_hand import by_hand
from estimates import get_nll, log_marginal, nll_products
from floor import floor
from loops import classic, fit, fit_bf16, fit_compiled, resident
from network import build, images
from of_pythae import pythae

import vaelib
from vaelib.data import binarize, mnist

CONTENDERS = {
    function.__name__: function
    for function in (
        *(classic, pythae, resident, by_hand, floor, fit, fit_compiled, fit_bf16),
        *(log_marginal, nll_products, get_nll),
    )
}


class Turns:
    """Waits for its turn, times it, and tells."""

    def __init__(self, case, channel):
        self.case, self.channel, self.left = case, channel, case["epochs"]

    def tell(self, **facts):
        print(json.dumps(facts), file=self.channel, flush=True)

    def wait(self):
        if not sys.stdin.readline():
            sys.exit("bench.py has gone")
        self.started = time.perf_counter()

    def seconds(self):
        if self.case["device"] == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - self.started

    def done(self, objective, **facts):
        self.tell(seconds=self.seconds(), objective=objective, **facts)
        self.left -= 1
        if self.left:
            self.wait()
        else:
            self.started = time.perf_counter()


def time_in_turns(case, name, channel):
    model, x = build(case).to(case["device"]), images(case)
    # A process's first optimizer makes torch import its compiler, seconds that are nobody's.
    torch.optim.Adam(model.parameters())
    turns = Turns(case, channel)
    gpu = torch.cuda.get_device_name() if case["device"] == "cuda" else None
    turns.tell(gpu=gpu)
    turns.wait()
    CONTENDERS[name](case, model, x, turns.done)
    turns.tell(after=turns.seconds())  # what a call does after its last epoch


def nats(case, name, channel):
    """What the weights are worth after training on fixed bits, on test images."""
    train, test = mnist()
    model = build(case).to(case["device"])
    objectives = []
    CONTENDERS[name](
        case,
        model,
        binarize(train.x[: case["examples"]], seed=0),
        lambda objective, **facts: objectives.append(objective),
    )
    estimate = vaelib.log_marginal(model, test.x[: case["test_examples"]], case["num_samples"])
    result = {"log_px": estimate.mean, "mc_stderr": estimate.mc_stderr, "objective": objectives}
    print(json.dumps(result), file=channel, flush=True)


def main():
    # Whatever libraries print goes to stderr: stdout is for answers.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    case, name = json.loads(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(case["threads"])
    {"time": time_in_turns, "nats": nats}[case["task"]](case, name, channel)


if __name__ == "__main__":
    main()
