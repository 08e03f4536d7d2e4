"""Tables that a notebook shows as tables: HTML beside text.

Introduced in book/foundations/02_autoencoder_to_vae.ipynb.
"""

import html
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

_NUMBER = re.compile(r"[+\-\N{MINUS SIGN}<>]?[\d.,]")


class Table:
    """Rows that a notebook displays as a table; `vaelib.table` makes one.

    Args:
        rows: a dictionary a row.
        caption: what the table shows.

    Example:
        >>> import vaelib
        >>> vaelib.tables.Table([{"K": 1, "bound": -97.25}], caption="Bounds, nats")
        Bounds, nats
        K   bound
        1  -97.25
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], caption: str = "") -> None:
        self.heads = list(rows[0])
        self.rows = [[_text(row[head]) for head in self.heads] for row in rows]
        self.caption = caption
        # A column of numbers is set flush right, whatever stands in for a missing one.
        self.right = [
            all(_NUMBER.match(row[i]) or row[i] in ("", "-") for row in self.rows)
            for i in range(len(self.heads))
        ]

    def __str__(self) -> str:
        lines = [self.heads, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.heads))]
        text = [
            "  ".join(
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(line, widths, self.right)
            ).rstrip()
            for line in lines
        ]
        return "\n".join([*([self.caption] if self.caption else []), *text])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        # The alignment stands in each cell: notebooks have style sheets of their own, each another.
        look = {True: " class=number style=text-align:right", False: " style=text-align:left"}

        def cell(text: str, right: bool, tag: str) -> str:
            return f"<{tag}{look[right]}>{html.escape(text)}</{tag}>"

        # A corner without a name is no head: a screen reader would announce nothing.
        head = "".join(
            cell(text, right, "th" if text else "td") for text, right in zip(self.heads, self.right)
        )
        rows = ("".join(cell(*pair, "td") for pair in zip(row, self.right)) for row in self.rows)

        caption = html.escape(self.caption)
        caption = f"<caption style=text-align:left>{caption}</caption>" if caption else ""
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return (
            f'<table class="measured">{caption}<thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table>"
        )


def _text(cell: Any) -> str:
    if isinstance(cell, torch.Tensor):
        cell = cell.item()
    if isinstance(cell, bool | str):
        return str(cell)
    return f"{cell:,}" if isinstance(cell, int) else f"{cell:.4g}"


def table(rows: Sequence[Mapping[str, Any]], caption: str = "") -> Table:
    """A table for a notebook, as the last line of a cell or through ``display``.

    Args:
        rows: a dictionary a row, from column to cell. Text stands as it is; an int gets its
            thousands marked, a float or a tensor of one number four digits.
        caption: what the table shows, with units where the heads lack them.

    Returns:
        A table, shown as HTML in notebooks and on pages, and as text elsewhere.

    Raises:
        ValueError: without rows, or where a row has other columns than the first.

    Example:
        >>> import vaelib
        >>> vaelib.table([{"K": 1, "bound, nats": "-97.3"}, {"K": 1000, "bound, nats": "-93.1"}])
            K  bound, nats
            1        -97.3
        1,000        -93.1
    """
    if not rows:
        raise ValueError("table was given no rows; expected at least one dictionary.")
    for i, row in enumerate(rows):
        if list(row) != list(rows[0]):
            raise ValueError(
                f"row {i} has the columns {list(row)}; expected those of row 0, {list(rows[0])}."
            )
    return Table(rows, caption)


def plus_minus(values: torch.Tensor, digits: int = 2) -> str:
    """Mean and standard deviation of a few runs, as text.

    Args:
        values: [runs], one number a run.
        digits: decimals of both.

    Returns:
        "mean ± sd", the mean alone where there is one run.

    Example:
        >>> import torch
        >>> from vaelib.tables import plus_minus
        >>> plus_minus(torch.tensor([84.0, 84.2, 84.4]))
        '84.20 ± 0.20'
    """
    mean = f"{values.double().mean():.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {values.double().std():.{digits}f}"


# Student's t, 97.5 %, of 2 to 10 runs.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def interval(values: torch.Tensor) -> tuple[float, float, float]:
    """Mean of a few runs, and the ends of its 95 % interval by Student's t.

    Args:
        values: [runs], one number a run, 2 to 10 of them; for a difference, paired within the run.

    Returns:
        (mean, low, high).

    Raises:
        ValueError: for another number of runs.

    Example:
        >>> import torch
        >>> from vaelib.tables import interval
        >>> ["%.2f" % end for end in interval(torch.tensor([84.0, 84.2, 84.4]))]
        ['84.20', '83.70', '84.70']
    """
    n = len(values)
    if values.dim() != 1 or not 2 <= n < len(STUDENT) + 2:
        raise ValueError(
            f"interval was given values of shape {list(values.shape)}; expected [runs], 2 to 10 of "
            "them."
        )
    mean, sd = values.double().mean().item(), values.double().std().item()
    half = STUDENT[n - 2] * sd / math.sqrt(n)
    return mean, mean - half, mean + half


def answer(values: torch.Tensor) -> Literal["yes", "no", "open"]:
    """Is the mean of a few runs above zero? What its 95 % interval by Student's t says.

    Args:
        values: [runs], as for `interval`; subtract the threshold before.

    Returns:
        "yes" where the whole interval is above zero, "no" where it is below, else "open".

    Example:
        >>> import torch
        >>> from vaelib.tables import answer
        >>> answer(torch.tensor([0.3, 0.5, 0.4])), answer(torch.tensor([-0.3, 0.5, 0.4]))
        ('yes', 'open')
    """
    _, low, high = interval(values)
    return "yes" if low > 0 else "no" if high < 0 else "open"


__all__ = ["Table", "answer", "interval", "plus_minus", "table"]
