"""What a report is made of: scores, and the table, JSON and frames that they become.

Introduced in book/models/07_evaluation.ipynb.
"""

import csv
import json
import math
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any

COLUMNS = ["group", "name", "value", "stderr", "high", "unit", "note"]


@dataclass(frozen=True)
class Score:
    """One number of a report.

    Attributes:
        group: the part of the report that it stands in.
        name: what the report calls it.
        value: the number; of a bracket the lower end.
        stderr: its standard error, where it has one.
        unit: "nats", "bits", or none.
        note: what it is, in a few words.
        high: where the number is known as a bracket, its upper end.

    Example:
        >>> import vaelib
        >>> print(vaelib.evaluate.Score("likelihood", "nll", 97.3123, 0.25, "nats"))
        97.31 +- 0.25 nats
    """

    group: str
    name: str
    value: float
    stderr: float | None = None
    unit: str = ""
    note: str = ""
    high: float | None = None

    def __str__(self) -> str:
        if self.high is not None:
            digits = _digits(self.value, self.high - self.value)
            return f"{self.value:,.{digits}f} to {self.high:,.{digits}f} {self.unit}".rstrip()
        text = f"{self.value:,.{_digits(self.value, self.stderr)}f}"
        if self.stderr is not None and math.isfinite(self.stderr):
            text += f" +- {self.stderr:,.{_digits(self.value, self.stderr)}f}"
        return f"{text} {self.unit}".rstrip()


@dataclass(frozen=True)
class Report:
    """What `report` found: ``report["nll"].value``, a table in Jupyter, JSON on disk.

    Attributes:
        scores: each `evaluate.Score`, by name.
        warnings: sentences about what not to trust, and why.
        curve: the K-curve, {k: mean log p(x) estimate}, nats.
        kl_parts: the rate of each latent, nats, where the KL is analytic.
        settings: sizes, seeds and draws, what it takes to repeat it.
        seconds: what it took.
    """

    scores: dict[str, Score]
    warnings: list[str]
    curve: dict[int, float]
    kl_parts: list[float] | None
    settings: dict[str, int | None] = field(default_factory=dict)
    seconds: float = math.nan

    def __getitem__(self, name: str) -> Score:
        if name not in self.scores:
            raise KeyError(f"The report has no {name!r}; it has {', '.join(self.scores)}.")
        return self.scores[name]

    def to_json(self, path: str | Path | None = None) -> str:
        """The report as JSON, also written to `path` if there is one."""
        text = json.dumps(asdict(self), indent=2)
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    @classmethod
    def from_json(cls, path: str | Path) -> "Report":
        """Read what `to_json` wrote."""
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        content["scores"] = {name: Score(**score) for name, score in content["scores"].items()}
        content["curve"] = {int(k): value for k, value in content["curve"].items()}
        return cls(**content)

    def to_csv(self, path: str | Path) -> None:
        """The scores as a table of comma-separated values, a score a line."""
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, COLUMNS)
            table.writeheader()
            table.writerows(asdict(score) for score in self.scores.values())

    def to_frame(self) -> Any:
        """The scores as a pandas DataFrame, a score a row.

        Raises:
            ImportError: where pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "Report.to_frame got no pandas to import; expected it installed: pip install "
                "pandas, or use to_csv."
            ) from error
        rows = [asdict(score) for score in self.scores.values()]
        return pandas.DataFrame(rows, columns=COLUMNS).set_index("name")

    def __repr__(self) -> str:
        lines = [f"{s.group:15} {s.name:30} {s}" for s in self.scores.values()]
        return "\n".join(lines + [f"! {warning}" for warning in self.warnings])

    def _repr_html_(self) -> str:
        rows, group = [], None
        for score in self.scores.values():
            if score.group != group:
                group = score.group
                rows.append(f'<tr><th colspan="3">{escape(group)}</th></tr>')
            cells = (score.name.replace("_", " "), str(score), score.note)
            rows.append("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in cells) + "</tr>")
        warnings = "".join(f"<li>{escape(warning)}</li>" for warning in self.warnings)
        head = "".join(f"<th>{name}</th>" for name in ("score", "value", "what it is"))
        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>" + (
            f"<ul>{warnings}</ul>" if warnings else ""
        )


def _digits(value: float, stderr: float | None) -> int:
    """Two digits of the error where there is one, else four of the value."""
    scale = stderr if stderr and math.isfinite(stderr) else abs(value) / 100
    if scale == 0 or not math.isfinite(scale) or float(value).is_integer():
        return 0 if float(value).is_integer() and not stderr else 2
    return max(0, min(6, 1 - math.floor(math.log10(scale))))
