"""Hostile and broken files of weights: nothing in them runs, and each is refused in one line."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hostile_tools import HOSTILE, Evil, longer, model_file, saved, text
from hypothesis import given, settings
from hypothesis import strategies as st

from graftkit.contracts import SourceRequest
from graftkit.core.errors import SourceError
from graftkit.sources import load


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """A file that any code which runs would make; it must not be there after the test."""
    path = tmp_path / "marker"
    yield path
    assert not path.exists()


def as_weights(path: Path, trust: bool = False) -> str:
    with pytest.raises(SourceError) as caught:
        load(SourceRequest(str(path), arch="torch.nn:Identity", trust=trust))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_weights_run_nothing(tmp_path: Path, marker: Path, name: str, trust: bool) -> None:
    """Under `--trust` neither: weights have no reason to."""
    pickled = longer(HOSTILE[name].replace(b"MARK", b"m@rk"), marker)
    path = model_file(tmp_path / "net.pt", b"\x80\x02}" + text("weight") + pickled[2:-1] + b"s.")
    as_weights(path, trust)
    as_weights(model_file(tmp_path / "whole.pt", pickled), trust)


@pytest.mark.parametrize("key", ["state_dict", "hyper_parameters", "callbacks"])
def test_a_hostile_lightning_checkpoint_runs_nothing(tmp_path: Path, marker: Path, key: str) -> None:
    saved = {"pytorch-lightning_version": "2.5.0", "state_dict": {}} | {key: {"x": Evil(marker)}}
    torch.save(saved, tmp_path / "net.ckpt")
    assert "posix.system, which no weights need" in as_weights(tmp_path / "net.ckpt")


def test_a_class_beside_weights_is_not_called(tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the pickle does with a class that was not imported, it does to an empty stand-in."""
    (tmp_path / "called_net.py").write_text(f"open({str(marker)!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    thing = b"ccalled_net\nThing\n"
    for made in (thing + text("a") + b"\x85R", thing + b")\x81}" + text("a") + text("b") + b"sb", thing):
        pickled = b"\x80\x02}" + text("epoch") + made + b"s" + text("model") + b"}s."
        path = model_file(tmp_path / "net.pt", pickled)
        assert "holds a dict of epoch, model" in as_weights(path)
    assert "called_net" not in sys.modules


def header(content: object, length: int | None = None) -> bytes:
    written = content if isinstance(content, bytes) else json.dumps(content).encode()
    return (len(written) if length is None else length).to_bytes(8, "little") + written


def tensor(shape: list[int], end: int, dtype: str = "F32") -> dict[str, object]:
    return {"weight": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}


@pytest.mark.parametrize(
    "content",
    [
        header(tensor([2**40, 2**40], 8)) + bytes(8),
        header(tensor([2**62, 8], 8)) + bytes(8),
        header(tensor([10**12], 4 * 10**12)) + bytes(8),
        header(tensor([-1], 4)) + bytes(4),
        header(tensor([1], 4, "F99")) + bytes(4),
        header(tensor([1], 8)) + bytes(8),
        header({"weight": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}) + bytes(8),
        header(tensor([2], 8) | {"other": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}) + bytes(12),
        header(tensor([1], 4), 10**7) + bytes(4),
        header(tensor([1], 4), 2**27 - 1) + bytes(4),
        header(tensor([1], 4), 3) + bytes(4),
        header(b'{"a":' * 20_000 + b"1" + b"}" * 20_000),
        header(b'{"weight": "\xff"}'),
        header(b"{" + b" " * 300),
        header({"__metadata__": {"a": {}}}),
    ],
)
def test_a_broken_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.safetensors").write_bytes(content)
    message = as_weights(tmp_path / "net.safetensors")
    assert "cannot be read" in message or "does not fit" in message


@pytest.mark.parametrize("length", [2**27, 2**40, 2**63, 2**64 - 1])
def test_a_header_longer_than_the_format_allows_is_no_safetensors(tmp_path: Path, length: int) -> None:
    (tmp_path / "net.safetensors").write_bytes(header(tensor([1], 4), length) + bytes(4))
    assert "neither a state dict of torch.save nor a safetensors" in weights_refusal(tmp_path / "net.safetensors")


def weights_refusal(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        load(SourceRequest("torch.nn:Identity", path))
    return str(caught.value)


SAFETENSORS = header(tensor([2, 3], 24)) + bytes(24)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(SAFETENSORS) - 1), st.integers(0, 255))
def test_a_changed_safetensors_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, byte: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.safetensors"
    path.write_bytes(SAFETENSORS[:place] + bytes([byte]) + SAFETENSORS[place + 1 :])
    as_weights(path)  # Identity takes no weights: what can be read does not fit


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", 3, "a\0b"])
def test_an_index_names_no_file_outside_its_folder(tmp_path: Path, name: object) -> None:
    (tmp_path / "net.index.json").write_text(json.dumps({"weight_map": {"weight": name}}))
    assert "not a file beside it" in as_weights(tmp_path / "net.index.json")


def test_an_index_may_name_a_file_longer_than_any_name(tmp_path: Path) -> None:
    (tmp_path / "net.index.json").write_text(json.dumps({"weight_map": {"weight": "x" * 100_000}}))
    message = as_weights(tmp_path / "net.index.json")
    assert "which is not beside it" in message and len(message) < 1000


@pytest.mark.parametrize(
    "content", ["{", "{}", '{"weight_map": 3}', '{"weight_map": {}}', '{"weight_map": {"a": []}}', "{" * 100_000]
)
def test_a_broken_index_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "net.index.json").write_text(content)
    message = as_weights(tmp_path / "net.index.json")
    assert "is no index of weights" in message or "names no files" in message


def test_a_view_of_terabytes_over_one_number_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1).expand(2**40), "bias": torch.zeros(3)}, tmp_path / "net.pt")
    with pytest.raises(SourceError, match=r"again and again, 4398046511100 bytes of them"):
        load(
            SourceRequest(
                "torch.nn:Linear", tmp_path / "net.pt", arch_args=(("in_features", "4"), ("out_features", "3"))
            )
        )


def test_a_checkpoint_that_unpacks_to_far_more_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", b"\x80\x02}.")
        with archive.open("net/data/0", "w") as member:
            for _ in range(400):
                member.write(bytes(2**20))
    assert "do not use it" in as_weights(path)


def test_deep_nesting_is_read_or_refused(tmp_path: Path) -> None:
    for count in (1_000, 100_000):
        for made in (b"}" + text("a"), b"]", b"("):
            pickled = b"\x80\x02}" + text("hyper_parameters") + made * count + b"N" + b"s" * count + b"s."
            as_weights(model_file(tmp_path / "net.pt", pickled))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_changed_checkpoint_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    saved_state = {"pytorch-lightning_version": "2", "state_dict": {"w": torch.ones(2)}, "hyper_parameters": {"a": 1}}
    pickled = zipfile.ZipFile(io.BytesIO(saved(saved_state))).read("archive/data.pkl")
    place, byte = data.draw(st.integers(0, len(pickled) - 1)), data.draw(st.integers(0, 255))
    changed_pickle = pickled[:place] + bytes([byte]) + pickled[place + 1 :]
    as_weights(model_file(tmp_path_factory.getbasetemp() / "changed.ckpt", changed_pickle))
