"""What a pickle may call while it is loaded: nothing that allocates, counts or takes apart more than its file holds."""

from __future__ import annotations

import inspect
import sys
import time
import tracemalloc
import warnings
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile_tools import model_file, text
from torch import nn

from graftkit.contracts import SourceRequest
from graftkit.core.errors import SourceError
from graftkit.sources import load
from graftkit.sources.allowed_globals import ALLOWED_GLOBALS
from graftkit.sources.pickle_calls import check_calls
from graftkit.sources.pickle_opcodes import MOST_OPCODES
from graftkit.sources.pickle_rules import LAYERS
from graftkit.sources.pickle_safety import load_restricted

NUMBERS = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x04tQ"
ARCH = "torch.nn:Identity"


def number(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def named(name: str) -> bytes:
    module, _, last = name.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def tensor(size: int, stride: int, storage: bytes = NUMBERS) -> bytes:
    shape = number(size) + b"\x85" + number(stride) + b"\x85"
    return named("torch._utils._rebuild_tensor_v2") + b"(" + storage + b"K\x00" + shape + b"\x89N" + b"tR"


# A parameter is around a tensor; a device has a number; sizes are numbers, and allocate nothing.
HARMLESS = {
    ("torch.nn.parameter.Parameter", tensor(10**7, 0)),
    ("torch._utils._rebuild_parameter", tensor(10**7, 0)),
    ("torch.device", number(10**9)),
    ("torch.device", number(10**9) * 2),
    ("torch.Size", b"(" + number(10**9) + b"t"),
}


def refused(tmp_path: Path, value: bytes) -> str:
    """What is said of it as a model, as weights, and in the form from before torch 1.6; and quickly, taking little."""
    body = b"\x80\x02}" + text("model") + value + b"s."
    said = ""
    for kind in ("model", "weights", "legacy"):
        path = model_file(tmp_path / "net.pt", body)
        if kind == "legacy":
            empty = tmp_path / "empty.pt"
            torch.save({}, empty, _use_new_zipfile_serialization=False)
            path.write_bytes(empty.read_bytes().replace(b"\x80\x02}q\x00.", body))
        tracemalloc.start()
        began = time.process_time()
        with pytest.raises(SourceError) as caught:
            load(SourceRequest(str(path), arch=None if kind == "model" else ARCH))
        assert time.process_time() - began < 5
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
        tracemalloc.stop()
        said = str(caught.value)
        assert "\n" not in said and "net.pt" in said
    return said


@pytest.mark.parametrize("layer", sorted(LAYERS))
def test_a_layer_is_never_called(layer: str) -> None:
    for ending in (b"R", b"\x81"):
        with pytest.raises(SourceError, match="makes a layer anew"):
            check_calls(b"\x80\x02" + named(layer) + b"(" + number(1) * 2 + b"t" + ending + b".", "net.pt", 1000)


@pytest.mark.parametrize("name", sorted(ALLOWED_GLOBALS - LAYERS))
def test_no_allowed_name_takes_a_size_or_a_tensor_to_take_apart(name: str) -> None:
    for arguments in (number(10**9), number(10**9) * 2, tensor(10**7, 0), b"(" + number(10**9) + b"t"):
        for ending in (b"R", b"\x81"):
            if (name, arguments) in HARMLESS:
                continue
            with pytest.raises(SourceError):
                check_calls(b"\x80\x02" + named(name) + b"(" + arguments + b"t" + ending + b".", "net.pt", 1000)


HOSTILE = {
    "bytes of a length": (named("builtins.bytearray") + number(10**9) + b"\x85R", "calls builtins.bytearray"),
    "a new byte array": (named("builtins.bytearray") + number(10**9) + b"\x85\x81", "calls builtins.bytearray"),
    "a tensor of a size": (named("torch.Tensor") + number(10**9) + b"\x85R", "calls torch.Tensor"),
    "a typed one": (named("torch.FloatTensor") + number(10**9) + b"\x85R", "calls torch.FloatTensor"),
    "a storage": (named("torch.storage.UntypedStorage") + number(10**9) + b"\x85R", "calls torch.storage.Unty"),
    "the rows of a tensor": (named("builtins.set") + tensor(10**7, 0) + b"\x85R", "calls builtins.set"),
    "rows as keys": (named("collections.OrderedDict") + b"](" + tensor(10**7, 0) + b"e\x85R", "calls collections.Ord"),
    "rows as arguments": (named("builtins.set") + tensor(10**7, 0) + b"R", "what is no list of arguments"),
    "rows as a state": (named("collections.OrderedDict") + b")R" + tensor(10**7, 0) + b"b", "a state that it never"),
    "numbers again and again": (tensor(2**40, 0), "again and again"),
    "many times": (b"](" + tensor(10**7, 0) * 3 + b"e", "again and again"),
    "beyond the storage": (tensor(5, 1), "reaches beyond its storage"),
    "a giant storage": (tensor(4, 1, NUMBERS.replace(b"K\x04t", number(2**40) + b"t")), "larger than what it holds"),
    "a storage that is called so in bytes": (
        tensor(
            4,
            1,
            NUMBERS.replace(text("storage"), named("_codecs.encode") + text("storage") + text("latin1") + b"\x86R"),
        ),
        "larger than what it holds",
    ),
    "through a subclass": (
        named("torch._tensor._rebuild_from_type_v2")
        + b"("
        + named("torch.nn.modules.linear.Linear")
        + named("torch.Tensor")
        + number(30_000)
        + number(30_000)
        + b"\x86}tR",
        "calls torch.nn.modules.linear.Linear",
    ),
    "a slow encoding": (named("_codecs.encode") + text("x") + text("punycode") + b"\x86R", "calls _codecs.encode"),
    "a function of tensors": (
        named("torch.nn.functional.relu") + tensor(10**7, 0) + b"\x85R",
        "calls torch.nn.functional.relu",
    ),
    "a recurrent layer that counts": (
        named("torch.nn.modules.rnn.LSTM")
        + b")\x81}("
        + text("_all_weights")
        + b"]]K\x01aa"
        + text("num_layers")
        + number(10**9)
        + text("bidirectional")
        + b"\x89ub",
        "a state that it never has",
    ),
    "a key that nests": (b"}N" + b"\x85" * 500_000 + b"Ns", "nests tuples"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_file_cannot_fill_is_not_made(tmp_path: Path, name: str) -> None:
    value, said = HOSTILE[name]
    assert said in refused(tmp_path, value)


def test_a_pickle_that_is_nothing_but_long_is_refused(tmp_path: Path) -> None:
    """Sixty megabytes of one opcode pack into sixty kilobytes, and take minutes to walk."""
    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", b"\x80\x02](" + b"N" * 60 * 2**20 + b"e.")
        archive.writestr("net/version", b"3\n")
    for arch in (None, ARCH):
        with pytest.raises(SourceError, match=f"over {MOST_OPCODES} opcodes"):
            load(SourceRequest(str(path), arch=arch))


def examples() -> dict[str, nn.Module]:
    """Each allowed class of this torch, made with the first arguments that it takes."""
    tried: tuple[tuple[Any, ...], ...] = (
        (),
        (4,),
        (4, 4),
        (4, 4, 3),
        (2, 4),
        (4, 2, 4),
        ((2, 2),),
        ((1, 2, 2),),
        (1, (2, 2)),
        (nn.TransformerEncoderLayer(4, 2), 2),
        (nn.TransformerDecoderLayer(4, 2), 2),
    )
    found = {}
    for name in sorted(LAYERS):
        module, _, last = name.rpartition(".")
        kind = getattr(sys.modules[module], last, None)
        for arguments in tried if inspect.isclass(kind) else ():
            try:
                found[name] = kind(*arguments)
                break
            except (TypeError, ValueError, AssertionError, AttributeError):
                continue
    return found


def test_every_layer_is_read_as_torch_saves_it(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = examples()
    assert len(made) > 110
    for name, layer in made.items():
        torch.save(nn.Sequential(layer), tmp_path / "net.pt")
        read = load(SourceRequest(str(tmp_path / "net.pt"))).model
        assert str(read) == str(nn.Sequential(layer)), name
        assert {key: value.shape for key, value in read.state_dict().items()} == {
            key: value.shape for key, value in nn.Sequential(layer).state_dict().items()
        }


def tagged() -> torch.Tensor:
    found = torch.ones(2)
    found.tag = 3  # type: ignore[attr-defined]
    return found


ORDINARY: dict[str, Any] = {
    "a transposed tensor": torch.arange(12).reshape(3, 4).t(),
    "a part of one": torch.ones(10)[3:5],
    "an empty one": torch.zeros(0, 3),
    "one spread out": torch.ones(1, 5).expand(7, 5),
    "one with an attribute": tagged(),
    "bfloat16": torch.zeros(3, dtype=torch.bfloat16),
    "float8": torch.zeros(3).to(torch.float8_e4m3fn),
    "complex": torch.zeros(2, dtype=torch.complex64),
    "a parameter": nn.Parameter(torch.ones(2)),
    "sizes": torch.Size([1, 2]),
    "bytes": b"abc",
    "a byte array": bytearray(b"xyz"),
    "a complex number": 1 + 2j,
    "a device": torch.device("cpu"),
    "a type": torch.float32,
    "a set": {1, 2},
    "a large number": 10**30,
    "nested": [1, [2, {"a": (1, (2, 3))}]],
    "ordered": OrderedDict(a=1),
    "counted": Counter("aab"),
    "a module's state": nn.BatchNorm1d(2).state_dict(),
    "an optimizer's": torch.optim.Adam(nn.Linear(2, 2).parameters()).state_dict(),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_what_checkpoints_hold_is_read(tmp_path: Path, name: str) -> None:
    torch.save({"x": ORDINARY[name]}, tmp_path / "net.pt")
    found = load_restricted(tmp_path / "net.pt", "net.pt")
    assert type(found["x"]) is type(ORDINARY[name])
