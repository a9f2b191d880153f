"""The verbs that make images: simulated, degraded, in pairs, of a point. Nothing heavy is imported before one runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepcontrast.cli.listener import Listener
from deepcontrast.cli.option_values import numbers, reading_of, settled, voxel_size_of, whole_numbers, zernike_of
from deepcontrast.cli.options import (
    AsJson,
    Axes,
    ChannelName,
    Gain,
    Offset,
    Out,
    Overwrite,
    Quiet,
    Recipe,
    Seed,
    Settings,
    Surface,
    VoxelSize,
    app,
)


@app.command()
def simulate(
    what: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="tissue, nuclei, filaments, spots, embryo, epithelium, tubules, granules, mitochondria or sarcomeres.",
        ),
    ],
    out: Out,
    shape: Annotated[str, typer.Option("--shape", metavar="Z,Y,X", help="Planes, rows and columns.")] = "48,256,256",
    light: Annotated[
        str | None, typer.Option("--light", help="Photons at the brightest structures; several with commas.")
    ] = None,
    undersampling: Annotated[
        float | None, typer.Option("--undersampling", help="Of embryo: distance of the planes in pixels, default 5.")
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Simulate an image of known truth: raw.tif, truth.tif, mask.tif, simulate.json."""
    sizes = whole_numbers(shape, 3, "--shape")
    levels = None if light is None else numbers(light, None, "--light")
    from deepcontrast import demo

    with Listener(quiet, as_json) as listener:
        demo.simulate(
            what, out, shape=(sizes[0], sizes[1], sizes[2]), light=levels, undersampling=undersampling,
            seed=seed or 0, overwrite=overwrite, say=listener.say,
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

    with Listener(quiet, as_json) as listener:
        degrade_image(
            image,
            out,
            settled(recipe, settings, seed=seed, gain=gain, offset=offset),
            reading=reading_of(axes, voxel_size, channel, surface),
            overwrite=overwrite,
            say=listener.say,
        )


@app.command()
def pairs(
    out: Out,
    images: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[IMAGE...]", help="Of high quality: files or folders; or drawn ones."),
    ] = None,
    recipe: Recipe = "semi-synthetic",
    count: Annotated[
        int | None, typer.Option("--count", metavar="N", min=1, help="Pairs to draw, for a recipe that draws.")
    ] = None,
    only: Annotated[str | None, typer.Option("--only", metavar="NAME", help="Make this one pair.")] = None,
    axes: Axes = None,
    voxel_size: VoxelSize = None,
    channel: ChannelName = None,
    settings: Settings = None,
    seed: Seed = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make pairs to learn from: good images, or drawn structures, as a microscope would show them."""
    from deepcontrast.jobs.make_pairs import make_pairs

    with Listener(quiet, as_json) as listener:
        make_pairs(
            images or (),
            out,
            settled(recipe, settings, seed=seed, gain=None, offset=None),
            reading=reading_of(axes, voxel_size, channel),
            count=count,
            only=only,
            overwrite=overwrite,
            progress=listener.progress,
            say=listener.say,
        )


@app.command()
def psf(
    out: Out,
    numerical_aperture: Annotated[float | None, typer.Option("--na", help="Numerical aperture.")] = None,
    wavelength: Annotated[float | None, typer.Option("--wavelength", help="Of emission, in nanometres.")] = None,
    index: Annotated[float | None, typer.Option("--index", help="Refractive index of the immersion.")] = None,
    voxel_size: VoxelSize = None,
    kind: Annotated[
        str | None,
        typer.Option("--kind", help="widefield (the default), confocal, two-photon or light-sheet."),
    ] = None,
    excitation: Annotated[
        float | None, typer.Option("--excitation", help="Of the laser, in nanometres; confocal and two-photon.")
    ] = None,
    pinhole: Annotated[
        float | None, typer.Option("--pinhole", help="Diameter in Airy units, default 1; confocal.")
    ] = None,
    sheet: Annotated[
        float | None, typer.Option("--sheet", help="Thickness (FWHM) in micrometres; light-sheet.")
    ] = None,
    sample_index: Annotated[
        float | None, typer.Option("--sample-index", help="Refractive index of the sample, with --depth.")
    ] = None,
    depth: Annotated[
        float | None, typer.Option("--depth", help="Of the point below the coverslip, in micrometres.")
    ] = None,
    zernike: Annotated[
        str | None,
        typer.Option("--zernike", metavar="J=A,...", help="Aberrations: OSA index=radians (root mean square)."),
    ] = None,
    shape: Annotated[
        str | None, typer.Option("--shape", metavar="Z,Y,X", help="Odd sizes; by default what holds the light.")
    ] = None,
    beads: Annotated[
        list[Path] | None,
        typer.Option("--bead", metavar="FILE", help="An image of beads, or a folder, to measure it from; repeatable."),
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write a point-spread function, computed from optics or measured from beads."""
    sizes = None if shape is None else whole_numbers(shape, 3, "--shape")
    from deepcontrast.jobs.psf import Microscope, make_psf

    with Listener(quiet, as_json) as listener:
        make_psf(
            out,
            Microscope(
                kind=kind,
                na=numerical_aperture,
                index=index,
                wavelength=wavelength,
                excitation=excitation,
                pinhole=pinhole,
                sheet=sheet,
                sample_index=sample_index,
                depth=depth,
                zernike=zernike_of(zernike),
            ),
            voxel_um=voxel_size_of(voxel_size),
            shape=None if sizes is None else (sizes[0], sizes[1], sizes[2]),
            beads=beads or (),
            overwrite=overwrite,
            say=listener.say,
        )
