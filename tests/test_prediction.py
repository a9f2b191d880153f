"""Tiled equals whole, whatever the tiles; the plan, and what happens when it does not hold."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from deepcontrast import registry
from deepcontrast.config import Config
from deepcontrast.errors import Cancelled, InputError
from deepcontrast.prediction import Done, Plan, make_plan, predict_pass
from deepcontrast.prediction.plan import FIXED
from deepcontrast.progress import Event
from deepcontrast.task import Geometry
from deepcontrast.tiles import up
from deepcontrast.training import initialise

Volume = NDArray[np.float32]
PLENTY = 10**10


class Plain:
    """A task that only restores: the tiler must not need more."""

    def __init__(self, dims: int = 2, halo: int | None = None) -> None:
        self.dims, self.halo = dims, halo

    def geometry(self, net: Any, fit: Any, config: Config) -> Geometry:
        halo, step = int(net.halo) if self.halo is None else self.halo, int(net.step)
        free = 3 - self.dims
        return Geometry((*[0] * free, *[halo] * self.dims), (*[1] * free, *[step] * self.dims))  # type: ignore[arg-type]

    def restore(self, net: nn.Module, tile: Tensor, fit: Any, config: Config) -> dict[str, Tensor]:
        batch = tile.reshape(-1, 1, *tile.shape[3 - self.dims :])
        return {"mean": net(batch).reshape(tile.shape)}


def net_of(depth: int = 1, dims: int = 2, name: str = "unet", **more: Any) -> nn.Module:
    more = {"features": 4, "kernel": 3, "bias": True} | more
    net: nn.Module = registry.load("nets", name)(depth=depth, dims=dims, **more)
    initialise(net, torch.Generator().manual_seed(depth))
    return net.eval()


def noise(*shape: int, seed: int = 0) -> Volume:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def run(
    volume: Any, net: nn.Module | None = None, task: Any = None, config: Config | None = None, **more: Any
) -> tuple[Volume, Done]:
    out = np.full([s.stop - s.start for s in more["box"]] if "box" in more else volume.shape, np.nan, np.float32)
    done = predict_pass(task or Plain(), [net or net_of()], volume, None, config or Config(), out=out, **more)
    return out, done


def plan_of(shape: tuple[int, int, int], net: nn.Module, task: Any, config: Config | None = None, **more: Any) -> Plan:
    return make_plan(task, [net], shape, None, config or Config(), **{"memory": PLENTY} | more)


def tile_limit(voxels: int, **more: Any) -> Config:
    return Config.model_validate({"predict": {"tile_voxels": voxels, **more}})


@settings(max_examples=10, deadline=None)
# The network of projections has its own tests: a tile of it has all planes.
@given(
    data=st.data(),
    name=st.sampled_from(sorted({*registry.names("nets")} - {"projection"})),
    dims=st.integers(1, 3),
    depth=st.integers(1, 3),
)
def test_tiled_equals_whole(data: st.DataObject, name: str, dims: int, depth: int) -> None:
    long = st.integers(17, {1: 600, 2: 100, 3: 24}[dims])
    shape = data.draw(st.tuples(*[st.integers(1, 4)] * (3 - dims), *[long] * dims))
    net, task, volume = net_of(depth, dims, name), Plain(dims), noise(*shape)
    whole = plan_of(shape, net, task, tile_limit(10**7))
    least = plan_of(shape, net, task, tile_limit(1024)).peak
    share = data.draw(st.floats(0.3, 1))
    tight = plan_of(shape, net, task, memory=max(least, int(FIXED + share * (whole.peak - FIXED))))
    pieces = data.draw(st.tuples(*[st.integers(1, 2)] * 3))
    blocks = [-(-n // k) for n, k in zip(shape, pieces, strict=True)]
    limit = tile_limit(max(1024, int(share * np.prod(shape))))
    limited = plan_of(shape, net, task, limit, block=data.draw(st.none() | st.just(blocks)))
    step = task.geometry(net, None, Config()).step
    any_core = replace(whole, core=tuple(up(n, s) for n, s in zip(blocks, step, strict=True)))
    expected, _ = run(volume, net, task, plan=whole)
    got, _ = run(volume, net, task, plan=data.draw(st.sampled_from([tight, limited, any_core])))
    assert np.abs(got - expected).max() < 1e-5 * np.ptp(volume)
    assert whole.tiles == 1


@pytest.mark.parametrize("dims", [2, 3])
def test_the_border_is_restored_as_if_the_image_went_on_mirrored(dims: int) -> None:
    net, task = net_of(2, dims), Plain(dims)
    volume = noise(16, 24, 32)
    halo, step = task.geometry(net, None, Config()).halo, task.geometry(net, None, Config()).step
    around = [(s, s) if h else (0, 0) for h, s in zip(halo, step, strict=True)]
    wider, _ = run(np.pad(volume, around, "reflect"), net, task)
    got, _ = run(volume, net, task)
    inside = tuple(slice(a, a + n) for (a, _), n in zip(around, volume.shape, strict=True))
    zeros = np.asarray(task.restore(net, torch.from_numpy(volume), None, Config())["mean"].detach())
    # One step is mirrored, the wider volume mirrors one more: at the border the rest is far away.
    edge = np.s_[:, 0, 8:-8]
    assert np.abs(got - wider[inside])[edge].mean() < 0.3 * np.abs(zeros - wider[inside])[edge].mean()


class Layered(Plain):
    """Planes with two above and below, each of which counts otherwise."""

    def geometry(self, net: Any, fit: Any, config: Config) -> Geometry:
        return replace(super().geometry(net, fit, config), context=2)

    def restore(self, net: nn.Module, tile: Tensor, fit: Any, config: Config) -> dict[str, Tensor]:
        planes = len(tile) - 4
        mixed = sum(((n + 1) ** 2 * tile[n : n + planes] for n in range(5)), start=torch.zeros_like(tile[4:]))
        return super().restore(net, mixed, fit, config)


@given(planes=st.integers(1, 9), core=st.integers(1, 9), block=st.integers(1, 9), data=st.data())
@settings(max_examples=20)
def test_a_plane_is_given_its_neighbours_whatever_the_tiles(
    planes: int, core: int, block: int, data: st.DataObject
) -> None:
    volume, net = noise(planes, 24, 24), net_of()
    plan = plan_of(volume.shape, net, Layered(), block=(block, 24, 24))
    padded = np.pad(volume, ((2, 2), (0, 0), (0, 0)), "reflect" if planes > 1 else "edge")
    mixed = sum((n + 1) ** 2 * padded[n : n + planes] for n in range(5))
    expected, _ = run(mixed, net, Plain())
    z = data.draw(st.integers(0, planes - 1))
    box = (slice(z, data.draw(st.integers(z + 1, planes))), slice(0, 24), slice(3, 20))
    got, done = run(volume, net, Layered(), plan=replace(plan, core=(core, 24, 24)), box=box)
    np.testing.assert_allclose(got, expected[box], atol=1e-4 * np.ptp(mixed))
    assert done.plan.work >= 1


@pytest.mark.parametrize("dims", [2, 3])
def test_a_voxel_is_the_same_whatever_box_is_asked_for(dims: int) -> None:
    volume, net, task = noise(9, 45, 50), net_of(dims=dims), Plain(dims)
    plan = plan_of(volume.shape, net, task, tile_limit(10_000), block=(4, 20, 50))
    whole, _ = run(volume, net, task, plan=plan)
    for box in (np.s_[0:4, 20:40, 0:50], np.s_[3:8, 17:41, 13:14], np.s_[8:9, 40:45, 30:50]):
        part, _ = run(volume, net, task, plan=plan, box=box)
        assert np.array_equal(part, whole[box])


def test_a_box_is_read_once_with_its_halo() -> None:
    read: list[tuple[slice, ...]] = []

    class Counted(np.ndarray):
        def __getitem__(self, key: Any) -> Any:
            read.append(key)
            return np.asarray(self)[key]

    volume, net, task = noise(9, 60, 50), net_of(), Plain()
    plan = plan_of(volume.shape, net, task, tile_limit(3_000), block=(4, 20, 50))
    run(volume.view(Counted), net, task, plan=plan, box=np.s_[0:4, 20:40, 0:50])
    [(z, y, x)] = read
    assert (z, x) == (slice(0, 4), slice(0, 50))
    assert y.start < 20
    assert y.stop > 40


def test_planes_of_one_tile_do_not_know_each_other() -> None:
    volume = noise(6, 32, 32)
    together, done = run(volume)
    alone = np.concatenate([run(volume[z : z + 1])[0] for z in range(6)])
    assert done.plan.core[0] == 6
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_an_ensemble_gives_the_mean_of_its_networks() -> None:
    nets, volume, out = [net_of(1), net_of(2)], noise(2, 40, 40), np.empty((2, 40, 40), np.float32)

    class Both(Plain):
        def geometry(self, net: Any, fit: Any, config: Config) -> Geometry:
            return super().geometry(nets[1], fit, config)

    predict_pass(Both(), nets, volume, None, Config(), out=out)  # type: ignore[arg-type]
    each = [run(volume, net, Both())[0] for net in nets]
    np.testing.assert_allclose(out, np.mean(each, axis=0), atol=1e-5)


# The plan


@pytest.mark.parametrize("dims", [2, 3])
def test_planes_are_restored_in_several_orientations(dims: int) -> None:
    net, task, volume = net_of(2, dims), Plain(dims), noise(4, 40, 56)

    def restored(image: Volume, orientations: int) -> Volume:
        # Of whole numbers of steps, so that all orientations are extended alike.
        limit = tile_limit(2048 if dims == 2 else 2**16, orientations=orientations)
        return run(np.ascontiguousarray(image), net, task, limit)[0]

    half = slice(None), slice(None, None, -1), slice(None, None, -1)
    mirrored = slice(None), slice(None), slice(None, None, -1)
    alone = restored(volume, 1)
    assert np.abs(alone - restored(volume[half], 1)[half]).max() > 1e-2, "the network knows no direction"
    np.testing.assert_allclose(restored(volume, 2), (alone + restored(volume[half], 1)[half]) / 2, atol=1e-5)
    both = restored(volume, 2), restored(volume[mirrored], 2)[mirrored]
    np.testing.assert_allclose(restored(volume, 4), (both[0] + both[1]) / 2, atol=1e-5)
    np.testing.assert_allclose(restored(volume, 4), restored(volume[mirrored], 4)[mirrored], atol=1e-5)
    turned = np.rot90(restored(np.rot90(volume, 1, (1, 2)), 8), -1, (1, 2))
    np.testing.assert_allclose(restored(volume, 8), turned, atol=1e-5)
    assert np.abs(restored(volume, 8) - restored(volume, 4)).max() > 1e-3


def test_a_plan_is_plain_numbers_and_comes_back_from_json() -> None:
    plan = plan_of((20, 100, 100), net_of(), Plain(), block=(8, 64, 64))
    assert Plan.decode(json.loads(json.dumps(plan.encode()))) == plan
    assert "\n" not in plan.describe()


def test_less_memory_gives_smaller_tiles_that_are_expected_to_fit() -> None:
    net, shape = net_of(), (50, 400, 400)
    plans = [plan_of(shape, net, Plain(), memory=FIXED + extra) for extra in (10**6, 10**7, 10**8)]
    sizes = [int(np.prod(plan.read)) for plan in plans]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    assert all(plan.peak <= plan.memory for plan in plans)


def test_too_little_memory_names_the_least_that_works() -> None:
    with pytest.raises(InputError, match=r"the least that works is --memory (\d+)MB") as caught:
        plan_of((50, 400, 400), net_of(depth=3), Plain(), memory=10**6)
    assert "\n" not in str(caught.value)


def test_memory_is_measured_with_the_network_itself() -> None:
    def voxel_bytes(features: int) -> float:
        plan = plan_of((1, 512, 512), net_of(features=features, bias=False), Plain())
        return (plan.peak - FIXED) / 512**2

    # Every feature map of the first level is four bytes per voxel, and several are alive at once.
    assert 4 * 16 * 2 < voxel_bytes(32) - voxel_bytes(16) < 4 * 16 * 10


def test_a_small_job_is_not_compiled_and_computed_in_float32() -> None:
    plan = plan_of((4, 64, 64), net_of(), Plain())
    assert (plan.compiled, plan.precision) == (False, "float32")
    with pytest.raises(InputError, match="accepted on the processor: auto, float32, bfloat16"):
        plan_of((4, 64, 64), net_of(), Plain(), tile_limit(1024, precision="float16"))


# Precision


def test_the_error_of_a_reduced_precision_is_measured_and_told() -> None:
    told: list[Event] = []
    volume, net = noise(1, 64, 64) + 5, net_of(2)
    exact, plainly = run(volume, net)
    reduced, done = run(volume, net, config=tile_limit(10**5, precision="bfloat16"), progress=told.append)
    assert plainly.error is None
    assert done.error is not None
    difference = (reduced - exact).astype(np.float64)
    # What is measured has the mirrored rim beside the volume.
    assert done.error.rms == pytest.approx(np.sqrt((difference**2).mean()) / exact.std(), rel=0.1)
    assert done.error.largest == pytest.approx(np.abs(difference).max() / exact.std(), rel=0.1)
    assert 0 < done.error.rms < 2**-6
    assert [e.values["message"] for e in told if e.stage == "precision"] == [done.error.describe()]


class Overflowing(Plain):
    """Its reduced precision cannot hold values above 100, as float16 cannot above 65,504."""

    def restore(self, net: nn.Module, tile: Tensor, fit: Any, config: Config) -> dict[str, Tensor]:
        reduced = torch.is_autocast_enabled("cpu")
        return {"mean": torch.where(tile > 100, torch.inf, tile + 1) if reduced else tile + 1}


def test_tiles_that_overflow_float16_are_computed_in_float32() -> None:
    volume = noise(8, 16, 16)
    volume[5, 3, 3] = 1000
    plan = plan_of(volume.shape, net_of(), Overflowing(), tile_limit(1024))
    out, done = run(volume, task=Overflowing(), plan=replace(plan, core=(1, 16, 16), precision="float16"))
    assert done.overflowed == 1
    assert np.array_equal(out, volume + 1)


def test_a_network_without_residual_gives_float32_too() -> None:
    volume = noise(1, 32, 32)
    out, done = run(volume, net_of(residual=False), config=tile_limit(2048, precision="bfloat16"))
    assert done.error is not None
    assert 0 < done.error.rms < 0.05
    assert np.isfinite(out).all()


# What goes wrong


def test_a_network_that_cannot_be_compiled_works_without(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("no compiler\nand much more")

    volume, net, told = noise(4, 32, 32), net_of(), []
    expected, _ = run(volume, net)
    monkeypatch.setattr(torch, "compile", lambda module: Failing())
    plan = replace(plan_of(volume.shape, net, Plain()), core=(1, 32, 32), compiled=True)
    got, _ = run(volume, net, plan=plan, progress=told.append)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert [e.values for e in told if e.stage == "compile"] == [{"message": "goes on without compiling: no compiler"}]


class Short(Plain):
    """Has memory for tiles of so many voxels, and says so in many ways."""

    def __init__(self, voxels: int, error: Exception) -> None:
        super().__init__()
        self.voxels, self.error, self.seen = voxels, error, []

    def restore(self, net: nn.Module, tile: Tensor, fit: Any, config: Config) -> dict[str, Tensor]:
        self.seen.append(tuple(tile.shape))
        if tile.numel() > self.voxels:
            raise self.error
        return super().restore(net, tile, fit, config)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 5 bytes"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 5 bytes"),
        RuntimeError("upsample_nearest3d only supports output tensors with less than INT_MAX elements"),
    ],
)
def test_out_of_memory_halves_batch_then_tile_and_goes_on(error: Exception) -> None:
    volume, net, told = noise(8, 64, 64), net_of(), []
    plan = plan_of(volume.shape, net, Plain())
    expected, _ = run(volume, net)
    got, done = run(volume, net, Short(3000, error), plan=plan, progress=told.append)
    assert np.abs(got - expected).max() < 1e-5 * np.ptp(volume)
    assert done.plan.core[0] == 1
    assert 64 in done.plan.core
    assert 32 in done.plan.core
    messages = [e.values["message"] for e in told if "message" in e.values]
    assert len(messages) == 4  # 4, 2, 1 planes, then half of one
    assert all("memory ran out" in str(m) and "\n" not in str(m) for m in messages)
    assert told[-1].done == told[-1].total


def test_after_out_of_memory_finished_tiles_are_kept() -> None:
    volume, net = noise(8, 32, 32), net_of()

    class Later(Short):
        """Its memory shrinks after three tiles."""

        def restore(self, net: nn.Module, tile: Tensor, fit: Any, config: Config) -> dict[str, Tensor]:
            self.voxels = 2 * 36 * 36 if len(self.seen) < 3 else 36 * 36
            return super().restore(net, tile, fit, config)

    task = Later(2 * 36 * 36, MemoryError())
    plan = replace(plan_of(volume.shape, net, Plain()), core=(2, 32, 32))
    got, _ = run(volume, net, task, plan=plan)
    assert task.seen == [(2, 36, 36)] * 4 + [(1, 36, 36)] * 2
    np.testing.assert_allclose(got, run(volume, net)[0], atol=1e-5)


def test_when_not_even_the_smallest_tile_fits_the_way_out_is_said() -> None:
    with pytest.raises(InputError, match="another --device") as caught:
        run(noise(4, 32, 32), task=Short(0, MemoryError()))
    assert "\n" not in str(caught.value)


class Broken:
    """A volume that cannot be read, or written, from some plane on."""

    shape = (8, 32, 32)

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getitem__(self, key: Any) -> Volume:
        if key[0].stop > 5:
            raise self.error
        return noise(*self.shape)[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        if key[0].stop > 5:
            raise self.error


@pytest.mark.parametrize("error", [OSError("disk"), InputError("bad chunk"), ValueError("defect")])
def test_errors_of_reading_and_writing_come_out_as_they_are(error: Exception) -> None:
    broken, net, before = Broken(error), net_of(), threading.active_count()
    plan = replace(plan_of(broken.shape, net, Plain()), core=(1, 32, 32))
    for volume, out in ((broken, np.empty(broken.shape)), (noise(8, 32, 32), broken)):
        with pytest.raises(type(error)) as caught:
            predict_pass(Plain(), [net], volume, None, Config(), out=out, plan=plan)  # type: ignore[arg-type]
        assert caught.value is error
    assert threading.active_count() == before


def test_other_runtime_errors_are_not_taken_for_memory() -> None:
    task, volume = Short(0, RuntimeError("shapes do not match")), noise(2, 32, 32)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        run(volume, task=task, plan=plan_of(volume.shape, net_of(), Plain()))
    assert len(task.seen) == 1


class Slow(nn.Module):
    """A network of twenty layers of a tenth of a second."""

    halo, step = 0, 1

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Sleep() for _ in range(20))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class _Sleep(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.1)
        return x


def test_cancelling_stops_within_a_long_tile() -> None:
    began = time.monotonic()

    def stop(event: Event) -> None:
        raise Cancelled("stop")

    volume = noise(1, 16, 16)
    plan = plan_of(volume.shape, net_of(), Plain())
    with pytest.raises(Cancelled):
        run(volume, Slow(), Plain(), plan=plan, progress=stop)
    assert time.monotonic() - began < 1.5


def test_reading_and_writing_happen_while_computing() -> None:
    class Lazy:
        shape = (6, 8, 8)

        def __getitem__(self, key: Any) -> Volume:
            time.sleep(0.03)
            return noise(*self.shape)[key]

        def __setitem__(self, key: Any, value: Any) -> None:
            time.sleep(0.03)

    class Steady(Plain):
        def restore(self, net: nn.Module, tile: Tensor, fit: Any, config: Config) -> dict[str, Tensor]:
            time.sleep(0.03)
            return {"mean": tile}

    plan = replace(plan_of(Lazy.shape, net_of(), Plain()), core=(1, 8, 8))
    began = time.perf_counter()
    done = predict_pass(Steady(), [net_of()], Lazy(), None, Config(), out=Lazy(), plan=plan)  # type: ignore[arg-type]
    took = time.perf_counter() - began
    spent = done.seconds.read + done.seconds.compute + done.seconds.write
    assert spent >= 18 * 0.03
    assert took < 0.8 * spent


def test_a_slow_read_gives_signs_of_life_and_can_be_cancelled() -> None:
    class Slow:
        shape = (4, 8, 8)

        def __getitem__(self, key: Any) -> Volume:
            time.sleep(0.6)
            return noise(*self.shape)[key]

    def progress(event: Event) -> None:
        raise Cancelled

    began = time.perf_counter()
    with pytest.raises(Cancelled):
        predict_pass(
            Plain(), [net_of()], Slow(), None, Config(),
            out=np.empty(Slow.shape, np.float32), progress=progress, plan=plan_of(Slow.shape, net_of(), Plain()),
        )  # type: ignore[arg-type] # fmt: skip
    assert time.perf_counter() - began < 0.9


def test_a_box_too_large_for_the_memory_is_read_tile_by_tile() -> None:
    volume, net = smooth(6, 32, 32), net_of()

    class Tight:
        shape = volume.shape

        def __getitem__(self, key: Any) -> Volume:
            if prod(k.stop - k.start for k in key) > volume.size // 2:
                raise MemoryError
            return volume[key]

    box = (slice(0, 6), slice(0, 32), slice(0, 32))
    plan = replace(plan_of(volume.shape, net, Plain()), core=(2, 32, 32))
    out, expected = np.empty_like(volume), np.empty_like(volume)
    predict_pass(Plain(), [net], volume, None, Config(), out=expected, plan=plan)  # type: ignore[arg-type]
    predict_pass(Plain(), [net], Tight(), None, Config(), out=out, box=box, plan=plan)  # type: ignore[arg-type]
    np.testing.assert_array_equal(out, expected)


def test_the_thread_that_reads_lets_idle_threads_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    name = "deepcontrast.prediction.pipeline.let_idle_threads_sleep"
    monkeypatch.setattr(name, lambda: names.append(threading.current_thread().name))
    run(smooth(4, 16, 16), net_of())
    assert [called.split("_")[0] for called in names] == ["read"]


# Seams


def smooth(*shape: int) -> Volume:
    z, y, x = np.meshgrid(*[np.linspace(0, 6, n) for n in shape], indexing="ij")
    return (5 + np.sin(z) + np.sin(2 * y) + np.cos(3 * x)).astype(np.float32) + 0.05 * noise(*shape)


@pytest.mark.parametrize("dims", [2, 3])
def test_exact_tiles_leave_no_seam_and_tiles_without_halo_are_flagged(dims: int) -> None:
    volume, net = smooth(16, 48, 48), net_of(dims=dims, features=8, residual=False)
    plan = replace(plan_of(volume.shape, net, Plain(dims)), core=(8, 16, 16))
    _, exact = run(volume, net, Plain(dims), plan=plan)
    _, without = run(volume, net, Plain(dims, halo=0), plan=plan)
    assert max(r for r in exact.seam.ratio() if r is not None) < 3
    assert min(r for r in without.seam.ratio()[3 - dims :] if r is not None) > 3
    assert None not in exact.seam.ratio()


def test_seams_of_two_boxes_add_up() -> None:
    volume, net = smooth(8, 64, 64), net_of()
    plan = replace(plan_of(volume.shape, net, Plain(), block=(4, 64, 64)), core=(4, 16, 16))
    boxes = np.s_[0:4, 0:64, 0:64], np.s_[4:8, 0:64, 0:64]
    first, second = (run(volume, net, plan=plan, box=box)[1].seam for box in boxes)
    whole = run(volume, net, plan=plan)[1].seam
    assert (first + second).across[1:] == pytest.approx(whole.across[1:])
    assert first.ratio()[0] is None
    assert whole.ratio()[0] is not None
