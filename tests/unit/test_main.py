"""`python -m vaelib`, as a user types it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import vaelib

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "VAELIB_PROGRESS": "0"}
    return subprocess.run(
        [sys.executable, "-m", "vaelib", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
    )


def test_it_says_what_is_there(tmp_path):
    answer = run(cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert vaelib.__version__ in answer.stdout
    assert "device: " in answer.stdout
    assert "MNIST: " in answer.stdout


@pytest.mark.slow
def test_train_trains_scores_and_draws(tmp_path):
    keywords = ["--epochs", "1", "--num-samples", "5", "--out", "runs/demo"]
    answer = run("train", "--data", "mnist", *keywords, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    score = float(answer.stdout.split("log p(x) = ")[1].split()[0])
    assert -140 < score < -110  # one epoch; an untrained model scores below -540
    assert "10,000 examples, binarized with seed 0; K = 5" in answer.stdout
    out = tmp_path / "runs" / "demo"
    assert (out / "samples.png").read_bytes()[:4] == b"\x89PNG"
    assert vaelib.load(out / "model.safetensors").latent_dim == 20


def test_bad_settings_get_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    answer = run("train", "--epochs", "-1", "--out", str(tmp_path / "runs"), cwd=tmp_path)
    assert answer.returncode == 1
    assert answer.stderr == "vaelib: epochs is -1; expected a whole number of at least 1.\n"
    answer = run("train", "--epochs", "1", "--out", str(tmp_path / "file"), cwd=tmp_path)
    assert answer.returncode == 1
    assert "could not be written" in answer.stderr
    assert "Traceback" not in answer.stderr
