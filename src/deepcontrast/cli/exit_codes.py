"""How a run ends: one exit code and, unless all went well, one line."""

from __future__ import annotations

import errno
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from types import FrameType

import typer

from deepcontrast.errors import Cancelled, DeepContrastError

OUT_OF_MEMORY = "out of memory; use a smaller image, batch (train.batch) or tile (predict.tile_voxels)"
OUTSIDE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
)
"""What the file system says when something outside the program must change."""


class Interrupted(BaseException):
    """SIGINT arrived; typer would swallow a KeyboardInterrupt, and with it what is noted on it."""


class Terminated(BaseException):
    """SIGTERM arrived."""


def exit_code(call: Callable[[], object]) -> int:
    """Call the command line and return its exit code.

    0 done; 2 something outside the program must change, said in one line; 130 interrupted; 143 terminated;
    1 our defect, with the path of the traceback.
    """
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, _terminate)}
    # Under nohup and the like it is ignored, and stays so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, _interrupt)
    try:
        code = call()
        return code if isinstance(code, int) else 0
    except (Interrupted, Cancelled, typer.Abort) as error:
        return _fail(_with_notes("interrupted", error), 130)
    except Terminated as error:
        return _fail(_with_notes("terminated", error), 143)
    except DeepContrastError as error:
        return _fail(_with_notes(str(error), error), 2)
    except MemoryError as error:
        return _fail(_with_notes(OUT_OF_MEMORY, error), 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        # Typer's usage errors carry their one line in format_message.
        message = getattr(error, "format_message", None)
        if message is not None:
            return _fail(message(), 2)
        # torch says it in a RuntimeError of its own, by class on a GPU and by words on the processor.
        if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error):
            return _fail(_with_notes(OUT_OF_MEMORY, error), 2)
        if isinstance(error, OSError) and error.errno in OUTSIDE:
            return _fail(_with_notes(f"{error.strerror}: '{error.filename or 'a file'}'", error), 2)
        return _fail(f"a defect of deepcontrast ({type(error).__name__}: {error}); {_keep_traceback()}", 1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _with_notes(message: str, error: BaseException) -> str:
    """Return the message with what is noted on the error: that a resumed run can go on."""
    return "; ".join([message, *getattr(error, "__notes__", [])])


def _keep_traceback() -> str:
    """Write the traceback of the error at hand into the temporary folder; return where it is."""
    text = traceback.format_exc()
    try:
        with tempfile.NamedTemporaryFile("w", prefix="deepcontrast-traceback-", suffix=".txt", delete=False) as file:
            file.write(text)
    except OSError as error:
        places = [line.strip() for line in text.splitlines() if line.lstrip().startswith("File ")]
        return f"its traceback could not be written ({error.strerror or error}); it ends at {places[-1]}"
    return f"traceback: {file.name}"


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    raise Interrupted


def _terminate(_signum: int, _frame: FrameType | None) -> None:
    raise Terminated


def _fail(message: str, code: int) -> int:
    print("deepcontrast: " + " ".join(message.split()), file=sys.stderr)
    return code
