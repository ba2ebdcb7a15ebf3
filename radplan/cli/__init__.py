"""The command line of radplan, one module for each verb."""

from radplan.cli.main import main

__all__ = ["main"]
