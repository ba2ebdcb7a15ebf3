"""Tables that a notebook shows, metrics among them: a DataFrame where pandas is there."""

from __future__ import annotations

import html
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any


class MetricsTable(dict[str, dict[str, float]]):
    """Structure -> metric -> value, a dict in every other way.

    Parameters
    ----------
    rows : mapping of str to mapping of str to float
        Structure -> metric -> value.
    title : str
        What stands above it.

    >>> MetricsTable({"PTV": {"D95": 50.0}}, "dose [Gy]")
    {'PTV': {'D95': 50.0}}
    """

    def __init__(self, rows: Mapping[str, dict[str, float]], title: str = "") -> None:
        super().__init__(rows)
        self.title = title

    def __reduce__(self) -> tuple[Any, ...]:
        return MetricsTable, (dict(self), self.title)

    def to_frame(self) -> Any:
        """Return the table as a pandas DataFrame: a row for each structure, a column for each metric.

        Raises
        ------
        ModuleNotFoundError
            When pandas is not installed.
        """
        import pandas

        return pandas.DataFrame.from_dict(dict(self), orient="index")

    def _repr_html_(self) -> str:
        title = f"<caption>{html.escape(self.title)}</caption>"
        if find_spec("pandas") is not None:
            frame = self.to_frame().to_html(float_format="{:.2f}".format, na_rep="", border=0)
            return str(frame).replace(">", f">{title}", 1) if frame.startswith("<table") else str(frame)
        heads = list(dict.fromkeys(head for row in self.values() for head in row))
        return html_table(
            ["", *heads],
            [[name, *(f"{row[head]:.2f}" if head in row else "" for head in heads)] for name, row in self.items()],
            self.title,
        )


def html_table(heads: list[str], rows: list[list[str]], title: str = "") -> str:
    """Return rows of text as an HTML table.

    >>> html_table(["a"], [["<b>"]])
    '<table><tr><th>a</th></tr><tr><td>&lt;b&gt;</td></tr></table>'
    """
    caption = f"<caption>{html.escape(title)}</caption>" if title else ""
    top = "".join(f"<th>{html.escape(head)}</th>" for head in heads)
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{caption}<tr>{top}</tr>{lines}</table>"
