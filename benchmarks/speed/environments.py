"""Environments of their own for the peers, made once: careamics wants another torch, csbdeep wants TensorFlow."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

# csbdeep's training fails without tensorboard. Keras 3, which this TensorFlow brings, works with csbdeep 0.8.2 as it
# is; the older tf_keras is not needed.
PACKAGES = {
    "csb": ("csbdeep==0.8.2", "tensorflow-cpu==2.21.0", "tensorboard==2.21.0"),
    "cam": ("careamics==0.3.5",),
}
_DONE = "complete"


def python_of(peer: str, cache: Path) -> Path:
    """Return the interpreter of a peer's environment in a folder, which is made where it is missing or unfinished."""
    folder = cache / peer
    python = folder / "bin" / "python"
    if not (folder / _DONE).exists():
        if not python.exists():
            venv.create(folder, with_pip=True)
        print(f"installs {', '.join(PACKAGES[peer])} into {folder}", file=sys.stderr)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES[peer]], check=True)
        (folder / _DONE).touch()
    return python
