"""The task ``structures``: pairs that are made, of drawings or of good images, learned from as measured ones are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

import deepcontrast as dc
from deepcontrast.cli import run
from deepcontrast.config import Config
from deepcontrast.depth import depths
from deepcontrast.errors import InputError
from deepcontrast.io import open_stack, write_stack
from deepcontrast.jobs.make_pairs import read_parameters
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import Optics, Stack
from deepcontrast.task import Source
from deepcontrast.tasks import structures

from .conftest import TINY

DRAWING = ("cardiomyocytes", "granules", "hela", "ins1-granules", "ins1-tubules", "mitochondria", "tubules")
SMALL = (*TINY, "task.size=72", "task.images=3", "task.round_steps=6")


def good(shift: int = 0) -> Stack:
    return Stack(np.roll(data.cell()[200:296, 200:304], shift, 0), "YX", Optics((None, 0.1, 0.1)), source="cell")


def source(stack: Stack) -> Source:
    return Source(stack, 0, 0, depths(stack))


@pytest.mark.parametrize("recipe", DRAWING)
def test_every_recipe_that_draws_gives_pairs_that_belong_together(recipe: str) -> None:
    params = structures.Params(**load_recipe(recipe, ["task.size=96", "task.empty=0"]).task)
    steps = structures.chain_of(params)
    one, same, other = (structures.drawn_pair(params, steps, 3, "a", n) for n in (0, 0, 1))
    assert one.image.tobytes() == same.image.tobytes()
    assert not np.array_equal(one.target, other.target)
    assert one.image.shape == one.target.shape == (1, 96, 96)
    assert np.isfinite(one.image).all()
    both = np.mean([np.corrcoef(p.image.ravel(), p.target.ravel())[0, 1] for p in (one, other)])
    assert both > 0.3, "the input shows nothing of the target"


def test_the_laptop_recipes_draw_what_the_published_ones_draw() -> None:
    for small, published in (("tubules", "hela"), ("granules", "ins1-granules")):
        one, other = (load_recipe(name).task for name in (small, published))
        for key in ("structure", "draw", "chain", "pixel", "size"):
            assert one[key] == other[key]


@pytest.mark.parametrize(
    ("recipe", "weights"), [("hela", 923_010), ("ins1-granules", 923_010), ("mitochondria", 923_010)]
)
def test_published_networks_have_the_published_size(recipe: str, weights: int) -> None:
    config = load_recipe(recipe)
    fit = structures.fit([], config.model_copy(update={"task": {**config.task, "images": 1}}))
    assert sum(p.numel() for p in structures.build(fit, config).parameters()) == weights


def test_published_settings_of_the_semi_synthetic_paper() -> None:
    for recipe, patch, rate in (("mitochondria", 32, 2e-4), ("cardiomyocytes", 16, 4e-4)):
        train = load_recipe(recipe).train
        assert (train.patch, train.learning_rate, train.batch, train.steps) == (patch, rate, 16, 1000 * 500)
        assert train.validation == 0.2
        assert train.loss == "laplace"


def test_rounds_differ_but_what_is_held_out_stays() -> None:
    config = load_recipe("tubules", SMALL)
    fit = structures.fit([], config)
    first, second, again = (structures.prepare([], fit, config, seed=1, round=n) for n in (0, 1, 1))
    assert not torch.equal(first.images["target"], second.images["target"])
    assert torch.equal(second.images["input"], again.images["input"])
    for name in ("input", "target"):
        assert torch.equal(first.validation[name], second.validation[name])
    assert not second.complete


def test_what_is_held_out_of_an_image_is_held_out_of_all_its_sets() -> None:
    config = load_recipe("semi-synthetic", TINY)
    sources = [source(good()), source(good(31))]
    fit = structures.fit(sources, config)
    made = structures.pairs(sources, config)
    assert len(made) == 6
    assert len({id(one.stack) for one in made}) == 2
    bank = structures.prepare(sources, fit, config, seed=0, round=0)
    squares = {stack: [(y, x) for n, y, x in fit.held_out if n == stack] for stack in (0, 1)}
    for piece, y, x in bank.corners.tolist():
        for top, left in squares[piece // 3]:
            reach = fit.patch + bank.jitter - 1
            assert y + reach <= top or y >= top + fit.patch or x + reach <= left or x >= left + fit.patch


def test_the_image_of_a_set_is_normalised_as_in_prediction() -> None:
    config = load_recipe("semi-synthetic", TINY)
    fit = structures.fit([source(good())], config)
    bank = structures.prepare([source(good())], fit, config, seed=0, round=0)
    planes = bank.images["input"].view(3, -1)
    torch.testing.assert_close(planes.mean(1), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(planes.std(1), torch.ones(3), atol=1e-3, rtol=0)


def test_targets_are_in_the_grey_levels_of_their_inputs() -> None:
    config = load_recipe("semi-synthetic", [*TINY, "task.sets=1", "task.shifted=[]"])
    [made] = structures.pairs([source(good())], config, seed=0)
    bank = structures.prepare([source(good())], structures.fit([source(good())], config), config, seed=0, round=0)
    image, target = made.volume().astype(np.float64), np.asarray(made.truth, np.float64)
    expected = (target - image.mean()) / image.std()
    np.testing.assert_allclose(bank.images["target"].numpy(), expected.ravel(), atol=1e-4)


def test_some_drawings_show_nothing() -> None:
    params = structures.Params(**load_recipe("granules", ["task.size=32", "task.empty=0.5"]).task)
    steps = structures.chain_of(params)
    pairs = [structures.drawn_pair(params, steps, 0, "a", n) for n in range(40)]
    assert 8 < sum(not pair.target.any() for pair in pairs) < 32
    assert all(pair.image.std() > 0 for pair in pairs)


def test_training_on_drawn_tubules_brings_the_error_down() -> None:
    settings = {
        "net.depth": 2, "net.features": 8, "train.steps": 150, "train.batch": 8, "train.patch": 48, "task.size": 96,
        "task.images": 8, "train.precision": "float32", "train.validate_every": 50, "predict.orientations": 1,
        "task.chain.poisson.light": 500, "task.empty": 0,
    }  # fmt: skip
    restorer = dc.train(recipe="tubules", settings=settings)
    params = structures.Params(**load_recipe("tubules", settings).task)
    pair = structures.drawn_pair(params, structures.chain_of(params), 77, "unseen", 0)
    result = restorer.predict(Stack(pair.image, "ZYX", structures.drawn_optics(params))).volume()

    def error(image: np.ndarray) -> float:
        fitted = np.polyval(np.polyfit(image.ravel(), pair.target.ravel(), 1), image)
        return float(np.sqrt(np.mean((fitted - pair.target) ** 2)))

    assert error(result) < 0.8 * error(pair.image)
    twice = restorer.predict(Stack(pair.image, "ZYX", structures.drawn_optics(params)), iterations=2).volume()
    assert np.isfinite(twice).all()
    assert not np.allclose(twice, result)


def test_train_without_images_pairs_and_predict(tmp_path: Path) -> None:
    settings = [word for setting in SMALL for word in ("--set", setting)]
    model = tmp_path / "tubules.safetensors"
    assert run(["train", "tubules", "--out", str(model), "--quiet", *settings]) == 0
    assert run(["pairs", "--recipe", "tubules", "--count", "2", "--out", str(tmp_path / "pairs"), "--quiet",
                *settings]) == 0  # fmt: skip
    image = tmp_path / "pairs" / "input" / "tubules_00001.tif"
    assert run(["predict", str(model), str(image), "--out", str(tmp_path / "out.tif"), "--quiet"]) == 0
    assert open_stack(tmp_path / "out.tif").shape == (72, 72)
    assert run(["train", "tubules", "--out", str(model), "--resume", *settings]) == 0
    assert list(read_parameters(tmp_path / "pairs" / "parameters.csv")) == ["tubules_00000", "tubules_00001"]


def test_images_are_distorted_by_a_recipe_that_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_stack(tmp_path / "cell.tif", good())
    settings = [word for setting in SMALL for word in ("--set", setting)]
    out = tmp_path / "model.safetensors"
    assert run(["train", "mitochondria", "--input", str(tmp_path / "cell.tif"), "--out", str(out), *settings]) == 0
    assert "cell.tif" in capsys.readouterr().out
    assert dc.load(out).model.config.task["structure"] == ""


def test_a_point_spread_function_of_a_file_is_what_drawn_pairs_are_seen_through(tmp_path: Path) -> None:
    psf = ["psf", "--na", "1.1", "--wavelength", "520", "--index", "1.33", "--voxel-size", "0.2,0.08,0.08", "--quiet"]
    assert run([*psf, "--out", str(tmp_path / "psf.tif")]) == 0
    settings = [word for setting in SMALL for word in ("--set", setting)]
    model = tmp_path / "model.safetensors"
    assert run(["train", "tubules", "--psf", str(tmp_path / "psf.tif"), "--out", str(model), "--quiet", *settings]) == 0
    [step] = [step for step in dc.load(model).model.config.task["chain"] if step["step"] == "convolve"]
    assert step["file"] == str(tmp_path / "psf.tif")


def test_a_pixel_that_no_file_says_is_said_to_be_assumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_stack(tmp_path / "cell.tif", Stack(good().array, "YX"))
    settings = [word for setting in TINY for word in ("--set", setting)]
    out = ["--input", str(tmp_path / "cell.tif"), "--out", str(tmp_path / "m.safetensors")]
    assert run(["train", "semi-synthetic", *out, *settings]) == 0
    assert "its pixels are taken to be 0.1 um, task.pixel; --voxel-size says it better" in capsys.readouterr().out


def test_an_ensemble_of_drawn_pairs_knows_how_sure_it_is(tmp_path: Path) -> None:
    settings = [word for setting in (*SMALL, "train.loss=laplace") for word in ("--set", setting)]
    out = tmp_path / "model.safetensors"
    assert run(["train", "granules", "--ensemble", "2", "--out", str(out), "--quiet", *settings]) == 0
    maps = dc.load(out).predict_with_uncertainty(Stack(np.random.default_rng(0).poisson(9, (1, 64, 64)), "ZYX"))
    assert {"mean", "scale", "disagreement"} <= set(maps)


@pytest.mark.parametrize(
    ("recipe", "settings", "message"),
    [
        ("tubules", ["task.structure=tissue"], "cannot be drawn for training; accepted: granules"),
        ("tubules", ["task.structure=tubule"], "did you mean 'tubules'"),
        ("tubules", ["task.draw={curvatur=1}"], "did you mean 'curvature'"),
        ("tubules", ["task.draw={density=3}"], "a list of numbers"),
        ("tubules", ["task.chain.convolve.na=1.6"], "aperture 1.6"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(recipe: str, settings: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        structures.fit([], load_recipe(recipe, [*SMALL, *settings]))
    assert "\n" not in str(error.value)


def test_enhance_says_how_such_recipes_are_used(
    tiny_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["enhance", str(tiny_file), "--recipe", "tubules", "--out", str(tmp_path / "out")]) == 2
    assert "`deepcontrast train tubules`" in capsys.readouterr().err


def test_a_recipe_that_draws_nothing_needs_images(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["train", "semi-synthetic", "--out", str(tmp_path / "m.safetensors")]) == 2
    assert "give some with --input" in capsys.readouterr().err
    config = load_recipe("semi-synthetic")
    assert isinstance(config, Config)
    with pytest.raises(InputError, match="give some with --input"):
        structures.simulated(config)
