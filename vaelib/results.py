"""Results of runs that a chapter's ten minutes cannot hold: `make benchmark` keeps them in
data/results, and chapters read them here.

Introduced in book/foundations/05_first_vae.ipynb.
"""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FOLDER = Path(__file__).resolve().parent.parent / "data" / "results"


@dataclass(frozen=True)
class Results:
    """What a benchmark found: a dictionary a seed, and what it ran on.

    Attributes:
        name: of the benchmark, as ``make benchmark`` knows it.
        runs: a dictionary a seed: "seed", "seconds", and what the job left.
        commit: of the runs.
        date: of the runs.
        device: of the runs.
        threads: of the runs.

    Example:
        >>> import vaelib
        >>> vaelib.results("mnist_minutes").name
        'mnist_minutes'
    """

    name: str
    runs: list[dict[str, Any]] = field(repr=False)
    commit: str
    date: str
    device: str
    threads: int

    def over_seeds(self, *path: str | int) -> Tensor:
        """What lies at a path in each run, as float64 [seeds, ...].

        Args:
            path: keys into a run, from the outside in.

        Raises:
            KeyError: where a run has nothing there.

        Example:
            >>> from vaelib.results import Results
            >>> runs = [{"seed": s, "VAE": {"nll": 84.0 + s}} for s in range(3)]
            >>> Results("demo", runs, "0" * 40, "2026-01-01", "cpu", 1).over_seeds("VAE", "nll")
            tensor([84., 85., 86.], dtype=torch.float64)
        """
        values = []
        for run in self.runs:
            value: Any = run
            for key in path:
                try:
                    value = value[key]
                except (KeyError, IndexError, TypeError) as error:
                    there = ", ".join(map(str, value)) if isinstance(value, dict) else value
                    raise KeyError(
                        f"the results {self.name!r} have no {' / '.join(map(str, path))}: at "
                        f"{key!r} there is {there}."
                    ) from error
            values.append(value)
        return torch.tensor(values, dtype=torch.float64)

    def of_seed(self, seed: int) -> dict[str, Any] | None:
        """The run of this seed, or None: what a chapter's own run is held against."""
        return next((run for run in self.runs if run["seed"] == seed), None)

    def __str__(self) -> str:
        minutes = [round(run["seconds"] / 60) for run in self.runs]
        low, high = min(minutes), max(minutes)
        spent = f"{low} minutes" if low == high else f"{low} to {high} minutes"
        many = f"{len(self.runs)} seeds, {spent} each" if len(self.runs) > 1 else f"1 seed, {spent}"
        where = f"{self.threads} thread{'s' * (self.threads > 1)} of cpu"
        device = where if self.device == "cpu" else self.device
        return f"{many} on {device}, commit {self.commit[:10]}"


def results(name: str, folder: str | Path | None = None) -> Results:
    """Read a benchmark's results.

    Args:
        name: of the benchmark, such as "mnist_minutes".
        folder: where NAME.json lies; the repository's data/results without it.

    Returns:
        The runs, a dictionary a seed, and what they ran on.

    Raises:
        FileNotFoundError: where there is no such file.

    Example:
        >>> import vaelib
        >>> found = vaelib.results("mnist_minutes")
        >>> found.over_seeds("seed").shape == (len(found.runs),)
        True
    """
    path = Path(folder or FOLDER) / f"{name}.json"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.json"))) or "none"
        raise FileNotFoundError(
            f"{path} is not there; expected one of {there}, in a checkout of the book: "
            "`make benchmark` writes it."
        )
    content = json.loads(path.read_text(encoding="utf-8"))
    facts = {key: content[key] for key in ("runs", "commit", "date", "device", "threads")}
    return Results(name, **facts)


def kept(name: str, make: Callable[[], Any]) -> Any:
    """One part of a benchmark's result: made once, also by a run that is cut and started again.

    ``make benchmark`` says by VAELIB_KEPT in which folder finished parts are kept, until the
    benchmark is complete; without it, the part is made. Processes that it sets to one seed together
    (VAELIB_SHARED) each take the parts that no other has taken, and get ``{}`` for those: their
    results are thrown away, and the seed is put together from its parts.

    Args:
        name: of the part; no other in this benchmark has it.
        make: gives the part, which JSON can hold.

    Example:
        >>> from vaelib.results import kept
        >>> kept("small VAE", lambda: {"nll": 97.3})
        {'nll': 97.3}
    """
    folder = os.environ.get("VAELIB_KEPT")
    if not folder:
        return make()
    path = Path(folder) / (re.sub(r"\W+", "_", name) + ".json")
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.environ.get("VAELIB_SHARED"):
            try:
                path.with_suffix(".taken").open("x").close()
            except FileExistsError:
                return {}
        content = json.dumps(make())
        new = path.with_suffix(f".{os.getpid()}")  # whole or not at all
        new.write_text(content, encoding="utf-8")
        os.replace(new, path)
    return json.loads(path.read_text(encoding="utf-8"))


__all__ = ["Results", "kept", "results"]
