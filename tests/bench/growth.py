"""How fit's time and memory grow: one measurement in a process of its own.

    python tests/bench/growth.py TASK        TASK is JSON, see measures.py; the answer, too

Memory is RssAnon, what the process itself holds: pages of a memory-mapped file that the kernel
keeps for it, and may take back, are not in it.
"""

import json
import os
import statistics
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

import vaelib
from vaelib.data import mnist


def model():
    torch.manual_seed(0)
    return vaelib.mlp_vae(20, (400,))


def epoch_seconds(sizes, repeats):
    """Seconds of the second epoch, by number of examples; the sizes take turns."""
    x, seconds = mnist()[0].x, {n: [] for n in sizes}
    for i in range(repeats):
        for n in sizes[i % len(sizes) :] + sizes[: i % len(sizes)]:
            seconds[n].append(vaelib.fit(model(), x[:n], epochs=2).seconds[1])
    return [{"examples": n, "seconds": statistics.median(times)} for n, times in seconds.items()]


def fit_memory(epochs, examples):
    x = mnist()[0].x[:examples].clone()  # not a view that keeps all of MNIST
    with peak_memory() as memory:
        vaelib.fit(model(), x, epochs=epochs)
    return memory


def log_marginal_memory(num_samples, examples):
    x = mnist()[1].x[:examples].clone()
    with peak_memory() as memory:
        vaelib.log_marginal(model(), x, num_samples)
    return memory


def memmap_memory(rows):
    """One epoch of fit on a memory-mapped uint8 array of so many rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npy"
        x = np.lib.format.open_memmap(path, "w+", np.uint8, (rows, 1, 28, 28))
        digits = mnist()[0].x[:5000].numpy()
        for start in range(0, rows, len(digits)):
            x[start : start + len(digits)] = digits[: rows - start]
        x.flush()
        del x
        with peak_memory() as memory:
            vaelib.fit(model(), np.load(path, mmap_mode="r"), epochs=1)
    return memory | {"file_mb": rows * 784 / 1e6}


@contextmanager
def peak_memory():
    """A dictionary that, at the end, tells RssAnon before and its highest value since, in MB."""
    # A first update, so that what libraries set up once is there before.
    vaelib.fit(model(), mnist()[0].x[:256], epochs=1)
    memory = {"before_mb": rss_anon(), "peak_mb": rss_anon()}
    over = threading.Event()

    def watch():
        while not over.wait(0.002):
            memory["peak_mb"] = max(memory["peak_mb"], rss_anon())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield memory
    finally:
        over.set()
        thread.join()
        memory["peak_mb"] = max(memory["peak_mb"], rss_anon())


def rss_anon():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024 / 1e6
    raise SystemExit("growth.py needs RssAnon in /proc/self/status: Linux")


TASKS = {f.__name__: f for f in (epoch_seconds, fit_memory, log_marginal_memory, memmap_memory)}


if __name__ == "__main__":
    channel = os.fdopen(os.dup(1), "w")  # libraries print to stderr
    os.dup2(2, 1)
    task = json.loads(sys.argv[1])
    torch.set_num_threads(task.pop("threads"))
    print(json.dumps(TASKS[task.pop("task")](**task)), file=channel)
