"""The command line: ``radplan VERB``, one module per verb, imported when the verb is asked for.

A verb is a line of `VERBS` and a module whose function ``command`` is written as Typer reads it. Other packages add
verbs through the entry-point group ``radplan.verb``, each pointing at such a function.
"""

from __future__ import annotations

import importlib
import io
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from radplan.cli.arguments import Verb
from radplan.errors import InputError, RadplanError

VERBS = {
    "plan": ("radplan.cli.plan", "Plan a case: place beams, calculate dose, optimise, judge, draw."),
    "new": ("radplan.cli.new", "Print a plan file for a case, to begin with."),
    "recalc": ("radplan.cli.recalc", "Calculate an RTPLAN's dose again and compare it with a reference."),
    "check": ("radplan.cli.check", "Judge an RTPLAN by the limits of a linac and by DICOM."),
    "autoplan": ("radplan.cli.autoplan", "Plan a case by a protocol: contours in, the best-scored plan out."),
    "cohort": ("radplan.cli.cohort", "Plan many patients by one specification; resumable, on one machine or many."),
    "score": ("radplan.cli.score", "Judge a plan or a dose by a scorecard."),
    "mimic": ("radplan.cli.mimic", "Make a plan that reproduces a given dose."),
    "train": ("radplan.cli.train", "Train a network that proposes dose."),
    "predict": ("radplan.cli.predict", "Propose a dose for a patient by a trained network."),
    "compare": ("radplan.cli.compare", "Show metrics and DVHs of plans beside each other."),
    "gamma": ("radplan.cli.gamma", "Compare two doses: gamma, differences, isodoses."),
    "dvh": ("radplan.cli.dvh", "Show a plan's dose-volume histogram; write it as a table or a figure."),
    "report": ("radplan.cli.report", "Write a plan's report: one HTML file that needs no network."),
    "verify": ("radplan.cli.verify", "Put a plan's dose beside that of an independent Monte Carlo."),
    "commission": ("radplan.cli.commission", "Fit a machine to a clinic's own measurements."),
    "app": ("radplan.cli.app", "Plan in the browser, on this machine alone."),
    "machines": ("radplan.cli.machines", "List the built-in machines, collimators and limits."),
    "ai-plan": ("radplan.cli.ai_plan", "Make a deliverable plan of the dose that a network proposes."),
    "export": ("radplan.cli.export", "Write a plan or a case for other programs: matRad, images, anonymous DICOM."),
    "dicom": ("radplan.cli.dicom", "List what a folder of DICOM files holds."),
}
"""Verb -> module that holds its ``command``, and what it does in a line."""

GROUP = "radplan.verb"
"""Entry-point group of verbs that other packages bring."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 2 an error told in one line, 130 interrupted.

    Parameters
    ----------
    arguments : sequence of str, optional
        What follows ``radplan``; those of the process when left out.

    >>> main(["plan", "no-such-case"])
    2
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    _survive_any_console()
    try:
        with _terminate_as_interrupt():
            code = application()(given, prog_name="radplan", standalone_mode=False)
    except RadplanError as error:
        return _fail(str(error))
    except typer.TyperException as error:
        return _fail(error.format_message())
    except typer.Abort:
        return 130
    return code if isinstance(code, int) else 0


@cache
def application() -> typer.Typer:
    """Return the application with its table of verbs; no verb's module is imported yet."""
    app = typer.Typer(
        cls=Verbs,
        help="Open radiotherapy treatment planning. Research software, not for clinical use.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    app.callback()(_top)
    return app


def _top(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Open radiotherapy treatment planning. Research software, not for clinical use."""
    if version:
        import radplan

        print(f"radplan {radplan.__version__}")
        raise typer.Exit


class Verbs(TyperGroup):
    """The group of all verbs: those of `VERBS` and of other packages, each loaded when it is asked for."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, (module, line) in VERBS.items():
            self.add_command(_Waiting(name=name, help=line, source=module), name)
        for point in entry_points(group=GROUP):
            if point.name not in VERBS:
                origin = "another package" if point.dist is None else point.dist.name
                self.add_command(_Waiting(name=point.name, help=f"A verb of {origin}.", source=point), point.name)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--version" in args[:1]:
            args = ["--version", "plan"]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("radplan: interrupted; nothing is left half written", file=sys.stderr)
            return 130


class _Waiting(TyperCommand):
    """A verb whose module is imported when it is asked for."""

    def __init__(self, *, source: str | EntryPoint, **settings: Any) -> None:
        super().__init__(callback=None, **settings)
        self.source = source

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        return self.loaded().make_context(info_name, args, parent, **extra)

    def loaded(self) -> Any:
        """Return the verb itself.

        Raises
        ------
        InputError
            When the verb of another package cannot be imported.
        """
        if isinstance(self.source, str):
            function = importlib.import_module(self.source).command
        else:
            try:
                function = self.source.load()
            except (ImportError, AttributeError) as error:
                raise InputError(f"the verb {self.name!r} of another package cannot be loaded: {error}") from error
        if isinstance(function, typer.Typer):
            return typer.main.get_command(function)
        alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        alone.command(name=self.name, cls=Verb)(function)
        return typer.main.get_command(alone)


def _fail(message: str) -> int:
    print(f"radplan: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _survive_any_console() -> None:
    """Let names that the console's encoding lacks come out escaped instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Take SIGTERM as Ctrl-C, so that what ends a process from outside keeps the best plan, too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
