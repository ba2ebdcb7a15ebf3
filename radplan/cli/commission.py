"""The verb ``radplan commission``: machines fitted to a clinic's own measurements."""

from __future__ import annotations

import typer

from radplan.cli.arguments import Verb
from radplan.cli.commission_photons import photons
from radplan.cli.commission_protons import protons

command = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@command.callback()
def _group() -> None:
    """Fit a machine to a clinic's own measurements."""


command.command("photons", cls=Verb)(photons)
command.command("protons", cls=Verb)(protons)
