"""The command line: options in, one call of a job, one exit code out."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import typer

from deepcontrast.cli import restoring, simulating
from deepcontrast.cli.exit_codes import exit_code
from deepcontrast.cli.options import app

# Verbs are registered by being imported, in this order.
__all__ = ["app", "main", "restoring", "run", "simulating"]


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code, see :func:`exit_code`."""
    _keep_out_of_home()
    given = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    command = typer.main.get_command(app)
    return exit_code(lambda: command.main(args=given, prog_name="deepcontrast", standalone_mode=False))


def _keep_out_of_home() -> None:
    """Let matplotlib keep its font list in the temporary folder: nothing is written beside --out and that."""
    os.environ.setdefault("MPLCONFIGDIR", str(Path(tempfile.gettempdir()) / "deepcontrast-matplotlib"))
