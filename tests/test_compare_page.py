"""The comparison page: one file that marks what must be marked and bears odd stacks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from scipy.ndimage import gaussian_filter

from deepcontrast.errors import Cancelled
from deepcontrast.progress import Event
from deepcontrast.report import canvas, compare_page, compare_scores, compare_sections
from deepcontrast.report.compare_data import CompareData, MethodResult
from deepcontrast.report.compare_figures import spread

ALL = (slice(None), slice(None), slice(None))
CROP = (slice(0, 12), slice(8, 40), slice(8, 48))


def method(name: str, label: str, volume: np.ndarray, scores: dict[str, float], **changes: Any) -> MethodResult:
    """A method whose scores fall a little with the plane."""
    fall = 1 - 0.01 * np.arange(len(volume))
    values = {metric: value * fall for metric, value in scores.items()}
    fields: dict[str, Any] = {
        "name": name,
        "label": label,
        "k": None,
        "tuned": "",
        "parameters": "",
        "volume": volume,
        "region": ALL,
        "seconds": None,
        "voxels_per_second": None,
        "peak_mb": None,
        "scores": values,
        "stack_scores": {"error": 1 - scores["iou"], "error_threshold": 7.777} if "iou" in scores else {},
    }
    return MethodResult(**{**fields, **changes})


def scored(level: float, known: bool) -> dict[str, float]:
    truth = {"iou": level, "ssim": level - 0.2, "ssim_clipped": level - 0.1}
    return {"wci": 1 + level, "pci": np.nan, "wci_level_1": 7.777, **(truth if known else {})}


def example(planes: int = 12, *, known: bool = True, crop: bool = True) -> CompareData:
    rng = np.random.default_rng(0)
    truth = np.stack([gaussian_filter(rng.random((48, 56)), 2.0) for _ in range(planes)]).astype(np.float32)
    truth = np.maximum(truth - np.median(truth), 0) * 1000
    raw = np.asarray(100 + truth + rng.normal(0, 30, truth.shape), np.float32)
    blurred = np.asarray(gaussian_filter(raw, (0, 1.5, 1.5)), np.float32)
    cost = {"seconds": 3.0, "voxels_per_second": raw.size / 3.0, "peak_mb": 50.0}
    methods = [
        method("raw", "raw", raw, scored(0.5, known), k=0),
        method("deepcontrast", "deepcontrast k=1", blurred, scored(0.6, known), k=1, **cost),
        method("deepcontrast", "deepcontrast k=2", blurred, scored(0.7, known), k=2, **cost),
        method("deepcontrast", "deepcontrast (auto k)", blurred, scored(0.65, known), **cost),
        method("median", "median <3>", blurred, scored(0.55, known), tuned="as a user would", **cost),
    ]
    if known:
        methods.append(method("median", "median, other", blurred, scored(0.8, known), tuned="on the truth", **cost))
    if crop:
        part = {"region": CROP, "volume": blurred[CROP]}
        slow = {**part, "seconds": 10.0, "voxels_per_second": 500.0, "tuned": "as a user would"}
        methods.append(replace(method("raw", "raw, middle", raw, scored(0.5, known), k=0), **part))
        methods.append(replace(method("nlm", "nlm", blurred, scored(0.9, known)), **slow))
    return CompareData(
        title="liver <1>.tif",
        summary=("Contrast rose.",),
        facts=(("Shape", "Z 12"),),
        depth_um=np.arange(planes)[::-1] * 2.0,
        depth_unit="um",
        voxel_size=(2.0, 0.5, 0.5),
        methods=tuple(methods),
        truth=truth if known else None,
        mask=truth > 0 if known else None,
        iou_tiles={"raw": rng.random(20), "deepcontrast k=1": rng.random(20)} if known else {},
        skipped=("bm4d is left out: not installed",),
        provenance=(("Seed", "0"),),
        mask_note="Drawn on the raw." if known else "",
    )


@pytest.fixture(scope="module", autouse=True)
def coarse() -> Iterator[None]:
    """Plots of fewer pixels: they take most of the time, and nothing here looks at them closely."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canvas, "SHARPNESS", 0.5)
        yield


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("compare") / "compare.html"
    compare_page.write_compare(path, example())
    assert [p.name for p in path.parent.iterdir()] == ["compare.html"]
    return path.read_text(encoding="utf-8")


class _Page(HTMLParser):
    """Collects sources, text alternatives, links, ids, and the text of every table row and heading."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.alts: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.bold: list[list[str]] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)
        self.sources += [given["src"]] if "src" in given else []
        self.alts += [given.get("alt", "")] if tag == "img" else []
        self.links += [given["href"]] if "href" in given else []
        self.ids += [given["id"]] if "id" in given else []
        if tag == "tr":
            self.rows.append([])
            self.bold.append([])
        if tag in {"td", "th"} and self.rows:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data
            if "b" in self.open:
                self.bold[-1].append(data)

    def row(self, label: str, table: int = 0) -> list[str]:
        return [row for row in self.rows if row and f"{row[0]} ".startswith(f"{label} ")][table]


def test_page_fetches_nothing_and_every_picture_has_words(written: str) -> None:
    found = _Page(written)
    assert all(source.startswith("data:image/png;base64,") for source in found.sources)
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttp", re.sub(r"base64,[^\"]+", "", written))
    assert "default-src 'none'" in written
    assert all(found.alts)
    assert {link.removeprefix("#") for link in found.links} <= set(found.ids)
    assert len(set(found.ids)) == len(found.ids)


def test_every_method_stands_in_both_tables_and_at_every_depth(written: str) -> None:
    found = _Page(written)
    for result in example().methods:
        assert found.row(result.label, 0)[0]
        assert found.row(result.label, 1)[0]
    for label in ("raw", "median <3>", "nlm", "truth", "mask"):
        assert len([alt for alt in found.alts if alt.startswith(f"{label}, ")]) == 3
        assert len([alt for alt in found.alts if alt.startswith(f"inset of {label}, ")]) == 3
    # Raw and ours on the crop of another: pixels that are shown already.
    assert not [alt for alt in found.alts if "raw, middle" in alt]


def test_text_is_escaped(written: str) -> None:
    assert "liver &lt;1&gt;.tif" in written
    assert "median <3>" not in written


def test_what_was_tuned_on_the_truth_and_what_saw_a_crop_is_marked(written: str) -> None:
    found = _Page(written)
    assert "tuned on the truth" in found.row("median, other")[0]
    assert "tuned" not in found.row("median <3>")[0]
    assert found.row("nlm")[0].endswith("crop")
    headings = [row[0] for row in found.rows if len(row) == 1]
    assert "On a crop: all planes, y 8 to 39, x 8 to 47" in headings
    order = [row[0] for row in found.rows if row]
    assert order.index("On a crop: all planes, y 8 to 39, x 8 to 47") < order.index("nlm crop")


def test_best_of_a_column_is_bold_and_best_without_the_truth_too(written: str) -> None:
    found = _Page(written)
    bold: dict[str, list[str]] = {}
    for row, marked in zip(found.rows, found.bold, strict=True):
        bold.setdefault(row[0] if row else "", marked)  # the first table comes first
    mean = 1 - 0.01 * np.arange(12).mean()
    assert f"{0.8 * mean:.3f}" in bold["median, other tuned on the truth"]
    assert f"{0.7 * mean:.3f}" in bold["deepcontrast k=2"]
    # ERROR, of which the least is the best.
    assert "0.300" in bold["deepcontrast k=2"]
    # 0.9 would be the highest IoU, but of other voxels.
    assert bold["nlm crop"] == []
    assert bold["raw"] == []


def test_ms_ssim_of_small_planes_stands_in_the_table_by_its_scales() -> None:
    data = example(2, crop=False)
    scores = {"ms_ssim_2_scales": 0.4567, "ms_ssim_2_scales_foreground": 0.3, "ssim": 0.2, "pearson": 0.1}
    raw, one, *_ = data.methods
    low, high = (method(m.name, m.label, m.volume, {**scores, "ms_ssim_2_scales": v}, k=m.k)
                 for m, v in ((raw, 0.25), (one, 0.4567)))  # fmt: skip
    columns = compare_scores.score_columns(replace(data, methods=(low, high)))
    families = [c.family for c in columns]
    # Beside SSIM, as MS-SSIM of all scales would be; of unknown scores, which stand last, no end is the best.
    assert families[:4] == ["SSIM", "MS-SSIM (2 scales)", "MS-SSIM (2 scales), foreground", "r"]
    table = compare_scores.table(replace(data, methods=(low, high)), columns[1:2], order=[0, 1])
    assert [(row[0].text, row[0].best) for row in table.rows] == [("0.249", False), ("0.454", True)]


def test_scores_of_labels_alone_are_said_to_be_against_labels() -> None:
    data = example(2, known=False, crop=False)
    labelled = tuple(replace(m, stack_scores={"seg": 0.5, "error": 0.25}) for m in data.methods)
    assert compare_sections.references(data) == []
    assert compare_sections.references(replace(data, methods=labelled)) == ["labels"]
    assert compare_sections.references(example()) == ["truth", "mask"]


def test_violins_of_a_crop_stand_apart_with_raw_and_ours_and_their_number() -> None:
    data = example()
    tiles = {m.label: np.linspace(0.1, 0.9, 5 if compare_scores.cropped(data, m) else 20) for m in data.methods}
    shown: list[tuple[str, int]] = []

    def seen(rows: Any, label: str) -> bytes:
        shown.extend((line.label, len(values)) for line, values in rows)
        return real(rows, label)

    real = compare_sections.figures.violins
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare_sections.figures, "violins", seen)
        found = compare_sections.violins(replace(data, iou_tiles=tiles))
    assert found is not None
    assert found["n"] == "N = 5 to 20 tiles, as each row says"
    assert shown[-2:] == [("raw, middle", 5), ("nlm", 5)]
    assert [label for label, n in shown if n == 20] == [
        "raw", "deepcontrast (auto k)", "deepcontrast k=1", "deepcontrast k=2", "median <3>", "median, other",
    ]  # fmt: skip


def test_undefined_scores_are_dashes(written: str) -> None:
    found = _Page(written)
    wci, pci = found.row("raw", 1)[1:3]
    assert wci == f"{1.5 * (1 - 0.01 * np.arange(12).mean()):.2f}"
    assert pci == "—"
    assert not re.search(r"\bnan\b", re.sub(r"base64,[^\"]+", "", written), re.IGNORECASE)
    assert "7.777" not in written


def test_page_says_how_to_read_it(written: str) -> None:
    for words in (
        "unchanged by any monotone change of grey values",
        "about 0.3 SSIM",
        "1st and white the 99.8th percentile",
        "Drawn on the raw.",
        "N = 20 tiles in every row",
        "bm4d is left out: not installed",
        "Each point is one plane",
    ):
        assert words in written


def test_two_planes_without_truth_show_nothing_of_it() -> None:
    html = compare_page.render(example(2, known=False, crop=False))
    found = _Page(html)
    assert not {"quality", "passes", "violins"} & set(found.ids)
    text = re.sub(r"base64,[^\"]+", "", html)
    assert not re.search(r"IoU|SSIM|NRMSE|Coloured area|crop:", text)
    assert not [alt for alt in found.alts if alt.startswith(("truth", "mask"))]
    assert len([row for row in found.rows if row and row[0] == "median <3>"]) == 1
    assert len([alt for alt in found.alts if alt.startswith("raw, ")]) == 2


def test_one_plane_and_same_data_same_bytes() -> None:
    data = example(1, crop=False)
    data = replace(data, methods=(data.methods[0], data.methods[1], data.methods[5]))
    html = compare_page.render(data)
    assert len([alt for alt in _Page(html).alts if alt.startswith("raw, ")]) == 1
    assert compare_page.render(data) == html


def test_cancelled_page_leaves_nothing(tmp_path: Path) -> None:
    def listen(event: Event) -> None:
        if event.done == 1:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        compare_page.write_compare(tmp_path / "compare.html", example(), progress=listen)
    assert list(tmp_path.iterdir()) == []


def test_inset_lies_where_all_were_measured_and_shows_the_same_pixels() -> None:
    data = example()
    at = compare_sections.square(data, 5)
    assert 8 <= at.y <= at.y + at.side <= 40
    assert 8 <= at.x <= at.x + at.side <= 48
    whole, crop = (at.of(compare_sections.plane(data, data.methods[i], 5)) for i in (4, 7))
    assert whole is not None
    np.testing.assert_array_equal(whole, crop)


def test_a_method_outside_its_planes_is_said_to_be_unmeasured() -> None:
    data = example(known=False)
    slow = data.methods[-1]
    part = (slice(0, 1), *slow.region[1:])
    shallow = replace(slow, region=part, volume=slow.volume[:1])
    pictures = compare_sections.depth_pictures(replace(data, methods=(*data.methods[:-1], shallow)), 6, 100)
    cells = {cell.label: cell for _, group in pictures["groups"] for cell in group}
    assert cells["nlm"].whole is None
    assert cells["median <3>"].whole is not None


def test_pictures_of_thirty_methods_keep_to_the_budget() -> None:
    data = example(1, known=False, crop=False)
    wide = np.zeros((1, 1024, 1024), np.float32)
    many = tuple(replace(data.methods[0], label=str(i), volume=wide) for i in range(32))
    side = compare_sections.thumbnail_side(replace(data, methods=many), 3)
    assert 3 * 32 * (side**2 + 128**2) <= compare_sections.PIXELS
    assert side >= compare_sections.SMALLEST


def test_parts_of_the_depth_hold_every_plane_once_shallow_first() -> None:
    depth = np.arange(60.0)[::-1]
    parts = compare_sections.bins(depth)
    assert len(parts) == 10
    assert parts[0].tolist() == [59, 58, 57, 56, 55, 54]
    assert sorted(np.concatenate(parts).tolist()) == list(range(60))
    assert [part.tolist() for part in compare_sections.bins(np.arange(3.0))] == [[0], [1], [2]]


def test_time_of_the_whole_stack_follows_from_the_throughput_of_the_crop() -> None:
    data = example()
    assert compare_scores.whole_time(data, data.methods[7]) == pytest.approx(12 * 48 * 56 / 500.0)
    assert compare_scores.whole_time(data, data.methods[1]) == 3.0
    assert [compare_scores.duration(s) for s in (0.0123, 3.456, 600, 36000)] == ["12.3 ms", "3.46 s", "10 min", "10 h"]


def test_columns_that_do_not_fit_make_more_tables_and_families_stay_together() -> None:
    columns = [compare_scores.Column(f"{i // 2}", "", ".2f", 1, ()) for i in range(22)]
    parts = compare_scores.split(columns)
    assert [column for part in parts for column in part] == columns
    assert [len(part) for part in parts] == [12, 10]
    assert [len(part) for part in compare_scores.split(columns[:16])] == [16]
    assert compare_scores.split([]) == []


def test_labels_keep_their_order_and_a_gap() -> None:
    places = [0.1, 0.11, 0.12, 0.5, 0.99, 1.0]
    moved = spread(places, 0.06)
    assert np.diff(moved).min() >= 0.06 - 1e-9
    assert min(moved) >= 0
    assert max(moved) <= 1
    assert moved[3] == 0.5
    assert spread([0.2, 0.8], 0.06) == [0.2, 0.8]


def test_256_colours_keep_a_plot() -> None:
    def drawn() -> Any:
        figure = canvas.new_figure(200, 100, solve=False)
        figure.add_axes((0.1, 0.1, 0.8, 0.8)).plot([0, 1], [0, 1], color="#d55e00")
        return figure

    with canvas.plain_style():
        full, small = canvas.png_bytes(drawn()), canvas.small_png_bytes(drawn())
    assert len(small) < len(full)
    np.testing.assert_allclose(imread(BytesIO(small))[..., :3], imread(BytesIO(full))[..., :3], atol=0.05)
