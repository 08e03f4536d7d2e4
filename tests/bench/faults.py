"""Page faults and milliseconds a step of `fit` on large images: `python tests/bench/faults.py`.

With `without`, glibc returns freed memory as it does by itself. Prints the epochs after the
first, as JSON.
"""

import json
import resource
import sys
import time
from contextlib import nullcontext

import torch
from loops import fit
from network import build, images

import vaelib.train

STEPS = 10


def main():
    if "without" in sys.argv:
        vaelib.train.freed_memory_kept = nullcontext
    torch.set_num_threads(1)
    case = {"images": "colour", "net": "conv", "batch_size": 128, "device": "cpu"}
    case |= {"examples": 128 * STEPS, "epochs": 4}
    moments = []

    def done(*objective, **facts):
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        moments.append((faults, 1000 * time.perf_counter()))

    fit(case, build(case), images(case), done)
    (first, started), (last, ended) = moments[0], moments[-1]
    steps = STEPS * (len(moments) - 1)
    print(json.dumps({"faults": (last - first) / steps, "milliseconds": (ended - started) / steps}))


if __name__ == "__main__":
    main()
