"""What a command says on the console: a line per step, a bar with the time left, tables that fit."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Number
from typing import Any

from radplan.progress import Report, listening, rich_bars, sentence

WIDTH = 80
"""Columns that every table fits into."""


class Once(logging.Filter):
    """Lets a warning through the first time only.

    Parameters
    ----------
    numbers : bool
        Whether one with other numbers is another one; rounds of a search repeat theirs.
    """

    def __init__(self, numbers: bool = True) -> None:
        super().__init__()
        self.numbers = numbers
        self.told: set[tuple[object, ...]] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether nothing like it was told before."""
        given = record.args if isinstance(record.args, tuple) else ()
        kept = [str(value) for value in given if self.numbers or not isinstance(value, Number)]
        key = (record.msg, *kept)
        known = key in self.told
        self.told.add(key)
        return not known


def show_warnings(level: int = logging.WARNING, numbers: bool = True) -> None:
    """Print warnings, or what is of a level and above it, to standard error, each one once; see `Once`."""
    handler = logging.StreamHandler()
    handler.addFilter(Once(numbers))
    logging.basicConfig(format="radplan: %(levelname)s: %(message)s", level=level, handlers=[handler])


class Console:
    """Listens to a calculation: a line per finished step; before that a bar on a terminal, or a line now and then.

    Parameters
    ----------
    terminal : bool, optional
        Whether bars are drawn; where standard output or standard error is a terminal when left out.
    """

    def __init__(self, terminal: bool | None = None) -> None:
        self.first = self.last = time.perf_counter()
        self.said = self.first
        self.terminal = sys.stderr.isatty() if terminal is None else terminal
        self.bars: Any = None
        self.step = ""
        self.task: Any = None
        self.count = 0.0

    def __call__(self, told: Report) -> None:
        if told.finished:
            self._end_bar()
            self.done(told.step, told.detail)
        elif self.terminal:
            self._advance(told)
        elif time.perf_counter() - self.said > 5.0:
            self.said = time.perf_counter()
            print(f"{'':<10} {sentence(told, self.said - self.last)}", flush=True)

    def done(self, step: str, detail: str) -> None:
        """Print what a step did and the seconds since the last one."""
        now = time.perf_counter()
        self._end_bar()
        lines = "\n           ".join(line.strip() for line in detail.splitlines())
        print(f"{step:<10} {lines}  [{now - self.last:.1f} s]", flush=True)
        self.last = self.said = now

    def total(self) -> str:
        """Return the seconds since the beginning."""
        return f"{time.perf_counter() - self.first:.0f} s, {time.process_time():.0f} s of processor time"

    def close(self) -> None:
        """Take the bar away."""
        self._end_bar()

    def _advance(self, told: Report) -> None:
        again = told.done < self.count
        self.count = told.done
        if self.bars is None or told.step != self.step or again:
            self._end_bar()
            self.bars = rich_bars()
            self.bars.start()
            self.task = self.bars.add_task(told.step, total=told.total, detail=told.detail)
            self.step = told.step
        self.bars.update(self.task, completed=told.done, total=told.total, detail=told.detail)

    def _end_bar(self) -> None:
        if self.bars is not None:
            self.bars.stop()
        self.bars = None


@contextmanager
def listening_console() -> Iterator[Console]:
    """Give a console that is told of all work inside, and take its bar away at the end."""
    console = Console()
    try:
        with listening(console):
            yield console
    finally:
        console.close()


def print_table(
    rows: Mapping[str, Mapping[str, float]], corner: str = "", digits: int = 2, width: int = WIDTH, name: int = 24
) -> None:
    """Print rows of numbers, in several blocks where the columns do not fit beside each other.

    Parameters
    ----------
    rows : mapping of str to mapping of str to float
        Name -> heading -> number.
    corner : str
        What stands above the names, such as the unit.
    digits : int
        Behind the decimal point.
    width, name : int
        Columns that the table and its names may take; longer names are cut.

    >>> print_table({"PTV": {"D95": 50.0}}, "[Gy]")
    [Gy]    D95
    PTV   50.00
    """
    from rich.console import Console as RichConsole
    from rich.table import Table
    from rich.text import Text

    cells = {key: {head: f"{value:.{digits}f}" for head, value in row.items()} for key, row in rows.items()}
    heads = list(dict.fromkeys(head for row in cells.values() for head in row))
    left = min(max([len(corner), *map(len, rows)]), name)
    sizes = {head: max(len(head), *(len(row.get(head, "")) for row in cells.values())) for head in heads}
    console = RichConsole(width=width, highlight=False, soft_wrap=False)
    for block in _blocks(heads, sizes, width - left):
        drawn = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
        drawn.add_column(Text(corner), width=left, no_wrap=True)
        for head in block:
            drawn.add_column(head, justify="right", width=sizes[head], no_wrap=True)
        for key, row in cells.items():
            drawn.add_row(Text(_cut(key, left)), *(row.get(head, "") for head in block))
        console.print(drawn)


def print_metrics(rows: Mapping[str, Mapping[str, float]], unit: str, name: int = 24) -> None:
    """Print metrics of structures in a unit; volumes (V20Gy, Vp) say that they are in per cent.

    >>> print_metrics({"PTV": {"D95": 50.0, "Vp": 95.0}}, "Gy")
    [Gy]    D95   Vp %
    PTV   50.00  95.00
    """
    headed = {
        structure: {f"{head} %" if head.startswith("V") else head: value for head, value in row.items()}
        for structure, row in rows.items()
    }
    print_table(headed, f"[{unit}]", name=name)


def _blocks(heads: Sequence[str], sizes: Mapping[str, int], width: int) -> list[list[str]]:
    """Headings in groups that fit a width, two columns between them."""
    blocks: list[list[str]] = [[]]
    used = 0
    for head in heads:
        if used + sizes[head] + 2 > width and blocks[-1]:
            blocks.append([])
            used = 0
        blocks[-1].append(head)
        used += sizes[head] + 2
    return blocks


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
