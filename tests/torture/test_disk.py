"""Disks that are full, folders that may not be written, and two runs that want the same one."""

import os
import signal
import sys

import pytest
from torture import (
    KEYWORDS,
    Run,
    assert_same_outcome,
    contents,
    grey,
    measured,
    same_bits,
    small,
    state,
)

import vaelib

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX")
NOBODY = 65534


def assert_the_run_can_go_on(folder, whole):
    begun = list(folder.glob("step_*.safetensors"))
    model = small(seed=9 if begun else 0)  # a checkpoint replaces whatever the model holds
    history = vaelib.fit(model, grey(), out=folder, **KEYWORDS)
    assert same_bits(state(model), whole[0])
    assert same_bits(history.ema, whole[1].ema)
    assert measured(history) == measured(whole[1])


@posix
@pytest.mark.slow
@pytest.mark.parametrize("share", [0.01, 0.999])
def test_a_disk_that_fills_up_is_a_clear_error_and_the_run_goes_on_when_there_is_room(
    tmp_path, uncut, share
):
    """A real one: the kernel refuses every byte beyond a limit, in a child."""
    run = Run(tmp_path, save_every=0.0001)
    run.start()
    run.wait_for_step(3)
    run.kill()
    size = run.checkpoints()[-1].stat().st_size
    step = run.newest_step()
    run.start(limit_files_at=step + 3, limit=int(share * size))
    assert run.ended() == 1
    assert run.error().startswith("OSError: [Errno 27]")
    assert "could not be written (File too large); expected a folder with room" in run.error()
    assert str(run.out) in run.error()
    assert run.newest_step() == step + 3  # what was saved before
    assert not list(run.out.glob("*.part"))
    run.finish(save_every=1000)  # the rest, sooner
    assert_same_outcome(run, uncut)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("call", [0, 1, 2, 5, 11])
def test_an_error_at_any_write_leaves_the_last_good_state(
    tmp_path, monkeypatch, whole, failing, call
):
    calls, real = [], getattr(os, failing)
    before = {}

    def full(*arguments):
        calls.append(arguments)
        if len(calls) > call:
            before.update(contents(tmp_path))
            raise OSError(28, "No space left on device")
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, full)
        with pytest.raises(OSError, match=r"could not be written \(No space left") as caught:
            vaelib.fit(small(), grey(), out=tmp_path, save_every=1e-9, **KEYWORDS)
    assert caught.value.errno == 28
    after = contents(tmp_path)
    assert not [name for name in after if name.endswith(".part")]
    assert after == {n: c for n, c in before.items() if not n.endswith(".part")}
    assert_the_run_can_go_on(tmp_path, whole)


def test_a_cut_file_is_removed_before_the_next_is_written(tmp_path, monkeypatch, whole):
    """On a disk that is nearly full its room is needed."""
    vaelib.fit(small(), grey(), out=tmp_path, **(KEYWORDS | {"epochs": 2}))
    cut = tmp_path / "step_000000012.safetensorsabcd.part"
    cut.write_bytes(b"\0" * 100)
    real, seen = os.fsync, []

    def fsync(handle):
        seen.append(cut.exists())
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    assert_the_run_can_go_on(tmp_path, whole)
    assert seen
    assert not any(seen)


@posix
@pytest.mark.slow
@pytest.mark.parametrize("folder", ["begun", "new"])
def test_a_folder_without_the_right_to_write_is_a_clear_error(tmp_path, uncut, folder):
    place = tmp_path / "place"
    place.mkdir()
    run = Run(tmp_path, save_every=0.0001, out=str(place / "out"))
    run.out = place / "out"
    if folder == "begun":
        run.start()
        run.wait_for_step(3)
        run.kill()
    modes = [(p, p.stat().st_mode) for p in (run.out, place) if p.exists()]
    for path, _ in modes:
        path.chmod(0o555)
    before = contents(run.out) if run.out.exists() else None
    user = os.getuid() or NOBODY  # root may write everywhere
    try:
        run.start(become=user, folder=str(place), out="out")
        assert run.ended() == 1
    finally:
        for path, mode in modes:
            path.chmod(mode)
    assert run.error() == (
        "PermissionError: [Errno 13] out could not be written (Permission denied); expected a "
        "folder with the right to write: choose another out"
    )
    assert run.steps() == []  # before the first step
    assert (contents(run.out) if run.out.exists() else None) == before
    run.finish(save_every=1000)  # the rest, sooner
    assert_same_outcome(run, uncut)


def test_a_file_in_the_way_is_found_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file/deeper"):
        model = small()
        with pytest.raises(OSError, match="could not be written"):
            vaelib.fit(model, grey(), out=out, epochs=1)
        assert same_bits(state(model), state(small()))
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_folder_in_a_checkpoints_place_is_a_clear_error_and_the_run_can_go_on(tmp_path, whole):
    place = tmp_path / "step_000000008.safetensors"

    def in_the_way(model, history):
        if history.epoch[-1] == 1:
            (place / "deeper").mkdir(parents=True)

    with pytest.raises(OSError, match=r"step_000000008\.safetensors could not be written"):
        vaelib.fit(small(), grey(), out=tmp_path, callback=in_the_way, **KEYWORDS)
    assert not list(tmp_path.glob("*.part"))
    (place / "deeper").rmdir()
    place.rmdir()
    assert_the_run_can_go_on(tmp_path, whole)


def test_a_folder_removed_during_the_run_is_made_again_or_a_clear_error(tmp_path, whole):
    import shutil

    def remove(model, history):
        if history.epoch[-1] == 2:
            shutil.rmtree(tmp_path / "run")

    try:
        vaelib.fit(small(), grey(), out=tmp_path / "run", callback=remove, **KEYWORDS)
    except OSError as error:
        assert "could not be written" in str(error)
    assert_the_run_can_go_on(tmp_path / "run", whole)


@posix
@pytest.mark.slow
def test_a_second_run_in_a_folder_is_refused_and_the_first_unharmed(tmp_path, uncut):
    run = Run(tmp_path)
    run.start()
    run.wait_for_step(10)
    run.send(signal.SIGSTOP)  # so that the first is in the midst of it
    try:
        before = contents(run.out)
        second = Run(tmp_path, log=str(tmp_path / "log2"), result=str(tmp_path / "result2"))
        second.start()
        assert second.ended() == 1
        assert (tmp_path / "result2.error").read_text().startswith("BlockingIOError: [Errno 11] ")
        assert "in use by another process" in (tmp_path / "result2.error").read_text()
        assert (tmp_path / "log2").read_text().split() == ["ready"]  # not one step
        assert contents(run.out) == before
    finally:
        run.send(signal.SIGCONT)
    assert run.ended() == 0, run.error()
    assert_same_outcome(run, uncut)


@posix
@pytest.mark.slow
def test_a_folder_is_free_again_when_its_run_was_killed(tmp_path, uncut):
    run = Run(tmp_path)
    run.start()
    run.wait_for_step(60)
    run.send(signal.SIGSTOP)
    with pytest.raises(OSError, match="in use by another process"):
        vaelib.fit(small(), grey(), out=run.out)
    run.kill()
    run.finish(save_every=1000)  # the rest, sooner
    assert_same_outcome(run, uncut)


def test_a_run_within_a_run_in_the_same_folder_is_refused_too(tmp_path, whole):
    def nested(model, history):
        with pytest.raises(OSError, match="in use"):
            vaelib.fit(small(), grey(), out=tmp_path, **KEYWORDS)

    vaelib.fit(small(), grey(), out=tmp_path, callback=nested, **KEYWORDS)
    assert_the_run_can_go_on(tmp_path, whole)


@posix
def test_a_file_system_without_locks_is_not_called_a_folder_in_use(tmp_path, monkeypatch):
    """Some network and cloud drives know none: train there unguarded, or say what is missing."""
    import fcntl

    def unknown(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unknown)
    try:
        vaelib.fit(small(), grey(), epochs=1, out=tmp_path)
    except OSError as error:
        assert "in use" not in str(error)


def test_after_any_error_the_folder_is_free_for_the_same_process(tmp_path, whole):
    with pytest.raises(ZeroDivisionError):
        vaelib.fit(small(), grey(), out=tmp_path, callback=lambda *_: 1 / 0, **KEYWORDS)
    with pytest.raises(ValueError, match="begun with seed"):
        vaelib.fit(small(), grey(), out=tmp_path, seed=5, **KEYWORDS)
    assert_the_run_can_go_on(tmp_path, whole)
