"""The distortion chain: ranges, sets, targets, and pairs that can be made again."""

from __future__ import annotations

import numpy as np
import pytest

from deepcontrast.distortion import Part, Ranges, check_shifted, distort, draw, steps_of
from deepcontrast.errors import InputError
from deepcontrast.stack import Optics

OPTICS = Optics(voxel_size=(0.1, 0.1, 0.1))
CHAIN = (
    {"step": "minimum", "radius": 0.5},
    {"step": "black_level", "black": 1, "bright": 99},
    {"step": "convolve", "na": [0.8, 1.2], "wavelength": 520},
    {"step": "poisson", "light": [4, 100]},
    {"step": "gaussian", "sigma": [0, 0.1], "intensity": [0.2, 1]},
    {"step": "exposure", "factor": [0.4, 1.6], "saturation": 1.0},
    {"step": "background", "level": [0, 0.1], "glow": 0.0},
    {"step": "binning", "factor": [1, 3]},
)
SHIFTED = ("gaussian.sigma", "gaussian.intensity", "exposure.factor")


def drawn(count: int, part: Part | None = None) -> list[dict[str, float | str]]:
    return [draw(steps_of(CHAIN), np.random.default_rng(n), part or Part()) for n in range(count)]


def test_every_parameter_stays_in_its_interval_and_fills_it() -> None:
    many = drawn(400)
    for name, low, high in (
        ("convolve.na", 0.8, 1.2), ("poisson.light", 4, 100), ("gaussian.sigma", 0, 0.1), ("exposure.factor", 0.4, 1.6),
    ):  # fmt: skip
        values = np.array([one[name] for one in many])
        assert low <= values.min() < values.max() <= high
        spread = np.log(values) if low > 0 else values
        ends = (np.log(low), np.log(high)) if low > 0 else (low, high)
        assert np.mean(spread) == pytest.approx(np.mean(ends), abs=0.06 * (ends[1] - ends[0]))
    assert {one["binning.factor"] for one in many} == {1, 2, 3}
    assert {one["convolve.wavelength"] for one in many} == {520}


def test_the_intervals_of_sets_are_disjoint_and_cover_the_whole() -> None:
    sets = [drawn(300, Part(k, 3, SHIFTED)) for k in range(3)]
    for name, low, high in (("gaussian.sigma", 0, 0.1), ("exposure.factor", 0.4, 1.6)):
        ends = [(min(v), max(v)) for v in ([one[name] for one in some] for some in sets)]
        assert low <= ends[0][0]
        assert ends[0][1] < ends[1][0]
        assert ends[1][1] < ends[2][0]
        assert ends[2][1] <= high
        widths = np.array([e[1] - e[0] for e in (np.log(ends) if low > 0 else np.array(ends))])
        whole = np.log(high / low) if low > 0 else high - low
        np.testing.assert_allclose(widths, whole / 3, rtol=0.05)
    lights = [np.log([one["poisson.light"] for one in some]).mean() for some in sets]
    np.testing.assert_allclose(lights, np.log(20), atol=0.2)


def test_equal_parameters_make_equal_bytes_and_the_image_is_not_changed(rng: np.random.Generator) -> None:
    truth = rng.gamma(1.0, 100.0, (2, 40, 44)).astype(np.float32)
    kept = truth.copy()
    parameters = drawn(1)[0]
    one, same = (distort(truth, OPTICS, steps_of(CHAIN), parameters) for _ in range(2))
    assert one.image.tobytes() == same.image.tobytes()
    assert one.target.tobytes() == same.target.tobytes()
    assert one.image.shape == truth.shape
    np.testing.assert_array_equal(truth, kept)
    other = distort(truth, OPTICS, steps_of(CHAIN), {**parameters, "seed": 5})
    assert not np.array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.target, other.target)


def test_the_target_is_the_cleaned_image_as_bright_and_as_black_as_the_input(rng: np.random.Generator) -> None:
    truth = rng.gamma(1.0, 100.0, (1, 64, 64)).astype(np.float32)
    chain = [
        {"step": "black_level", "black": 1, "bright": 99}, {"step": "background", "glow": 0.3},
        {"step": "poisson", "light": 1e6}, {"step": "exposure", "factor": 0.25, "saturation": 9.0},
        {"step": "background", "level": 0.5, "glow": 0.0},
    ]  # fmt: skip
    steps = steps_of(chain)
    pair = distort(truth, OPTICS, steps, draw(steps, rng))
    low, high = np.percentile(truth, (1, 99))
    clean = np.maximum((truth - low) / (high - low), 0)
    np.testing.assert_allclose(pair.target, 0.25 * clean + 0.5, rtol=0.02)
    glow = pair.image - pair.target
    assert -0.01 < glow.min() < glow.max() < 0.25 * 0.3 + 0.01


def test_without_noise_and_blur_the_chain_is_the_truth(rng: np.random.Generator) -> None:
    truth = rng.uniform(0, 1, (1, 32, 32)).astype(np.float32)
    steps = steps_of([{"step": "convolve", "kind": "none"}, {"step": "exposure", "factor": 1.0}])
    np.testing.assert_array_equal(distort(truth, OPTICS, steps, draw(steps, rng)).image, truth)


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ([{"step": "poison"}], "did you mean 'poisson'"),
        ([{"light": 3}], "no '' in degrade"),
        ([{"step": "poisson", "ligth": 3}], "did you mean 'light'"),
        ([{"step": "poisson", "light": [9, 3]}], "low first"),
        ([{"step": "poisson", "light": [3]}], r"\[low, high\]"),
        ([{"step": "poisson", "light": True}], "a number"),
        ([{"step": "poisson", "generator": 3}], "no 'generator'"),
        ([{"step": "poisson", "light": "many"}], "accepted: a number"),
        ([{"step": "poisson", "light": float("nan")}], "accepted: a number"),
        ([{"step": "binning", "factor": 1.5}], "accepted: a whole number"),
        ([{"step": "convolve", "kind": 3}], "accepted: a word"),
    ],
)
def test_a_wrong_chain_is_refused_in_one_line(chain: list[dict[str, object]], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        steps_of(chain)
    assert "\n" not in str(error.value)


def test_only_what_a_step_sets_can_be_shifted() -> None:
    check_shifted(steps_of(CHAIN), SHIFTED)
    with pytest.raises(InputError, match=r"did you mean 'gaussian\.sigma'"):
        check_shifted(steps_of(CHAIN), ["gaussian.sigm"])


def test_what_is_fixed_is_the_same_in_all_sets() -> None:
    steps = steps_of([{"step": "gaussian", "sigma": 0.05, "intensity": [0.2, 1]}])
    check_shifted(steps, ["gaussian.sigma", "gaussian.intensity"])
    made = [
        draw(steps, np.random.default_rng(0), Part(k, 3, ("gaussian.sigma", "gaussian.intensity"))) for k in range(3)
    ]
    assert {one["gaussian.sigma"] for one in made} == {0.05}
    assert made[0]["gaussian.intensity"] < made[1]["gaussian.intensity"] < made[2]["gaussian.intensity"]


def test_a_step_that_comes_twice_is_numbered() -> None:
    steps = steps_of([{"step": "background", "level": 1}, {"step": "background", "level": 2}])
    assert draw(steps, np.random.default_rng(0)).keys() == {"background.level", "background_2.level", "seed"}


def test_ranges_know_whole_numbers_by_the_function() -> None:
    def made(*, count: int = 1, size: float = 1.0) -> None: ...

    ranges = Ranges.of(made, "made", {"count": [2, 4], "size": [2, 4]})
    values = [ranges.draw(np.random.default_rng(n)) for n in range(60)]
    assert {one["count"] for one in values} == {2, 3, 4}
    assert len({one["size"] for one in values}) == 60
