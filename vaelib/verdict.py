"""Verdicts: what a chapter found about a claim, as a record that the claims page is built from.

This is the one place that knows a record's fields and their rules: the page reads a stored record
by `Verdict(**record)`.
"""

import html
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

MIME = "application/vnd.vaelib.verdict+json"
CONDITION = "holds under a condition"
VERDICTS = ("holds", CONDITION, "undecided", "does not hold")
BUDGETS = ("smoke", "full", "long", "gpu")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_interval(value: Any) -> bool:
    pair = isinstance(value, tuple | list) and len(value) == 2 and all(map(_is_number, value))
    return pair and value[0] <= value[1]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "claim": (
        lambda v: _is_text(v) and bool(re.fullmatch(r"[CB]\d+", v)),
        'the id of a claim, such as "C1" (the survey\'s) or "B1" (the book\'s own)',
    ),
    "title": (_is_text, "the claim in a sentence"),
    "measured": (_is_text, "a sentence on what was measured"),
    "verdict": (lambda v: v in VERDICTS, f"one of {VERDICTS}"),
    "value": (_is_number, "a finite number"),
    "unit": (_is_text, "a text"),
    "interval": (lambda v: v is None or _is_interval(v), "two finite numbers, the lower first"),
    "seeds": (_is_count, "a whole number, 0 where nothing is random"),
    "budget": (lambda v: v in BUDGETS, f"one of {BUDGETS}"),
    "condition": (lambda v: v is None or _is_text(v), "a text, or None"),
    "note": (lambda v: v is None or _is_text(v), "a text, or None"),
}


@dataclass(frozen=True)
class Verdict:
    """One claim, what was measured, and the verdict; a notebook displays it as a card.

    - claim: an id, such as "C1" (the survey's) or "B1" (the book's own).
    - measured: one sentence, its numbers printed by code.
    - value, unit, interval: the number that decides, and its 95 % interval or spread.
    - seeds: how many independent runs.
    - condition: when it holds, if not always.

    Raises ValueError for a field that breaks its rule in `RULES`, or a condition that is missing.
    """

    claim: str
    title: str
    measured: str
    verdict: str
    value: float
    unit: str
    interval: tuple[float, float] | None = None
    seeds: int = 1
    budget: str = "full"
    condition: str | None = None
    note: str | None = None

    def __post_init__(self) -> None:
        for name, (keeps, expected) in RULES.items():
            if not keeps(value := getattr(self, name)):
                raise ValueError(f"{name} is {value!r}; expected {expected}.")
        if (self.verdict == CONDITION) != bool(self.condition):
            raise ValueError(
                f"verdict is {self.verdict!r} and condition is {self.condition!r}; expected a "
                f"condition with {CONDITION!r}, and only there."
            )

    def __str__(self) -> str:
        facts = "".join(f"\n{name}: {text}" for name, text in self._facts())
        return f"{self.claim}, {self.title}: {self.verdict}{facts}\n{self.note or ''}".rstrip()

    def _facts(self) -> list[tuple[str, str]]:
        low, high = self.interval or (0, 0)
        low_high = f"{low:.4g} to {high:.4g} {self.unit}" if self.interval else None
        facts = [
            ("Condition", self.condition),
            ("Measured", self.measured),
            ("Interval", low_high),
            ("Seeds", str(self.seeds or "none: nothing here is random")),
            ("Budget", self.budget),
        ]
        return [(name, text) for name, text in facts if text]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        e = html.escape
        rows = "".join(f"<dt>{name}</dt><dd>{e(text)}</dd>" for name, text in self._facts())
        note = f"<p>{e(self.note)}</p>" if self.note else ""
        return {
            MIME: asdict(self),
            "text/html": (
                f'<div class="verdict" data-verdict="{self.verdict}">'
                f'<p class="verdict-head"><span class="verdict-claim">{e(self.claim)}</span> '
                f'<span class="verdict-badge">{self.verdict}</span></p>'
                f'<p class="verdict-title">{e(self.title)}</p><dl>{rows}</dl>{note}</div>'
            ),
            "text/plain": str(self),
        }


__all__ = ["Verdict"]
