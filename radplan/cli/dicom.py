"""The verb ``radplan dicom``: what a folder of DICOM files holds."""

from __future__ import annotations

from typing import Annotated

import typer

from radplan.cli.console import listening_console


def command(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A folder, searched with its subfolders.")],
    descriptions: Annotated[
        bool, typer.Option("--descriptions", help="Show series descriptions and labels, in which names may stand.")
    ] = False,
) -> int:
    """List the patients, studies and series of a folder, what refers to what, and damaged files."""
    from radplan.io.dicom import describe_folder

    with listening_console():
        text = describe_folder(folder, descriptions)
    print(text)
    return 0
