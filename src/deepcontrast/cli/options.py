"""The command line itself, and the options that several verbs have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
Labels = Annotated[Path | None, typer.Option("--labels", help="The objects, one number each, of the same shape.")]
Memory = Annotated[
    str | None, typer.Option("--memory", metavar="SIZE", help="The most to take, e.g. 2GB; half of what is left.")
]
Workers = Annotated[
    int | None, typer.Option("--workers", metavar="N", min=1, help="Local processes that share the work.")
]
SchedulerAddress = Annotated[
    str | None, typer.Option("--scheduler", metavar="ADDRESS", help="A dask scheduler, whose workers do the work.")
]
PlanOnly = Annotated[bool, typer.Option("--plan", help="Say how it would be done, and do nothing.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


@app.callback()
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        from deepcontrast import __version__

        typer.echo(__version__)
        raise typer.Exit
