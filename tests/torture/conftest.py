"""One thread a process, here and in every child: results are then bits, and cores are shared."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch, and for the children
os.environ["VAELIB_PROGRESS"] = "0"

import signal

import pytest
import torch
import torture

import vaelib

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def uncut(tmp_path_factory):
    """What `train_script` ends with where nothing goes wrong: its files, made once."""
    run = torture.Run(tmp_path_factory.mktemp("uncut"))
    run.finish()
    return run


@pytest.fixture(scope="session")
def whole():
    """Weights and history of the small run that nothing cuts."""
    model = torture.small()
    history = vaelib.fit(model, torture.grey(), **torture.KEYWORDS)
    return torture.state(model), history


@pytest.fixture
def little_memory():
    """No more than 512 MiB beyond what this process has: a larger allocation is an error."""
    resource = pytest.importorskip("resource")
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("needs /proc")
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**29, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_is_heard():
    """A shell starts jobs in the background with SIGINT ignored, and so would every child here."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
