"""SIGKILL, as a power cut or a batch system sends it: no bit is lost, and no step made twice."""

import random
import signal
import sys
import time

import pytest
import train_script
from torture import Run, amount, assert_same_outcome

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL"),
]


def assert_nothing_was_repeated(run, newest):
    """The child's first step is the checkpoint's, its steps are all, in order."""
    steps = run.steps()
    assert steps == list(range(newest, newest + len(steps)))


def parts(run):
    return sorted(run.out.glob("*.part"))


@pytest.mark.parametrize("save_every", [0.05, 0.0001])
def test_a_run_killed_again_and_again_ends_with_the_bits_of_an_uncut_one(
    tmp_path, uncut, save_every
):
    """With 0.0001 a checkpoint follows every step, so most of the kills fall into writing one."""
    dice = random.Random(1)
    run = Run(tmp_path, save_every=save_every)
    targets = dice.sample(range(5, train_script.STEPS - 10), amount(4, 50))
    for target in sorted(targets):
        newest = run.newest_step()
        run.start()
        run.wait_for_step(target)
        time.sleep(dice.uniform(0, 0.02))
        run.kill()
        assert_nothing_was_repeated(run, newest)
        assert run.newest_step() >= newest
        assert len(run.checkpoints()) <= 3  # the last two, and one whose turn it was to go
        assert len(parts(run)) <= 1
    newest = run.newest_step()
    run.finish()
    assert_nothing_was_repeated(run, newest)
    assert run.steps()[-1] == train_script.STEPS - 1
    assert_same_outcome(run, uncut)
    assert len(run.checkpoints()) == 2
    assert {p.name for p in run.out.iterdir()} == {"lock", *(p.name for p in run.checkpoints())}


def test_fresh_interpreters_killed_while_they_start_and_while_they_train(tmp_path, uncut):
    """Nothing may depend on the process: its hash seed, its addresses, what it has imported."""
    dice = random.Random(2)
    run = Run(tmp_path)
    run.start(fresh=True)
    run.wait_for(lambda: "ready" in run.events()[run.since :])
    time.sleep(dice.uniform(0, 0.05))  # opening the folder, or the first steps
    run.kill()
    for target in sorted(dice.sample(range(60, train_script.STEPS - 10), amount(0, 10))):
        newest = run.newest_step()
        run.start(fresh=True)
        run.wait_for_step(target)
        run.kill()
        assert_nothing_was_repeated(run, newest)
    run.finish(fresh=True)
    assert_same_outcome(run, uncut)


def test_a_run_killed_at_each_step_of_writing_a_checkpoint_loses_no_bit(tmp_path, uncut):
    """As it opens the file, renames it, flushes the folder, lists it and removes the old ones."""
    run = Run(tmp_path, save_every=0.0001)
    run.start()
    run.wait_for_step(3)
    run.kill()
    for event in range(amount(7, 40)):  # a checkpoint is six events or so
        newest = run.newest_step()
        run.start(die_at_event=event)
        assert run.ended() == -signal.SIGKILL
        assert_nothing_was_repeated(run, newest)
        assert run.newest_step() >= newest
        assert len(parts(run)) <= 1, "cut files pile up"
    run.finish(save_every=1000)  # the rest, sooner
    assert_same_outcome(run, uncut)
    assert not parts(run)


def test_runs_killed_in_the_middle_of_a_file_leave_one_cut_file_and_then_none(tmp_path, uncut):
    """The kernel ends the process as the checkpoint grows beyond a limit: half of it is written."""
    run = Run(tmp_path, save_every=0.0001)
    run.start()
    run.wait_for_step(3)
    run.kill()
    size = run.checkpoints()[0].stat().st_size
    for _ in range(3):
        newest = run.newest_step()
        run.start(limit_files_at=newest, limit=size // 2, limit_kills=True)
        assert run.ended() == -signal.SIGXFSZ
        assert_nothing_was_repeated(run, newest)
        assert [p.stat().st_size for p in parts(run)] == [size // 2], "cut files pile up"
    run.finish(save_every=1000)  # the rest, sooner
    assert_same_outcome(run, uncut)
    assert not parts(run)


def test_a_killed_run_keeps_the_patience_of_its_early_stopping(tmp_path):
    """The second epoch is the best, so that of four the third is the last, kills or none."""
    uncut = Run(make(tmp_path / "uncut"), patience=1)
    uncut.finish()
    run = Run(make(tmp_path / "killed"), patience=1)
    per_epoch = train_script.STEPS // train_script.EPOCHS
    for target in (per_epoch // 2, per_epoch + 5, 2 * per_epoch + 9):
        run.start()
        run.wait_for_step(target)
        run.kill()
    run.finish()
    assert run.newest_step() == 3 * per_epoch
    assert_same_outcome(run, uncut)
    run.finish()  # a finished run returns at once
    assert run.steps() == []


def make(folder):
    folder.mkdir()
    return folder
