"""``deepcontrast report``: a page about a model, how well it knows how sure it is."""

from __future__ import annotations

from pathlib import Path

from deepcontrast.errors import InputError
from deepcontrast.jobs.images import check_target
from deepcontrast.jobs.say import Say
from deepcontrast.model import load_model
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
    check_target(out, [path], overwrite=overwrite)
    model = load_model(path)
    judged = {one.name: Trust.decode(one.trust) for one in model.channels if one.trust and one.trust["before"]}
    if not judged:
        raise InputError(
            f"'{path}' was not judged against a truth; accepted: models that were trained from pairs with "
            "--set train.loss=laplace"
        )
    shown = {name: (one.before, one.after, one.describe()) for name, one in judged.items()}
    facts = [("recipe", model.config.recipe), *((key, str(value)) for key, value in sorted(model.provenance.items()))]
    write_calibration(out, path.stem, shown, facts)
    say(f"done: open {out} in a browser")
