"""``deepcontrast report``: a page about a model, how well it knows how sure it is."""

from __future__ import annotations

from pathlib import Path

from deepcontrast.errors import InputError, OutputExistsError
from deepcontrast.jobs.say import Say
from deepcontrast.model import load_model
from deepcontrast.output_checks import check_inputs_stay, check_writable
from deepcontrast.report.calibration_page import write_calibration
from deepcontrast.trust import Trust


def report_model(path: Path, out: Path, *, overwrite: bool = False, say: Say = print) -> None:
    """Write a page with the reliability diagrams of a model that predicts how sure it is.

    Raises:
        InputError: it does not.
        OutputExistsError: ``out`` is there.
    """
    if path.suffix != ".safetensors":
        raise InputError(f"'{path}' is no model; accepted: a file that ends in .safetensors")
    if out.suffix != ".html":
        raise InputError(f"output '{out}' must end in .html")
    check_inputs_stay(out, [path])
    if out.exists() and not overwrite:
        raise OutputExistsError(f"output '{out}' exists; choose another --out, or --overwrite it")
    check_writable(out)
    model = load_model(path)
    judged = [channel for channel in model.channels if channel.trust is not None and channel.trust["before"]]
    if not judged:
        raise InputError(
            f"'{path}' was not judged against a truth; accepted: models that were trained from pairs with "
            "--set train.loss=laplace"
        )
    shown = {one.name: (one.trust, Trust.decode(one.trust).describe()) for one in judged if one.trust is not None}
    facts = [("recipe", model.config.recipe), *((key, str(value)) for key, value in sorted(model.provenance.items()))]
    write_calibration(out, path.stem, shown, facts)
    say(f"done: open {out} in a browser")
