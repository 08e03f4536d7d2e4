"""Ctrl-C: the step in hand is finished and saved, and the error says how to go on."""

import os
import signal
import sys
import threading

import pytest
import torch
import train_script
from torture import Run, assert_same_outcome, grey, measured, same_bits, small, state

import vaelib
from vaelib.io import read_tensors

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one child")


def press():
    os.kill(os.getpid(), signal.SIGINT)


def newest(folder):
    return sorted(folder.glob("step_*.safetensors"))[-1]


@posix
@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on_and_the_same_call_ends_with_the_same_bits(
    tmp_path, uncut
):
    run = Run(tmp_path, save_every=1000)
    run.start(fresh=True)
    run.wait_for_step(60)
    run.send(signal.SIGINT)
    assert run.ended() in (-signal.SIGINT, 1)  # as Python chooses
    done = run.steps()[-1] + 1
    assert run.newest_step() == done
    assert run.stderr.strip().splitlines()[-1] == (
        f"KeyboardInterrupt: Stopped after step {done} of {train_script.STEPS}, and saved "
        f"{run.checkpoints()[-1]}. Call fit again with the same arguments to go on."
    )
    run.finish()
    assert run.steps()[0] == done
    assert_same_outcome(run, uncut)


@posix
@pytest.mark.slow
def test_ctrl_c_in_a_run_without_a_folder_says_that_nothing_was_saved(tmp_path):
    run = Run(tmp_path, out=None)
    run.start()
    run.wait_for_step(20)
    run.send(signal.SIGINT)
    assert run.ended() == 1
    says = run.error()
    assert says.startswith(f"KeyboardInterrupt: Stopped after step {run.steps()[-1] + 1} of ")
    assert "nothing was saved" in says
    assert "out=" in says
    assert not run.out.exists()


@posix
@pytest.mark.slow
def test_sigterm_saves_and_ends_with_143_and_the_same_call_ends_with_the_same_bits(tmp_path, uncut):
    """What a machine sends that is about to be taken away."""
    run = Run(tmp_path, save_every=1000)
    run.start(fresh=True)
    run.wait_for_step(60)
    run.send(signal.SIGTERM)
    assert run.ended() == 143
    done = run.steps()[-1] + 1
    assert run.newest_step() == done
    assert run.stderr.strip().splitlines()[-1] == (
        f"SIGTERM: Stopped after step {done} of {train_script.STEPS}, and saved "
        f"{run.checkpoints()[-1]}. Call fit again with the same arguments to go on."
    )
    run.finish()
    assert run.steps()[0] == done
    assert_same_outcome(run, uncut)


@posix
def test_sigterm_is_held_only_where_nobody_else_waits_for_it(tmp_path):
    def term(*_):
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as ended:
        vaelib.fit(small(), grey(), epochs=2, callback=term, out=tmp_path)
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert newest(tmp_path).name == "step_000000001.safetensors"
    caught = []
    before = signal.signal(signal.SIGTERM, lambda *_: caught.append(1))
    try:
        assert vaelib.fit(small(), grey(), epochs=2, callback=term).epoch == [1, 2]
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught == [1, 1]


class Presses:
    """Presses Ctrl-C in a step, within the objective."""

    def __init__(self, at):
        self.at, self.steps = at, []
        self.__qualname__ = "presses"  # the same objective in the run that goes on

    def __call__(self, draw, step):
        if torch.is_grad_enabled():
            self.steps.append(int(step))
            if int(step) == self.at:
                press()
        return vaelib.elbo(draw)


@pytest.mark.parametrize("at", range(8))
def test_the_step_in_which_it_is_pressed_is_finished_and_saved_once(tmp_path, at):
    """Four steps an epoch: also in the first, in the last of an epoch, and in the very last."""
    keywords = {"epochs": 2, "batch_size": 25, "ema": 0.9, "validation": grey(20)}
    whole = small()
    history = vaelib.fit(whole, grey(), objective=Presses(None), **keywords)
    cut, model = Presses(at), small()
    with pytest.raises(KeyboardInterrupt, match=f"Stopped after step {at + 1} of 8"):
        vaelib.fit(model, grey(), objective=cut, out=tmp_path, **keywords)
    assert cut.steps == list(range(at + 1))
    tensors, _ = read_tensors(newest(tmp_path))
    assert same_bits(state(model), {n: tensors[f"model.{n}"] for n in state(model)})
    rest, model = Presses(None), small(seed=7)
    resumed = vaelib.fit(model, grey(), objective=rest, out=tmp_path, **keywords)
    assert rest.steps == list(range(at + 1, 8))
    assert same_bits(state(model), state(whole))
    assert same_bits(resumed.ema, history.ema)
    assert measured(resumed) == measured(history)


def test_without_a_folder_the_model_has_the_weights_of_the_step_named():
    seen = []

    def objective(draw, step):
        seen.append(state(model))
        if int(step) == 2:
            press()
        return vaelib.elbo(draw)

    model = small()
    with pytest.raises(KeyboardInterrupt, match="Stopped after step 3 of 8; nothing was saved"):
        vaelib.fit(model, grey(), objective=objective, epochs=2, batch_size=25)
    assert len(seen) == 3
    longer = small()

    def stop_at_3(draw, step):
        if int(step) == 3:
            assert same_bits(state(longer), state(model))
        return vaelib.elbo(draw)

    vaelib.fit(longer, grey(), objective=stop_at_3, epochs=2, batch_size=25)


def test_a_second_ctrl_c_stops_at_once():
    def objective(draw, step):
        press()
        started.append(int(step))  # the first is held back
        press()
        raise AssertionError("The second was held back as well.")

    started = []
    with pytest.raises(KeyboardInterrupt) as caught:
        vaelib.fit(small(), grey(), objective=objective, epochs=1)
    assert started == [0]
    assert "Stopped after" not in str(caught.value)


def test_pressed_in_validation_or_in_a_callback_it_is_not_lost(tmp_path):
    class InValidation(Presses):
        def __call__(self, draw, step):
            if not torch.is_grad_enabled():
                press()
            return super().__call__(draw, step)

    for name, keywords in {
        "validation": {"objective": InValidation(None), "validation": grey(20)},
        "callback": {"objective": Presses(None), "callback": lambda *_: press()},
    }.items():
        with pytest.raises(KeyboardInterrupt, match="Stopped after step 4 of 8"):
            vaelib.fit(small(), grey(), epochs=2, batch_size=25, out=tmp_path / name, **keywords)
        assert newest(tmp_path / name).name == "step_000000004.safetensors"


def test_pressed_while_a_checkpoint_is_written_the_file_is_whole_and_the_run_stops(
    tmp_path, monkeypatch
):
    real, calls = os.fsync, []

    def fsync(handle):
        calls.append(handle)
        if len(calls) == 7:
            press()
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(KeyboardInterrupt, match="saved"):
        vaelib.fit(small(), grey(), epochs=4, batch_size=25, out=tmp_path, save_every=1e-9)
    read_tensors(newest(tmp_path))
    assert not list(tmp_path.glob("*.part"))


def test_pressed_while_a_finished_run_is_read_it_is_not_swallowed(tmp_path):
    def optimizer(parameters):
        made = torch.optim.Adam(parameters)
        made.register_load_state_dict_post_hook(lambda _: press())
        return made

    keywords = {"epochs": 1, "out": tmp_path, "optimizer": optimizer}
    vaelib.fit(small(), grey(), **keywords)
    with pytest.raises(KeyboardInterrupt):
        vaelib.fit(small(), grey(), **keywords)


def test_the_handler_is_as_it_was_after_a_run_a_cut_run_and_a_failed_one():
    before = signal.getsignal(signal.SIGINT)
    vaelib.fit(small(), grey(), epochs=1)
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt):
        vaelib.fit(small(), grey(), epochs=1, callback=lambda *_: press())
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(ZeroDivisionError):
        vaelib.fit(small(), grey(), epochs=1, callback=lambda *_: 1 / 0)
    assert signal.getsignal(signal.SIGINT) is before


def test_where_ctrl_c_was_ignored_it_stays_ignored():
    """As under nohup."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        history = vaelib.fit(small(), grey(), epochs=2, callback=lambda *_: press())
    finally:
        signal.signal(signal.SIGINT, before)
    assert history.epoch == [1, 2]


def test_in_another_thread_fit_works_and_gives_the_same_bits(tmp_path):
    whole = small()
    vaelib.fit(whole, grey(), epochs=2, batch_size=25)
    model, errors = small(), []

    def work():
        try:
            vaelib.fit(model, grey(), epochs=2, batch_size=25, out=tmp_path)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert errors == []
    assert same_bits(state(model), state(whole))
