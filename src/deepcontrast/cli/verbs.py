"""The verbs and their options: each one call of a job. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepcontrast.cli.listener import Listener
from deepcontrast.cli.option_values import (
    above_zero,
    dtype_of,
    grid_of,
    iterations_of,
    numbers,
    one_of,
    optics_of,
    psf_of,
    reading_of,
    refuse_training_options,
    resources_of,
    settled,
    voxel_size_of,
    whole_numbers,
    zernike_of,
)
from deepcontrast.errors import InputError

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
    fidelity_map: Annotated[
        bool, typer.Option("--fidelity-map", help="Also write where structure was lost (+) and added (-).")
    ] = False,
    equalise_depth: Annotated[
        bool,
        typer.Option("--equalise-depth", help="Multiply planes so that structures are equally bright at all depths."),
    ] = False,
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
    memory: Memory = None,
    workers: Workers = None,
    scheduler: SchedulerAddress = None,
    plan: PlanOnly = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Enhance deep stacks without ground truth: one model for all images given."""
    times = iterations_of(iterations)
    if model is not None:
        refuse_training_options(recipe, settings or [], gain=gain, offset=offset, seed=seed, ensemble=ensemble)
    from deepcontrast.jobs.enhance import enhance_images

    with Listener(quiet, as_json) as listener:
        enhance_images(
            image,
            out,
            settled(recipe, settings, seed=seed, gain=gain, offset=offset),
            model=model,
            iterations=times,
            mask=mask,
            members=ensemble,
            fidelity_map=fidelity_map,
            equalise_depth=equalise_depth,
            reading=reading_of(axes, voxel_size, channel, surface),
            dtype=dtype_of(dtype),
            device=device,
            resources=resources_of(memory, workers, scheduler),
            plan_only=plan,
            resume=resume,
            overwrite=overwrite,
            progress=listener.progress,
            say=listener.say,
        )


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a recipe, or a TOML file.")],
    out: Out,
    images: Annotated[
        list[Path] | None,
        typer.Option("--input", metavar="PATH", help="An image or a folder; repeatable. Some recipes draw theirs."),
    ] = None,
    targets: Annotated[
        list[Path] | None,
        typer.Option(
            "--target", metavar="PATH", help="What should be made of them, for a recipe of pairs; repeatable."
        ),
    ] = None,
    register: Annotated[bool, typer.Option("--register", help="Shift targets onto their images.")] = False,
    psf: Annotated[
        str | None,
        typer.Option(
            "--psf",
            metavar="FILE",
            help="Point-spread function, or widefield or confocal; for isotropic and drawn pairs.",
        ),
    ] = None,
    ensemble: Members = 1,
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", min=1, help="Networks that are trained at the same time.")
    ] = 1,
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

    with Listener(quiet, as_json) as listener:
        train_images(
            images or (),
            out,
            settled(recipe, [*(settings or []), *psf_of(psf, recipe)], seed=seed, gain=gain, offset=offset),
            targets=targets or (),
            register=register,
            members=ensemble,
            workers=workers,
            reading=reading_of(axes, voxel_size, channel, surface),
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
    norm: Annotated[
        str, typer.Option("--norm", metavar="image|stored", help="Normalise as in training, or by stored numbers.")
    ] = "image",
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Also write scale, bounds, entropy and disagreement, beside results.")
    ] = False,
    movie: Annotated[
        bool, typer.Option("--movie", help="Also write a movie of images that are as likely as the result.")
    ] = False,
    axes: Axes = None,
    voxel_size: VoxelSize = None,
    channel: ChannelName = None,
    device: Device = "auto",
    dtype: DType = None,
    memory: Memory = None,
    workers: Workers = None,
    scheduler: SchedulerAddress = None,
    plan: PlanOnly = False,
    resume: Resume = False,
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

    with Listener(quiet, as_json) as listener:
        predict_images(
            models,
            images,
            out,
            iterations=iterations,
            norm=one_of(norm, ("image", "stored"), "--norm"),
            uncertainty=uncertainty,
            movie=movie,
            reading=reading_of(axes, voxel_size, channel),
            dtype=dtype_of(dtype),
            device=device,
            resources=resources_of(memory, workers, scheduler),
            plan_only=plan,
            resume=resume,
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
    labels: Labels = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Score a result: contrast, and agreement with truth, mask and labels where they are given."""
    from deepcontrast.jobs.evaluate import evaluate_image

    with Listener(quiet, as_json) as listener:
        evaluate_image(
            result, out, truth=truth, raw=raw, mask=mask, labels=labels, overwrite=overwrite, say=listener.say
        )


@app.command()
def compare(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A stack.")],
    out: Out,
    methods: Annotated[
        str | None, typer.Option("--methods", metavar="A,B,...", help="Baselines to compare with; all by default.")
    ] = None,
    truth: Annotated[Path | None, typer.Option("--truth", help="The truth, of the same shape.")] = None,
    mask: Annotated[Path | None, typer.Option("--mask", help="The structures, of the same shape.")] = None,
    labels: Labels = None,
    recipe: Recipe = "contrast",
    model: Annotated[Path | None, typer.Option("--model", help="A trained model; skips training.")] = None,
    budget: Annotated[
        float, typer.Option("--budget", metavar="SECONDS", help="A method that takes longer is measured on a crop.")
    ] = 120.0,
    numerical_aperture: Annotated[
        float | None, typer.Option("--na", help="Numerical aperture, for Richardson-Lucy.")
    ] = None,
    wavelength: Annotated[float | None, typer.Option("--wavelength", help="Of emission, in nanometres.")] = None,
    index: Annotated[float | None, typer.Option("--index", help="Refractive index of the immersion.")] = None,
    save_images: Annotated[bool, typer.Option("--save-images", help="Also write the volume of every method.")] = False,
    axes: Axes = None,
    voxel_size: VoxelSize = None,
    channel: ChannelName = None,
    surface: Surface = "auto",
    gain: Gain = None,
    offset: Offset = None,
    settings: Settings = None,
    device: Device = "auto",
    seed: Seed = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compare DeepContrast, for every k, with what a user would do instead."""
    if model is not None:
        refuse_training_options(recipe, settings or [], gain=gain, offset=offset, seed=seed, ensemble=1)
    from deepcontrast.jobs.compare import compare_image

    with Listener(quiet, as_json) as listener:
        compare_image(
            image,
            out,
            settled(recipe, settings, seed=seed, gain=gain, offset=offset),
            reading=reading_of(axes, voxel_size, channel, surface),
            optics=optics_of(numerical_aperture, wavelength, index),
            methods=None if methods is None else [name.strip() for name in methods.split(",")],
            truth=truth,
            mask=mask,
            labels=labels,
            model=model,
            budget=above_zero(budget, "--budget"),
            save_images=save_images,
            device=device,
            overwrite=overwrite,
            progress=listener.progress,
            say=listener.say,
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


@app.command()
def convert(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Of a CSBDeep (CARE) or Noise2Void model.")],
    out: Out,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write a model of CSBDeep or Noise2Void as a model file of ours."""
    from deepcontrast.jobs.convert import convert_model

    with Listener(quiet, as_json) as listener:
        convert_model(folder, out, overwrite=overwrite, say=listener.say)


@app.command()
def report(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Trained from pairs, with the loss laplace.")],
    out: Out,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Show how well a model knows how sure it is: reliability diagrams on a page."""
    from deepcontrast.jobs.report import report_model

    with Listener(quiet, as_json) as listener:
        report_model(model, out, overwrite=overwrite, say=listener.say)


@app.command()
def info(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="An image, a folder of images, or a model.")],
    as_json: AsJson = False,
) -> None:
    """Say what an image or a model is, as this package understands it."""
    from deepcontrast.jobs.info import describe

    with Listener(False, as_json) as listener:
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
    numbers = whole_numbers(seeds, None, "--seeds")
    from deepcontrast import demo as demonstration

    with Listener(quiet, as_json) as listener:
        demonstration.demo(out, numbers, settings=tuple(settings or ()), progress=listener.progress, say=listener.say)


@app.command()
def experiment(
    name: Annotated[str, typer.Argument(metavar="NAME", help="double-degradation, bias-ablation, ... (see the docs).")],
    out: Out,
    images: Annotated[
        list[Path] | None, typer.Option("--input", metavar="IMAGE", help="A stack; repeatable. Simulated by default.")
    ] = None,
    targets: Annotated[
        list[Path] | None,
        typer.Option("--target", metavar="PATH", help="Of search, for a recipe of pairs: its targets; repeatable."),
    ] = None,
    recipe: Recipe = "contrast",
    settings: Settings = None,
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds of training and simulation, with commas.")] = "0",
    only: Annotated[str, typer.Option("--only", help="Ideas that the ablation tries, with commas.")] = "",
    tried: Annotated[
        list[str] | None,
        typer.Option("--try", metavar="KEY=V,V", help="Of search: values of a setting to try; repeatable."),
    ] = None,
    device: Device = "auto",
    resume: Resume = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run one of the papers' experiments, or ours, on simulated tissue or on stacks."""
    chosen, grid = whole_numbers(seeds, None, "--seeds"), grid_of(tried)
    if name == "search":
        if only:
            raise InputError("--only is for ablation; search has --try KEY=V,V")
        from deepcontrast.jobs.search import search_settings
        from deepcontrast.recipe import load_recipe

        with Listener(quiet, as_json) as listener:
            search_settings(
                images or (),
                out,
                load_recipe(recipe, settings or ()),
                targets=targets or (),
                grid=grid,
                seeds=chosen,
                device=device,
                resume=resume,
                overwrite=overwrite,
                progress=listener.progress,
                say=listener.say,
            )
        return
    if targets or grid:
        raise InputError(f"--target and --try are for search, not for {name}")
    from deepcontrast.jobs.experiment import run_experiment, settled_experiment

    with Listener(quiet, as_json) as listener:
        run_experiment(
            name,
            out,
            settled_experiment(name, recipe, settings or (), simulated=not images),
            images=images or (),
            seeds=chosen,
            only=[idea.strip() for idea in only.split(",") if idea.strip()],
            device=device,
            resume=resume,
            overwrite=overwrite,
            progress=listener.progress,
            say=listener.say,
        )


@app.callback()
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        from deepcontrast import __version__

        typer.echo(__version__)
        raise typer.Exit
