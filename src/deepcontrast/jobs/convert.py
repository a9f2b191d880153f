"""``deepcontrast convert``: a model of another program, written as one of ours."""

from __future__ import annotations

from pathlib import Path

from deepcontrast.errors import InputError
from deepcontrast.interop.csbdeep import read_csbdeep
from deepcontrast.jobs.images import check_target
from deepcontrast.jobs.say import Say
from deepcontrast.model import save_model


def convert_model(folder: Path, out: Path, *, overwrite: bool = False, say: Say = print) -> None:
    """Read the folder of a CSBDeep or Noise2Void model and write it as a model file.

    Raises:
        InputError: it is none, or has what we have not.
        OutputExistsError: ``out`` is there.
    """
    if out.suffix != ".safetensors":
        raise InputError(f"output '{out}' must end in .safetensors")
    check_target(out, [folder], overwrite=overwrite)
    model = read_csbdeep(folder)
    save_model(out, model)
    net = model.config.net
    kind = f"in space, {net.pool_z} poolings" if net.dims == 3 else f"of planes, {net.depth} poolings"
    uncertain = ", predicts how sure it is (predict --uncertainty)" if model.config.train.loss == "laplace" else ""
    say(f"{folder}: a network {kind}, {net.features} features{uncertain}")
    norms = "by its percentiles 2 and 99.8" if model.config.task["per_image"] else "as its training images were"
    say(f"every image is normalised {norms}")
    say(f"done: {out}")
