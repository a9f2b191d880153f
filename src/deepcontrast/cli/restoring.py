"""The verbs that restore images and judge results, each a call of a job; nothing heavy is imported before one runs."""

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
    one_of,
    optics_of,
    psf_of,
    reading_of,
    refuse_training_options,
    resources_of,
    settled,
    whole_numbers,
)
from deepcontrast.cli.options import (
    AsJson,
    Axes,
    ChannelName,
    Device,
    DType,
    Gain,
    Images,
    Labels,
    Members,
    Memory,
    Offset,
    Out,
    Overwrite,
    PlanOnly,
    Quiet,
    Recipe,
    Resume,
    SchedulerAddress,
    Seed,
    Settings,
    Surface,
    VoxelSize,
    Workers,
    app,
)
from deepcontrast.errors import InputError


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
