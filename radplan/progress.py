"""How far long work has come: calculations report it; a terminal, a notebook or a caller listens.

Every long call takes ``progress=``: True shows a bar with the time left, False shows nothing, a callable is told each
`Report`. Left out, the bar shows where there is a terminal or a notebook, and nowhere else.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Report:
    """What a listener is told.

    Parameters
    ----------
    step : str
        Which work: ``"patient"``, ``"influence"``, ``"optimise"``, ...
    done, total : float
        How much of it, in units of its own; `total` is None where it is not known.
    detail : str
        A few words beside it.
    finished : bool
        Whether the step has ended; `detail` then says what came out.

    >>> Report("influence", 3, 9).share
    0.3333333333333333
    """

    step: str
    done: float = 0.0
    total: float | None = None
    detail: str = ""
    finished: bool = False

    @property
    def share(self) -> float | None:
        """Done part of the whole, 0 to 1, where that is known."""
        return min(self.done / self.total, 1.0) if self.total else None


Listener = Callable[[Report], object]
Choice = bool | Listener | None

_DELAY = 0.5
"""Work shorter than this shows no bar [s]."""
_SILENT: Listener = lambda report: None  # noqa: E731
_listener: ContextVar[Listener | None] = ContextVar("radplan_progress", default=None)


def report(step: str, done: float = 0.0, total: float | None = None, detail: str = "", finished: bool = False) -> None:
    """Tell whoever listens how far a step has come; costs nothing where nobody does.

    >>> told = []
    >>> with listening(told.append):
    ...     report("influence", 1, 2)
    >>> told[0].share
    0.5
    """
    listener = _listener.get()
    if listener is not None:
        listener(Report(step, done, total, detail, finished))


def each(step: str, items: Sequence[T], detail: str = "") -> Iterator[T]:
    """Give items one by one and report after each how many are done.

    >>> told = []
    >>> with listening(told.append):
    ...     sum(each("beams", [1, 2, 3]))
    6
    >>> [entry.done for entry in told]
    [0, 1, 2, 3]
    """
    report(step, 0, len(items), detail)
    for number, item in enumerate(items, start=1):
        yield item
        report(step, number, len(items), detail)


@contextmanager
def listening(choice: Choice = None) -> Iterator[None]:
    """Say who is told of the work inside: see the first lines of this module.

    Left out within another `listening`, the outer one goes on.
    """
    if choice is None and _listener.get() is not None:
        yield
        return
    display: _Bar | _Note | None = None
    if callable(choice):
        listener: Listener = choice
    elif choice is False or (choice is None and not _interactive()):
        listener = _SILENT
    else:
        display = _Note() if _in_notebook() else _Bar()
        listener = display
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
        if display is not None:
            display.close()


def expected_iterations(history: Sequence[float], tolerance: float, limit: float) -> float | None:
    """Return how many iterations a search will take, from the way its cost fell: a guess for the time left.

    The relative fall per iteration is taken to go on as a power of the iteration, which two windows of ten, the last
    one and that at half the way, determine. None where too little is known.

    >>> expected_iterations([1.0 / k for k in range(1, 41)], 1e-3, 500) > 40
    True
    """
    count = len(history)
    if count < 20:
        return None
    half = max(count // 2, 10)
    late, early = _fall(history, count), _fall(history, half)
    if not 0.0 < late < early or half == count:
        return limit
    power = max(math.log(early / late) / math.log(count / half), 0.5)
    guess = count * (late / tolerance) ** (1.0 / power)
    return float(min(max(guess, count + 1), limit))


def _fall(history: Sequence[float], end: int) -> float:
    """Mean relative fall per iteration over the ten before `end`."""
    first, last = history[end - 10], history[end - 1]
    return (first - last) / (9.0 * max(abs(last), 1e-300))


def _in_notebook() -> bool:
    return "ipykernel" in sys.modules


def _interactive() -> bool:
    return _in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


class _Bar:
    """A bar in the terminal, with the time left, from half a second on; gone when the work is done."""

    def __init__(self, console: Any = None) -> None:
        self.console = console
        self.first = time.perf_counter()
        self.bars: Any = None
        self.step = ""
        self.task: Any = None
        self.done = 0.0

    def __call__(self, told: Report) -> None:
        if self.bars is None:
            if time.perf_counter() - self.first < _DELAY:
                return
            self.bars = rich_bars(self.console)
            self.bars.start()
        again = told.done < self.done
        self.done = told.done
        if told.step != self.step or told.finished or again:
            if self.task is not None:
                self.bars.remove_task(self.task)
            self.task = None if told.finished else self.bars.add_task(told.step, total=told.total, detail=told.detail)
            self.step = "" if told.finished else told.step
        if self.task is not None:
            self.bars.update(self.task, completed=told.done, total=told.total, detail=told.detail)

    def close(self) -> None:
        if self.bars is not None:
            self.bars.stop()


class _Note:
    """A line of text in a notebook that changes in place, at most four times a second."""

    def __init__(self) -> None:
        self.handle: Any = None
        self.last = 0.0
        self.started: dict[str, float] = {}

    def __call__(self, told: Report) -> None:
        now = time.perf_counter()
        begun = self.started.setdefault(told.step, now)
        if now - self.last < 0.25 and not told.finished:
            return
        self.last = now
        self._show(sentence(told, now - begun))

    def _show(self, text: str) -> None:
        from IPython import display

        pretty = display.Pretty(text)
        if self.handle is None:
            self.handle = display.display(pretty, display_id=True)
        else:
            self.handle.update(pretty)

    def close(self) -> None:
        if self.handle is not None:
            self._show("")


def sentence(told: Report, seconds: float) -> str:
    """Return a report in words, with the time left where it can be known.

    >>> sentence(Report("influence", 3, 9), seconds=6.0)
    'influence: 3 of 9, 12 s left'
    """
    share = told.share
    amount = f"{told.done:.0f}" + (f" of {told.total:.0f}" if told.total else "")
    left = f", {seconds * (1.0 / share - 1.0):.0f} s left" if share and seconds > 0.0 and not told.finished else ""
    return f"{told.step}: {amount}{left}" + (f", {told.detail}" if told.detail else "")


def rich_bars(console: Any = None) -> Any:
    """Return the columns that every bar of the terminal has: step, bar, amount, time left, detail."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[detail]}"),
        console=Console(stderr=True) if console is None else console,
        transient=True,
    )
