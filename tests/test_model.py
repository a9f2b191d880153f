"""The model file: the same bytes for the same model, and no damaged file is ever loaded."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepcontrast.config import Config
from deepcontrast.errors import InputNotFoundError, ModelFileError
from deepcontrast.model import Channel, Model, load_model, load_tensors, save_model, save_tensors


def model() -> Model:
    weights = {"down.0.weight": torch.arange(6.0).reshape(2, 3), "step": torch.tensor(3.0)}
    arrays = {"pattern": np.arange(4, dtype=np.float32).reshape(2, 2)}
    copy = {name: tensor.clone() for name, tensor in weights.items()}
    channel = Channel("actin", {"gain": 0.23}, arrays, (weights, copy))
    return Model("contrast", Config(), (channel,), {"version": "1"})


def test_a_model_comes_back_as_it_was(tmp_path: Path) -> None:
    save_model(tmp_path / "m.safetensors", model())
    back = load_model(tmp_path / "m.safetensors")
    assert (back.task, back.config, back.provenance) == ("contrast", Config(), {"version": "1"})
    [channel] = back.channels
    assert (channel.name, channel.fit, len(channel.members)) == ("actin", {"gain": 0.23}, 2)
    np.testing.assert_array_equal(channel.arrays["pattern"], model().channels[0].arrays["pattern"])
    for name, tensor in model().channels[0].members[1].items():
        assert torch.equal(channel.members[1][name], tensor)


def test_the_same_model_gives_the_same_bytes_and_names_no_path(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_model(tmp_path / name, model())
    data = (tmp_path / "a").read_bytes()
    assert data == (tmp_path / "b").read_bytes()
    assert str(tmp_path).encode() not in data


def test_the_mode_is_that_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save_model(tmp_path / "m", model())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "m").stat().st_mode) == 0o640


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_one_flipped_bit_is_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("flip") / "m"
    save_model(path, model())
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(ModelFileError):
        load_model(path)


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 0.999))
def test_a_truncated_file_is_refused(tmp_path_factory: pytest.TempPathFactory, share: float) -> None:
    path = tmp_path_factory.mktemp("cut") / "m"
    save_model(path, model())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelFileError):
        load_model(path)


def test_a_newer_format_is_refused_with_the_way_out(tmp_path: Path) -> None:
    table = json.dumps({"format_version": 99})
    (tmp_path / "m").write_bytes(safetensors.torch.save({"a": torch.zeros(1)}, {"deepcontrast": table}))
    with pytest.raises(ModelFileError, match=r"format 99.*update"):
        load_model(tmp_path / "m")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(safetensors.torch.save({"a": torch.zeros(1)}))
    with pytest.raises(ModelFileError, match="not a DeepContrast file"):
        load_model(tmp_path / "m")
    save_tensors(tmp_path / "c", {"a": torch.zeros(1)}, {"checkpoint": {}})
    assert load_tensors(tmp_path / "c")[1]["checkpoint"] == {}
    with pytest.raises(ModelFileError, match="not a DeepContrast model"):
        load_model(tmp_path / "c")
    with pytest.raises(InputNotFoundError, match="no model file"):
        load_model(tmp_path / "missing")
