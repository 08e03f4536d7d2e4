"""A run's folder: the last two checkpoints, one process at a time.

A checkpoint is written beside its place, flushed and renamed, so a process killed at any moment
leaves whole files. The second newest is kept: a damaged newest costs minutes, not the run.
Introduced in book/foundations/06_training.ipynb.
"""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .io import read_tensors, write_tensors

KEPT = 2

try:
    import fcntl
except ImportError:  # Windows: nothing guards the folder there
    fcntl = None  # type: ignore[assignment]


class Checkpoints:
    """The checkpoints of one run, in a folder that this process holds while in `with`.

    settings: what a run must keep to end as it began; a folder begun with others is refused.
    Raises OSError where the folder cannot be written, or where another process trains in it.
    """

    def __init__(self, out: str | Path, settings: Mapping[str, Any]) -> None:
        self.out = Path(out)
        self.settings = json.loads(json.dumps(settings))
        self.last: Path | None = None
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            self.lock = open(self.out / "lock", "a")  # noqa: SIM115 - held as long as the run
        except OSError as error:
            raise type(error)(
                error.errno,
                f"{self.out} could not be written ({error.strerror}); expected a folder with the "
                "right to write: choose another out",
            ) from error
        if fcntl is not None:
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process
            except BlockingIOError as error:
                self.lock.close()
                raise BlockingIOError(
                    error.errno,
                    f"{self.out} is in use by another process that trains there; expected a "
                    "folder of its own for each run: wait for it, or choose another out",
                ) from error
            except OSError:  # a file system without locks: nothing guards the folder there
                pass

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, ValueError | TypeError) and self.last is not None:
            if self.last == self._path(0):  # refused before its first step: it leaves no run behind
                self.last.unlink(missing_ok=True)
        self.lock.close()  # lets go of the folder

    def _path(self, step: int) -> Path:
        return self.out / f"step_{step:09d}.safetensors"

    def paths(self) -> list[Path]:
        """The checkpoints in the folder, the oldest first."""
        return sorted(self.out.glob(f"step_{'[0-9]' * 9}.safetensors"))

    def read(self) -> tuple[dict[str, Tensor], Any] | None:
        """The newest good checkpoint, or None in a new folder.

        A damaged one is passed over with a warning. ValueError where none is good, or where the
        run was begun with other settings.
        """
        damaged = []
        for path in reversed(self.paths()):
            try:
                tensors, description = read_tensors(path)
                if "settings" not in description:
                    raise ValueError(f"{path} is no checkpoint but another file of vaelib's.")
            except ValueError as error:
                damaged.append((path, error))
                continue
            self._refuse_other(path, description["settings"])
            for bad, reason in damaged:
                warnings.warn(f"{reason} The run goes on from {path.name}.", stacklevel=3)
                bad.unlink()
            self.last = path
            return tensors, description
        if damaged:
            raise ValueError(
                f"{self.out} holds no checkpoint that can be read; {damaged[0][1]} To train from "
                "the beginning, remove the folder or choose another out."
            )
        return None

    def write(self, step: int, tensors: Mapping[str, Tensor], description: dict[str, Any]) -> None:
        """Add the state after `step` updates; then remove all but the last two."""
        path = self._path(step)
        for cut in self.out.glob("step_*.part"):  # left by a killed process: room for this one
            cut.unlink()
        write_tensors(path, tensors, description | {"settings": self.settings})
        self.last = path
        for old in self.paths()[:-KEPT]:
            old.unlink()

    def _refuse_other(self, path: Path, saved: dict[str, Any]) -> None:
        for name in sorted(self.settings.keys() | saved.keys()):
            then, now = saved.get(name), self.settings.get(name)
            if then == now:
                continue
            if name == "threads":  # no reason to stop: only the last bits differ
                warnings.warn(
                    f"{path.parent} was begun with {then} threads and goes on with {now}: the "
                    "weights will not be the same to the last bit.",
                    stacklevel=4,
                )
            elif name == "schedule" and then and now and then[0] == now[0]:
                raise ValueError(
                    f"{path} was begun with a schedule over {then[1]} epochs, but this call has "
                    f"{now[1]}; expected the same, since the learning rates already used depend "
                    "on the total: choose another out to train from the beginning."
                )
            else:
                then, now = _first_difference(then, now)
                raise ValueError(
                    f"{path} was begun with {name} = {then}, but this call has {now}; expected "
                    "the same: go back to it, or choose another out."
                )


def _first_difference(then: Any, now: Any) -> tuple[Any, Any]:
    """Of two long texts, the first lines that differ."""
    if isinstance(then, str) and isinstance(now, str):
        for a, b in zip(then.splitlines(), now.splitlines()):
            if a != b:
                return a.strip(), b.strip()
    return then, now
