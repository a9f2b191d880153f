"""The command line: options in, one call of a job, one exit code out.

Nothing heavy is imported before a verb runs.
"""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from deepcontrast.errors import Cancelled, DeepContrastError, InputError
from deepcontrast.progress import Event, Progress

app = typer.Typer(
    name="deepcontrast",
    help="Contrast of deep-tissue stacks without ground truth.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Images = Annotated[
    list[Path], typer.Argument(metavar="IMAGE...", help="Files, OME-Zarr folders, or folders of images.")
]
Out = Annotated[Path, typer.Option("--out", help="Where the result goes.")]
Recipe = Annotated[str, typer.Option("--recipe", help="Name of a recipe, or a TOML file.")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting; repeatable.")]
Axes = Annotated[str | None, typer.Option("--axes", help="Letters of TCZYX; wins over the file.")]
VoxelSize = Annotated[
    str | None, typer.Option("--voxel-size", metavar="Z,Y,X", help="In micrometres; wins over the file.")
]
ChannelName = Annotated[str | None, typer.Option("--channel", help="Name or number of one channel.")]
Surface = Annotated[str, typer.Option("--surface", help="Which plane is at the surface: first, last or auto.")]
Gain = Annotated[float | None, typer.Option("--gain", help="Grey levels per photon; estimated by default.")]
Offset = Annotated[float | None, typer.Option("--offset", help="Grey level in the dark; estimated by default.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Of everything random.")]
DType = Annotated[str | None, typer.Option("--dtype", help="Type of the result, e.g. float32; the input's by default.")]
Members = Annotated[int, typer.Option("--ensemble", metavar="M", min=1, help="Networks to train and average.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON lines on stdout, nothing else.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


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


@app.command()
def enhance(
    image: Images,
    out: Out,
    recipe: Recipe = "contrast",
    model: Annotated[Path | None, typer.Option("--model", help="A trained model; skips training.")] = None,
    iterations: Annotated[
        str, typer.Option("--iterations", metavar="auto|K", help="How often the network is applied.")
    ] = "auto",
    mask: Annotated[Path | None, typer.Option("--mask", help="Structures of the stack; chooses K by IoU.")] = None,
    ensemble: Members = 1,
    axes: Axes = None,
    voxel_size: VoxelSize = None,
    channel: ChannelName = None,
    surface: Surface = "auto",
    gain: Gain = None,
    offset: Offset = None,
    settings: Settings = None,
    device: Device = "auto",
    seed: Seed = None,
    dtype: DType = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Enhance deep stacks without ground truth: one model for all images given."""
    times = _iterations(iterations)
    if model is not None:
        _refuse_training_options(recipe, settings or [], gain=gain, offset=offset, seed=seed, ensemble=ensemble)
    from deepcontrast.jobs.enhance import enhance_images

    with _Listener(quiet, as_json) as listener:
        enhance_images(
            image,
            out,
            _config(recipe, settings, seed=seed, gain=gain, offset=offset),
            model=model,
            iterations=times,
            mask=mask,
            members=ensemble,
            axes=axes,
            voxel_size=_voxel_size(voxel_size),
            channel=channel,
            surface=surface,
            dtype=_dtype(dtype),
            device=device,
            resume=resume,
            overwrite=overwrite,
            progress=listener.progress,
            say=listener.say,
        )


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a recipe, or a TOML file.")],
    images: Annotated[list[Path], typer.Option("--input", metavar="PATH", help="An image or a folder; repeatable.")],
    out: Out,
    ensemble: Members = 1,
    axes: Axes = None,
    voxel_size: VoxelSize = None,
    channel: ChannelName = None,
    surface: Surface = "auto",
    gain: Gain = None,
    offset: Offset = None,
    settings: Settings = None,
    device: Device = "auto",
    seed: Seed = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train a model and write its file."""
    from deepcontrast.jobs.train import train_images

    with _Listener(quiet, as_json) as listener:
        train_images(
            images,
            out,
            _config(recipe, settings, seed=seed, gain=gain, offset=offset),
            members=ensemble,
            axes=axes,
            voxel_size=_voxel_size(voxel_size),
            channel=channel,
            surface=surface,
            device=device,
            resume=resume,
            overwrite=overwrite,
            progress=listener.progress,
            say=listener.say,
        )


@app.command()
def predict(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL... IMAGE...", help="Models end in .safetensors; several form one ensemble."),
    ],
    out: Out,
    iterations: Annotated[int, typer.Option("--iterations", min=1, help="How often the network is applied.")] = 1,
    axes: Axes = None,
    voxel_size: VoxelSize = None,
    channel: ChannelName = None,
    device: Device = "auto",
    dtype: DType = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Apply a trained model to stacks or single planes."""
    models = [path for path in paths if path.suffix == ".safetensors"]
    images = [path for path in paths if path.suffix != ".safetensors"]
    if not models or not images:
        raise InputError("predict needs at least one model (ending in .safetensors) and one image")
    from deepcontrast.jobs.predict import predict_images

    with _Listener(quiet, as_json) as listener:
        predict_images(
            models,
            images,
            out,
            iterations=iterations,
            axes=axes,
            voxel_size=_voxel_size(voxel_size),
            channel=channel,
            dtype=_dtype(dtype),
            device=device,
            overwrite=overwrite,
            progress=listener.progress,
            say=listener.say,
        )


@app.command()
def evaluate(
    result: Annotated[Path, typer.Argument(metavar="RESULT", help="An enhanced stack.")],
    out: Out,
    truth: Annotated[Path | None, typer.Option("--truth", help="The truth, of the same shape.")] = None,
    raw: Annotated[Path | None, typer.Option("--raw", help="The raw stack, scored beside it.")] = None,
    mask: Annotated[Path | None, typer.Option("--mask", help="The structures, of the same shape.")] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Score a result: contrast, and agreement with truth and mask where they are given."""
    from deepcontrast.jobs.evaluate import evaluate_image

    with _Listener(quiet, as_json) as listener:
        evaluate_image(result, out, truth=truth, raw=raw, mask=mask, overwrite=overwrite, say=listener.say)


@app.command()
def simulate(
    what: Annotated[str, typer.Argument(metavar="KIND", help="tissue")],
    out: Out,
    shape: Annotated[str, typer.Option("--shape", metavar="Z,Y,X", help="Planes, rows and columns.")] = "48,256,256",
    light: Annotated[
        str | None, typer.Option("--light", help="Photons at the brightest structures; several with commas.")
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Simulate an image of known truth: raw.tif, truth.tif, mask.tif, simulate.json."""
    sizes = _whole_numbers(shape, 3, "--shape")
    levels = None if light is None else _numbers(light, None, "--light")
    from deepcontrast import demo

    with _Listener(quiet, as_json) as listener:
        demo.simulate(
            what, out, shape=(sizes[0], sizes[1], sizes[2]), light=levels, seed=seed or 0,
            overwrite=overwrite, say=listener.say,
        )  # fmt: skip


@app.command()
def degrade(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A stack.")],
    out: Out,
    recipe: Recipe = "contrast",
    axes: Axes = None,
    voxel_size: VoxelSize = None,
    channel: ChannelName = None,
    surface: Surface = "auto",
    gain: Gain = None,
    offset: Offset = None,
    settings: Settings = None,
    seed: Seed = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write what training shows the network: the stack, degraded once more."""
    from deepcontrast.jobs.degrade import degrade_image

    with _Listener(quiet, as_json) as listener:
        degrade_image(
            image,
            out,
            _config(recipe, settings, seed=seed, gain=gain, offset=offset),
            axes=axes,
            voxel_size=_voxel_size(voxel_size),
            channel=channel,
            surface=surface,
            overwrite=overwrite,
            say=listener.say,
        )


@app.command()
def info(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="An image, a folder of images, or a model.")],
    as_json: AsJson = False,
) -> None:
    """Say what an image or a model is, as this package understands it."""
    from deepcontrast.jobs.info import describe

    with _Listener(False, as_json) as listener:
        for line in describe(path):
            listener.say(line)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything the demo makes.")] = Path("demo_output"),
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds of simulated stacks, with commas.")] = "0",
    settings: Settings = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run the main job on a simulated deep stack of known truth and print the scores."""
    numbers = _whole_numbers(seeds, None, "--seeds")
    from deepcontrast import demo as demonstration

    with _Listener(quiet, as_json) as listener:
        demonstration.demo(out, numbers, settings=tuple(settings or ()), progress=listener.progress, say=listener.say)


@app.callback()
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        from deepcontrast import __version__

        typer.echo(__version__)
        raise typer.Exit


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 done; 2 something outside the program must change, said in one line; 130 interrupted; 143 terminated;
    1 our defect, with the path of the traceback.
    """
    _keep_out_of_home()
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, _terminate)}
    # Under nohup and the like it is ignored, and stays so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, _interrupt)
    try:
        given = sys.argv[1:] if arguments is None else arguments
        code = typer.main.get_command(app).main(
            args=given or ["--help"], prog_name="deepcontrast", standalone_mode=False
        )
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


class _Listener:
    """Turns events into a progress bar, lines, JSON, or silence."""

    def __init__(self, quiet: bool, as_json: bool) -> None:
        self.quiet, self.as_json = quiet, as_json
        self.last = 0.0
        self.stage = ""
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> _Listener:
        # The numbers behind these are checked where they are used; a user can do nothing about them.
        warnings.simplefilter("ignore")
        if not self.quiet and not self.as_json and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self.bar = Progress(
                TextColumn("{task.description:<14}"),
                BarColumn(),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                TextColumn("{task.fields[values]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def say(self, line: str) -> None:
        if self.as_json:
            print(json.dumps({"message": line}), flush=True)
        elif not self.quiet:
            if self.bar:
                self.bar.console.print(line, highlight=False, markup=False, soft_wrap=True)
            else:
                print(line, flush=True)

    @property
    def progress(self) -> Progress:
        return self._event

    def _event(self, event: Event) -> None:
        if self.quiet:
            return
        now, ended = time.monotonic(), event.total > 0 and event.done >= event.total
        begun = event.stage != self.stage
        # Not a terminal: a line every 30 s is enough for a log.
        pause = 0.5 if self.as_json else 0.1 if self.bar else 30.0
        if not (ended or begun or now - self.last > pause):
            return
        self.last, self.stage = now, event.stage
        values = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in event.values.items()}
        shown = "  ".join(f"{k} {v}" for k, v in values.items())
        if self.as_json:
            line = {"stage": event.stage, "done": event.done, "total": event.total, "values": values}
            print(json.dumps(line), flush=True)
        elif self.bar:
            if begun or self.task is None:
                self.task = self.bar.add_task(event.stage, total=event.total, values=shown)
            self.bar.update(self.task, completed=event.done, total=event.total, values=shown)
        else:
            print(f"{event.stage} {event.done}/{event.total} {shown}".rstrip(), file=sys.stderr, flush=True)


def _config(
    recipe: str, settings: list[str] | None, *, seed: int | None, gain: float | None, offset: float | None
) -> Any:
    if gain is not None and not gain > 0:
        raise InputError(f"--gain {gain:g}: grey levels per photon must be above 0; leave it out to estimate it")
    from deepcontrast.recipe import load_recipe

    return load_recipe(recipe, settings or (), train__seed=seed, task__gain=gain, task__offset=offset)


def _iterations(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdigit() or not 1 <= int(text) <= 20:
        raise InputError(f"--iterations '{text}' is not understood; accepted: auto, or a number from 1 to 20")
    return int(text)


def _refuse_training_options(
    recipe: str, settings: list[str], *, gain: float | None, offset: float | None, seed: int | None, ensemble: int
) -> None:
    """Refuse beside --model what only training or fitting looks at: the model brings its own.

    Raises:
        InputError: names the first such option.
    """
    trained = [f"--set {s}" for s in settings if s.strip().startswith(("train.", "net.", "task."))]
    for option, given in (
        (f"--recipe {recipe}", recipe != "contrast"),
        ("--gain", gain is not None),
        ("--offset", offset is not None),
        ("--seed", seed is not None),
        (f"--ensemble {ensemble}", ensemble > 1),
        *((option, True) for option in trained),
    ):
        if given:
            raise InputError(f"{option} has no effect with --model, which brings its own; leave one of them out")


def _voxel_size(text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    z, y, x = _numbers(text, 3, "--voxel-size")
    if min(z, y, x) <= 0:
        raise InputError(f"--voxel-size '{text}': sizes must be above 0")
    return z, y, x


def _numbers(text: str, count: int | None, option: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(map(math.isfinite, found)) or (count is not None and len(found) != count):
        wanted = f"{count} numbers" if count else "numbers"
        raise InputError(f"{option} '{text}' is not understood; accepted: {wanted} with commas, e.g. 1,2,3")
    return found


def _whole_numbers(text: str, count: int | None, option: str) -> list[int]:
    found = _numbers(text, count, option)
    if any(n < 0 or n != int(n) for n in found):
        raise InputError(f"{option} '{text}' is not understood; accepted: whole numbers from 0, e.g. 1,2,3")
    return [int(n) for n in found]


def _dtype(name: str | None) -> str | None:
    accepted = ("uint8", "uint16", "float32")
    if name is not None and name not in accepted:
        raise InputError(f"--dtype '{name}' is not understood; accepted: {', '.join(accepted)}")
    return name


def _keep_out_of_home() -> None:
    """Let matplotlib keep its font list in the temporary folder: nothing is written beside --out and that."""
    os.environ.setdefault("MPLCONFIGDIR", str(Path(tempfile.gettempdir()) / "deepcontrast-matplotlib"))


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    raise Interrupted


def _terminate(_signum: int, _frame: FrameType | None) -> None:
    raise Terminated


def _fail(message: str, code: int) -> int:
    print("deepcontrast: " + " ".join(message.split()), file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
