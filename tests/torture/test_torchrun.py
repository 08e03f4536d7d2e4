"""Two processes under torchrun, on the CPU: the single process's run, to rounding."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ddp_script
import pytest
import torch
from safetensors import safe_open
from torch.testing import assert_close
from torture import PATIENCE, amount

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed"),
    pytest.mark.skipif(sys.platform != "linux", reason="gloo and torchrun as on Linux"),
]
OWN_NOISE = ("own model", "own draw")
TOGETHER = [name for name in ddp_script.CASES if name != "interrupted"]


def start(folder, names, processes=2, max_restarts=0, **environment):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", f"--max-restarts={max_restarts}"]
    command += [ddp_script.__file__, str(folder), json.dumps(names)]
    return subprocess.Popen(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def end(process):
    """The exit code and the output; nothing is left behind, whatever happens."""
    try:
        output = process.communicate(timeout=3 * PATIENCE)[0]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output


def torchrun(folder, names, **keywords):
    code, output = end(start(folder, names, **keywords))
    assert code == 0, output[-5000:]


def results(folder, name, rank):
    with safe_open(folder / f"{name}.{rank}", framework="pt") as file:
        tensors = {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
        return (
            tensors,
            json.loads(file.metadata()["history"]),
            json.loads(file.metadata()["written"]),
        )


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """The same runs in this process."""
    folder = tmp_path_factory.mktemp("single")
    ended = {}

    def run(name):
        if name not in ended:
            ended[name] = ddp_script.run(name, folder)
        return ended[name]

    return run


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """All of the runs, one after the other, by two processes; or what their output was."""
    folder = tmp_path_factory.mktemp("together")
    code, output = end(start(folder, [*TOGETHER, "stopping"]))
    return folder, code, output


def result_of(together, name, rank):
    folder, _, output = together
    if not (folder / f"{name}.{rank}").exists():
        said = [line for line in output.splitlines() if f"{name} failed" in line]
        raise AssertionError(f"{name} did not end: {said or output[-3000:]}")
    return results(folder, name, rank)


@pytest.mark.parametrize("name", [n for n in TOGETHER if n not in OWN_NOISE])
def test_two_processes_end_where_one_does_to_rounding(single, together, name):
    """Sums in another order: 1e-16 a step in float64, and after 50 steps far less than 1e-8."""
    tensors, history, _ = result_of(together, name, 0)
    expected, expected_history = single(name)
    assert_close(tensors, dict(expected), rtol=1e-8, atol=1e-8)
    assert history.keys() == expected_history.keys()
    for column, values in expected_history.items():
        assert_close(history[column], values, rtol=1e-8, atol=1e-8, msg=f"{name}: {column}")
    if name == "skipping":
        assert 0 < sum(history["skipped"]) < history["step"][-1]


@pytest.mark.parametrize("name", TOGETHER)
def test_every_process_has_the_same_bits_and_only_the_first_writes(together, name):
    (first, history, written), (second, other, nothing) = (
        result_of(together, name, rank) for rank in (0, 1)
    )
    assert first.keys() == second.keys()
    assert [n for n in first if not torch.equal(first[n], second[n])] == []
    assert history == other
    assert written
    assert nothing == []


@pytest.mark.parametrize("name", OWN_NOISE)
def test_a_model_that_draws_its_own_noise_trains(single, together, name):
    """Not with the single process's numbers, but as well as it: within a fifth of the gain."""
    _, history, _ = result_of(together, name, 0)
    alone = single(name)[1]["train"]
    gain = alone[-1] - alone[0]
    assert gain > 0
    assert abs(history["train"][-1] - alone[-1]) < 0.2 * gain


def test_one_bad_example_in_one_process_stops_both_with_the_single_processs_error(single, together):
    indices, expected = single("stopping")
    for rank in (0, 1):
        tensors, error, _ = result_of(together, "stopping", rank)
        assert torch.equal(tensors["indices"], indices["indices"])
        assert (
            error["error"].split("Last checkpoint")[0].split("Of its parts")[0][:40]
            == (expected["error"].split("Last checkpoint")[0].split("Of its parts")[0][:40])
        )


@pytest.mark.parametrize("victims", amount(["10"], ["110", "011", "000000", "111111"]))
def test_workers_killed_under_max_restarts_end_with_the_bits_of_an_uncut_run(
    tmp_path, together, victims
):
    """Several times in one run, since what a life leaves behind may mislead the next by chance."""
    expected, expected_history, _ = result_of(together, "killed", 0)
    torchrun(tmp_path, ["killed"], max_restarts=len(victims), VICTIMS=victims)
    tensors, history, _ = results(tmp_path, "killed", 0)
    assert [n for n in expected if not torch.equal(expected[n], tensors[n])] == []
    assert history == expected_history
    for life in range(1, len(victims) + 1):
        begun = int((tmp_path / f"steps.0.{life}").read_text().split()[0])
        assert begun in (14 + 5 * life, 15 + 5 * life)  # taken up, not begun again
    assert len(list((tmp_path / "killed").glob("*.part"))) == 0


@pytest.mark.parametrize(
    ("pressed_by", "step"), amount([("1", 18)], [("0", 18), ("1", 18), ("1", 25), ("all", 18)])
)
def test_ctrl_c_under_torchrun_saves_and_ends_every_process(tmp_path, single, pressed_by, step):
    """It reaches each process in a step of its own, so one may notice it before the other."""
    process = start(tmp_path, ["interrupted"], PRESSED_BY=pressed_by, PRESSED_AT=str(step))
    since = time.monotonic()
    if pressed_by == "all":
        while min(step_of(tmp_path, 0), step_of(tmp_path, 1)) < step and process.poll() is None:
            assert time.monotonic() - since < PATIENCE
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        since = time.monotonic()
    code, output = end(process)
    assert code != 0, output[-3000:]
    assert time.monotonic() - since < PATIENCE
    newest = sorted((tmp_path / "interrupted").glob("step_*.safetensors"))[-1]
    assert step < int(newest.name[5:14]) < step + 8, output[-3000:]  # 13, 26 ... end an epoch
    assert str(newest) in output or str(newest.parent) in output
    tensors, history = ddp_script.run("interrupted", tmp_path)  # by one process, for once
    expected, expected_history = single("interrupted")
    assert_close(tensors, dict(expected), rtol=1e-8, atol=1e-8)
    assert_close(history["train"], expected_history["train"], rtol=1e-8, atol=1e-8)


def step_of(folder, rank):
    path = folder / f"waiting.{rank}"
    return int(path.read_text() or 0) if path.exists() else 0


@pytest.mark.skipif(amount(True, False), reason="only with VAELIB_TORTURE=full")
@pytest.mark.parametrize("processes", [1, 3, 4])
def test_any_number_of_processes_ends_where_one_does(tmp_path, single, processes):
    names = ["bernoulli", "gaussian", "batch of 1", "parts"]
    torchrun(tmp_path, names, processes=processes)
    for name in names:
        tensors, history, _ = results(Path(tmp_path), name, 0)
        expected, expected_history = single(name)
        assert_close(tensors, dict(expected), rtol=1e-8, atol=1e-8)
        assert_close(history["train"], expected_history["train"], rtol=1e-8, atol=1e-8)
