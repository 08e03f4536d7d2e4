"""Ctrl-C and SIGTERM: held back until the step in hand is done and saved.

Introduced in book/foundations/06_training.ipynb.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn


@contextmanager
def held_interrupts() -> Iterator[list[int]]:
    """Hold the first Ctrl-C or SIGTERM back, in the list; a second one acts at once.

    SIGTERM is what a machine sends that is about to be taken away. One that is ignored, or that a
    handler of yours waits for, is left alone.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before: dict[int, Any] = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)
    }
    held = []
    if callable(before[signal.SIGINT]):
        held.append(signal.SIGINT)
    if before[signal.SIGTERM] is signal.SIG_DFL:
        held.append(signal.SIGTERM)

    def catch(number: int, frame: Any) -> None:
        caught.append(number)
        signal.signal(number, before[number])

    for number in held:
        signal.signal(number, catch)
    try:
        yield caught
    finally:
        for number in held:
            signal.signal(number, before[number])


def stop(caught: list[int], step: int, total: int, out: Any, saved: Path | None) -> NoReturn:
    """End as the signal asks: KeyboardInterrupt, or exit code 143 after SIGTERM."""
    after = f"Stopped after step {step} of {total}"
    if out is None:
        says = (
            f"{after}; nothing was saved, and the model has the weights of that step. With "
            "out=, a folder, the same call goes on where it was cut."
        )
    else:
        says = (
            f"{after}, and saved {saved or out}. Call fit again with the same arguments to go on."
        )
    if signal.SIGTERM in caught:
        print(f"SIGTERM: {says}", file=sys.stderr, flush=True)
        raise SystemExit(128 + signal.SIGTERM)
    raise KeyboardInterrupt(says)
