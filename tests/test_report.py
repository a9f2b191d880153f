"""The report: one page that needs nothing else, says what it must, and bears odd stacks."""

from __future__ import annotations

import dataclasses
import re
import struct
import zlib
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread
from scipy.ndimage import gaussian_filter

from deepcontrast import story
from deepcontrast.errors import Cancelled, OutputError
from deepcontrast.progress import Event
from deepcontrast.report import ReportData, figures, intensity_summary, page, pictures, sections, views, write_report

SECTIONS = (
    "before-after",
    "section",
    "contrast",
    "scores",
    "profiles",
    "passes",
    "choice",
    "trust",
    "intensity",
    "invalid",
    "noise",
    "training",
    "provenance",
)


def example(shape: tuple[int, int, int] = (8, 48, 64), last: int = 2, **changes: Any) -> ReportData:
    """Blobs that fade with depth, the surface at the last plane, and "passes" that stretch them."""
    rng = np.random.default_rng(0)
    planes = shape[0]
    depth = np.arange(planes)[::-1] * 2.0
    tissue = np.stack([gaussian_filter(rng.random(shape[1:]), 2.0) for _ in range(planes)])
    raw = (100 + 400 * tissue * np.exp(-depth / 10)[:, None, None]).astype(np.float32)
    passes = [(raw - 100) * (1 + k) + 100 / (1 + k) for k in range(last + 1)]
    ks = np.arange(last + 1)
    wci = 1.0 + 0.1 * np.arange(last + 1)[:, None] - 0.01 * depth
    fields: dict[str, Any] = {
        "title": "liver <1>.tif, channel 1",
        "summary": ("Contrast rose 1.4-fold in the deepest third.", "Measure intensities in the raw."),
        "facts": (("Shape", "Z 8, Y 48, X 64"), ("Surface", "last plane")),
        "depth_um": depth,
        "depth_unit": "um",
        "voxel_size": (2.0, 0.5, 0.5),
        "passes": passes,
        "enhanced": passes[min(2, last)],
        "chosen": np.full(planes, float(min(2, last))),
        "why": "The largest k that keeps the raw's structure.",
        "selection": {"share explained": np.stack([1.0 * ks, -1.0 * ks]), "haze": np.stack([-1.0 * ks, -2.0 * ks])},
        "selection_depth": np.array([4.0, 10.0]),
        "selection_best": np.array([last, 1.5]),
        "contrast": {"wci": wci[None], "pci": wci[None] / 2},
        "contrast_tiles": {
            "wci": wci[:, ::3, None] + 0.1 * rng.normal(size=(last + 1, len(depth[::3]), 6)),
            "z": np.arange(planes)[::3],
        },
        "camera": {
            "gain": 2.0,
            "intercept": 90.0,
            "offset": None,
            "read_noise": None,
            "poissonian": True,
            "whiteness": (0.01, 0.02, 0.0),
            "fixed_pattern": "columns, 0.8 grey levels",
            "pattern_kind": "columns",
            "notes": ("The intercept stands for offset and read noise.",),
            "means": (100.0, 150.0, 200.0),
            "variances": (20.0, 121.0, 219.0),
        },
        "pattern": rng.normal(size=shape[1:]).astype(np.float32),
        "invalid": {"empty": np.arange(planes), "saturated": np.zeros(planes, int)},
        "degradation": {
            "sigma_px": 12.0,
            "sigma_um": 6.0,
            "why": "6 um",
            "alpha_surface": 0.5,
            "alpha_deep": 0.3,
            "sigmas_px": (1.2, 12.0),
            "thin": 0.5,
            "layers": (-2, -1, 0, 1, 2),
        },
        "degraded_example": (raw[0], raw[0] * 0.5 + 50),
        "training": {
            "step": np.arange(1, 101),
            "loss": np.geomspace(1, 0.1, 100),
            "val_step": np.array([50, 100]),
            "val_loss": np.array([0.4, 0.2]),
        },
        "fidelity": (("Correlation with the raw", "0.95"),),
        "provenance": (("Seed", "0"),),
        "equalised": {
            "factor": np.exp(depth / 10),
            "measured": np.stack([depth[::-1], 400 * np.exp(-depth[::-1] / 10)]),
            "words": "planes are multiplied by 1 to 4.06",
        },
        "scores": (("method", "IoU"), ("raw", "0.50"), ("deepcontrast", "0.68")),
    }
    return ReportData(**{**fields, **changes})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, example())
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


class _Page(HTMLParser):
    """Collects what a browser would fetch, the ids, and the tags that stay open."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.sliders: list[dict[str, str | None]] = []
        self.without_alt = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in {"meta", "img", "input", "br", "link"}:
            self.open.append(tag)
        self.fetched += [given[key] or "" for key in ("src", "srcset", "data") if key in given]
        self.fetched += [given["href"] or ""] if tag == "link" else []
        self.links += [given["href"] or ""] if tag == "a" else []
        self.ids += [given["id"] or ""] if "id" in given else []
        self.without_alt += tag == "img" and not given.get("alt")
        if given.get("type") == "range":
            self.sliders.append(given)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parse(html: str) -> _Page:
    parser = _Page()
    parser.feed(html)
    assert parser.open == []
    assert len(set(parser.ids)) == len(parser.ids)
    return parser


def test_page_fetches_nothing(written: str) -> None:
    found = parse(written)
    assert len(found.fetched) > 20
    assert all(src.startswith("data:image/png;base64,") for src in found.fetched)
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttp", re.sub(r"base64,[^\"]+", "", written))
    assert "default-src 'none'" in written


def test_page_has_every_section_and_links_to_it(written: str) -> None:
    found = parse(written)
    assert {f"#{name}" for name in SECTIONS} == set(found.links)
    assert set(SECTIONS) <= set(found.ids)
    for words in (
        "within-stack variation",
        "1st and white the 99.8th percentile",
        "May be measured in the result:",
        "absolute intensity",
        "5 µm",
        "2 grey levels per photon",
        "12 px = 6 µm",
        "The largest k that keeps the raw&#39;s structure.",
        "planes are multiplied by 1 to 4.06",
    ):
        assert words in written


def test_sliders_are_five_and_named(written: str) -> None:
    found = parse(written)
    assert len(found.sliders) == 5
    assert all("deep, plane" in str(slider["aria-label"]) for slider in found.sliders)
    assert found.without_alt == 0


def test_text_is_escaped(written: str) -> None:
    assert "liver &lt;1&gt;.tif" in written
    assert "liver <1>" not in written


def test_same_data_same_bytes(written: str) -> None:
    assert page.render(example()) == written


def test_cancelled_report_leaves_nothing(tmp_path: Path) -> None:
    def listen(event: Event) -> None:
        if event.done == 1:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        write_report(tmp_path / "report.html", example(), progress=listen)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_path_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*No such file") as caught:
        write_report(tmp_path / "missing" / "report.html", example())
    assert "\n" not in str(caught.value)


def test_two_planes_one_pass_unknown_voxels_and_nothing_known() -> None:
    html = page.render(
        example(
            shape=(2, 32, 32),
            last=1,
            depth_unit="planes",
            voxel_size=(None, None, None),
            selection={},
            contrast={"wci": np.full((1, 2, 2), np.nan), "pci": np.full((1, 2, 2), np.nan)},
            contrast_tiles=None,
            camera={},
            pattern=None,
            invalid={},
            degradation={},
            degraded_example=None,
            training={},
            fidelity=(),
            scores=None,
            equalised=None,
        )
    )
    found = parse(html)
    assert "equalised" not in html
    assert "section" not in found.ids
    assert "scores" not in found.ids
    assert len(found.sliders) == 2
    assert "µm" not in html.replace("(µm", "")
    assert "no confidence band" in html
    assert "WCI for raw in 2 of 2 planes" in html


def test_invalid_planes_several_stacks_blends_and_not_poissonian() -> None:
    data = example(shape=(6, 32, 40), last=12)
    raw = data.passes[0].copy()
    raw[0], raw[1, :16] = 0.0, np.nan
    valid = np.isfinite(raw) & (raw > 0)
    contrast = data.contrast["wci"] + np.array([0.0, 0.1, 0.3])[:, None, None]
    contrast[:, 2, 1] = np.nan
    camera = {**data.camera, "poissonian": False, "gain": None, "intercept": float("nan")}
    html = page.render(
        dataclasses.replace(
            data,
            passes=[raw, *data.passes[1:]],
            valid=valid,
            chosen=np.linspace(0.5, 3, 6),
            contrast={"wci": contrast},
            camera=camera,
        )
    )
    found = parse(html)
    assert "Mean of 3 stacks and its 95 % confidence band" in html
    assert "not plain photon noise" in html
    assert "a blend of" in html
    assert len(found.sliders) == 5
    assert "plane 1 of 6" not in html


def test_slope_of_a_doubled_stack_is_two() -> None:
    raw = example(shape=(10, 48, 64)).passes[0]
    found = intensity_summary(raw, 2 * raw - 77, np.arange(10.0))
    assert len(found["bins"]) == 5
    assert [part["slope"] for part in found["bins"]] == pytest.approx([2.0] * 5, rel=1e-4)
    assert [part["r2"] for part in found["bins"]] == pytest.approx([1.0] * 5, rel=1e-4)
    assert found["raw"] == pytest.approx(found["enhanced"], rel=1e-3)


def test_slope_by_depth_and_falloff_follow_the_depth_not_the_plane() -> None:
    rng = np.random.default_rng(1)
    depth = np.arange(10.0)[::-1]
    raw = rng.normal(size=(1, 64, 64)).astype(np.float32) * np.where(depth < 5, 4, 1)[:, None, None]
    gain = np.where(depth < 5, 1.0, 3.0)[:, None, None]
    found = intensity_summary(raw, gain * raw, depth, bins=2)
    assert [part["slope"] for part in found["bins"]] == pytest.approx([1.0, 3.0], rel=1e-4)
    assert found["bins"][0]["depth_from"] == 0
    assert found["raw_deep"] == pytest.approx(0.25, rel=1e-3)
    assert found["enhanced_deep"] == pytest.approx(0.75, rel=1e-3)


def test_noise_lowers_r2_and_invalid_voxels_are_left_out() -> None:
    rng = np.random.default_rng(2)
    raw = example().passes[0]
    noisy = raw + rng.normal(0, raw.std(), raw.shape).astype(np.float32)
    assert all(part["r2"] < 0.9 for part in intensity_summary(raw, noisy, np.arange(8.0))["bins"])
    valid = np.ones(raw.shape, bool)
    valid[:, :20] = False
    found = intensity_summary(raw, raw, np.arange(8.0), valid=valid)
    assert found["bins"][0]["voxels"] == 2 * 28 * 64
    flat = intensity_summary(np.ones((3, 32, 32)), np.ones((3, 32, 32)), np.arange(3.0))
    assert all(np.isnan(part["r2"]) for part in flat["bins"])


def test_png_holds_the_pixels() -> None:
    grey = np.random.default_rng(3).integers(0, 256, (7, 11)).astype(np.uint8)
    ramp = np.add.outer(np.arange(40), 3 * np.arange(30)).astype(np.uint8)
    for image in (grey, ramp):
        packed = pictures.png(image)
        assert struct.unpack(">II", packed[16:24]) == image.shape[::-1]
        read = np.rint(imread(BytesIO(packed)) * 255).astype(np.uint8)
        np.testing.assert_array_equal(read, image)
    assert len(pictures.png(ramp)) < len(zlib.compress(ramp.tobytes(), 9)) + 100


def test_display_range_is_the_same_rule_for_any_scale() -> None:
    plane = np.random.default_rng(4).gamma(2.0, size=(64, 64))
    low, high = pictures.display_range(plane)
    assert np.mean(plane < low) == pytest.approx(0.01, abs=1e-3)
    assert np.mean(plane > high) == pytest.approx(0.002, abs=1e-3)
    scaled = pictures.display_range(-5 + 3 * plane)
    assert scaled == pytest.approx((-5 + 3 * low, -5 + 3 * high))
    assert pictures.display_range(np.full((3, 3), np.nan)) == (0.0, 1.0)
    shown = [pictures.picture(image, "x").src for image in (plane, 8 * plane)]
    assert shown[0] == shown[1]


@pytest.mark.parametrize(
    ("columns", "width", "label"),
    [(384, 0.92, "50 µm"), (1024, 0.1, "20 µm"), (10, 0.1, "0.2 µm"), (100, None, "20 px"), (2, None, None)],
)
def test_scale_bar_is_round_and_below_a_quarter(columns: int, width: float | None, label: str | None) -> None:
    bar = pictures.scale_bar(columns, width)
    assert (bar.label if bar else None) == label
    if bar:
        assert 9 < bar.percent <= 25


def test_picture_keeps_true_aspect_and_limits_size() -> None:
    shown = pictures.picture(np.eye(100, 2000), "x", pixel=(2.0, 0.5))
    assert shown.aspect == pytest.approx(2000 * 0.5 / (100 * 2.0))
    assert shown.block == 3
    assert pictures.shrink(np.arange(12, dtype=np.float32).reshape(2, 6), 2).tolist() == [[3.5, 5.5, 7.5]]


def test_planes_shown_run_from_the_surface_down() -> None:
    assert views.by_depth(np.arange(10.0)[::-1], 5) == [8, 6, 4, 2, 0]
    valid = np.ones((10, 4, 4), bool)
    valid[8] = False
    assert views.by_depth(np.arange(10.0)[::-1], 5, valid) == [9, 6, 4, 2, 0]


def test_inset_and_line_find_structure() -> None:
    plane = np.zeros((96, 128), np.float32)
    plane[60:80:4, 90:120] = 1
    y, x = views.inset(plane, 32)
    assert 48 <= y + 16 <= 92
    assert 82 <= x + 16 <= 128
    square = np.zeros((32, 32), np.float32)
    square[20, ::4] = 1
    assert abs(views.profile_row(square) - 20) <= 1


def test_contrast_at_a_blend_lies_between_its_passes() -> None:
    curves = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [3.0, 3.0, np.nan]])
    np.testing.assert_allclose(sections.at_chosen(curves, np.array([0.0, 1.25, 1.0])), [0, 1.5, 1])


def test_band_over_stacks_is_students() -> None:
    values = np.array([1.0, 2.0, 6.0])[:, None, None]
    _, low, high = figures.stack_bands(values)
    half = 4.3027 * np.std(values, ddof=1) / np.sqrt(3)
    assert low.item() == pytest.approx(3 - half, rel=1e-4)
    assert high.item() == pytest.approx(3 + half, rel=1e-4)


def test_band_over_tiles_has_the_bootstrap_width_and_needs_two_tiles() -> None:
    rng = np.random.default_rng(5)
    tiles = rng.normal(size=(2, 3, 100))
    curves, planes = np.full((2, 9), 7.0), np.array([0, 4, 8])
    band = figures.tile_bands(curves, tiles, planes, draws=2000)
    assert band is not None
    _, low, high = band
    np.testing.assert_allclose((high - low).mean(), 2 * 1.96 * tiles.std() / 10, rtol=0.1)
    assert (low < 7).all()
    assert (high > 7).all()
    assert figures.tile_bands(curves, tiles[:, :, :1], planes) is None


def test_plots_leave_the_style_of_the_caller_alone() -> None:
    with matplotlib.rc_context({"font.size": 33}):
        figures.falloff(intensity_summary(np.ones((2, 8, 8)), np.ones((2, 8, 8)), np.arange(2.0)), "depth")
        assert matplotlib.rcParams["font.size"] == 33


def test_the_fidelity_map_tells_of_valid_voxels_and_shows_single_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    score = np.zeros((2, 8, 1400), np.float32)
    score[0, 0, 1] = score[1, 0] = 9.0  # the first alone in its plane, between those that a thinned picture shows
    valid = np.ones(score.shape, bool)
    valid[1, 0] = False
    shown: list[np.ndarray] = []
    monkeypatch.setattr("matplotlib.axes.Axes.imshow", lambda self, image, **_: shown.append(np.asarray(image)))
    data = example((2, 8, 1400), last=1, fidelity_map=score, valid=valid, depth_um=np.array([0.0, 2.0]))
    found = sections.fidelity_map(data, [0])
    assert found is not None
    assert (found["lost"], found["added"]) == ("0.0%", "0.0%")
    assert shown[-1].shape[1] < 1400
    assert np.ptp(shown[-1], axis=2).max() > 0.3


@pytest.mark.parametrize("shape", [(8, 900), (900, 8)])
def test_the_fidelity_map_of_long_planes_is_a_picture_of_a_page(shape: tuple[int, int]) -> None:
    image = np.linspace(0, 1, shape[0] * shape[1]).reshape(shape)
    height, width = imread(BytesIO(figures.fidelity_map([("surface", image, image, image)] * 3, 4.0))).shape[:2]
    assert height < 3 * width


@pytest.mark.parametrize(
    ("thin", "recorrupted", "word"), [(0.5, False, "shared out, 50%"), (0.5, True, "added"), (0.0, False, "published")]
)
def test_it_is_said_what_noise_input_and_target_have_in_common(thin: float, recorrupted: bool, word: str) -> None:
    data = example(degradation={"thin": thin, "recorrupted": recorrupted})
    assert word in sections.degradation(data)["noise"]


@pytest.mark.parametrize(("share", "said"), [(0.0, True), (0.01, True), (0.1, False)])
def test_a_network_that_does_nothing_is_named(share: float, said: bool) -> None:
    raw = np.random.default_rng(3).normal(100, 10, (20, 16, 16)).astype(np.float32)
    blank = np.full_like(raw, 7)
    after = np.concatenate([100 + (1 + share) * (raw - 100), blank])
    found = story._idle(SimpleNamespace(passes=(np.concatenate([raw, blank]), after)))  # type: ignore[arg-type]
    assert bool(found) == said
    if said:
        assert f"Caution: the network changes next to nothing ({share:.1%}" in found[0]


def test_a_network_that_does_nothing_is_named_though_stripes_were_taken_from_the_raw() -> None:
    rng = np.random.default_rng(3)
    clean = rng.normal(100, 10, (20, 16, 16)).astype(np.float32)
    raw = clean + 5 * rng.standard_normal((20, 16, 1), np.float32)
    assert story._idle(SimpleNamespace(passes=(raw, clean, clean, clean)))  # type: ignore[arg-type]
    assert not story._idle(SimpleNamespace(passes=(raw, clean, 100 + 1.1 * (clean - 100))))  # type: ignore[arg-type]
