"""Ways to break tensors by name: safetensors, NumPy archives, and indices of several files."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np

from .case import Break, Place
from .trees import changed_tree
from .zips import Member, members, written


def _header(content: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _joined(header: Any, numbers: bytes, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode("utf-8", "surrogatepass")
    return (len(text) if length is None else length).to_bytes(8, "little") + text + numbers


def wrong_length(content: bytes, rng: Random, place: Place) -> bytes:
    header, numbers = _header(content)
    return _joined(
        header, numbers, rng.choice((0, 1, 7, 100, len(content), len(content) + 1, 2**27 - 1, 2**63, 2**64 - 1))
    )


def wrong_tensor(content: bytes, rng: Random, place: Place) -> bytes:
    """Offsets that overlap, run backwards or beyond; shapes of other sizes; types that there are not."""
    header, numbers = _header(content)
    for _ in range(rng.choice((1, 2))):
        entry = header[rng.choice([key for key in header if key != "__metadata__"])]
        absurd = rng.choice((-1, 0, 1, 3, 2**31, 2**62, 2**63, 2**64, 1e300, None, "9", len(numbers)))
        match rng.choice(("start", "end", "shape", "dtype", "gone", "more")):
            case "start":
                entry["data_offsets"] = [absurd, *entry.get("data_offsets", [0, 0])[1:]]
            case "end":
                entry["data_offsets"] = [*entry.get("data_offsets", [0, 0])[:1], absurd]
            case "shape":
                entry["shape"] = [absurd] * rng.choice((1, 2, 5, 1000))
            case "dtype":
                entry["dtype"] = rng.choice(
                    ("F64", "BOOL", "F8_E4M3", "F4", "C64", "X", "", None, "BF16", "U16", "U64")
                )
            case "gone":
                entry.pop(rng.choice(("dtype", "shape", "data_offsets")), None)
            case _:
                header[rng.choice(("a\nb", "\x1b[2J", "x" * 10_000, "", "__metadata__"))] = dict(entry)
    return _joined(header, numbers)


def other_header(content: bytes, rng: Random, place: Place) -> bytes:
    header, numbers = _header(content)
    return _joined(changed_tree(header, rng, place), numbers)


def odd_header(content: bytes, rng: Random, place: Place) -> bytes:
    """No header: too deep, twice the same key, not text, or none."""
    _, numbers = _header(content)
    deep = rng.choice((100, 100_000))
    twice = b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'
    options = (
        b'{"a":' + b"[" * deep,
        b'{"a":' * deep,
        b"{}",
        b"{",
        b"{\xff\xfe}",
        b'{"a":NaN}',
        twice,
        b"{" + b" " * 10**6,
    )
    return _joined(rng.choice(options), numbers)


def other_facts(content: bytes, rng: Random, place: Place) -> bytes:
    """The JSON within the metadata of a file of dendrites."""
    header, numbers = _header(content)
    told = header["__metadata__"]
    key = next(iter(told))
    told[key] = json.dumps(changed_tree(json.loads(told[key]), rng, place))
    return _joined(header, numbers)


SAFETENSORS: tuple[Break, ...] = (wrong_length, *(wrong_tensor,) * 3, *(other_header,) * 2, odd_header)


def _described(array: np.ndarray, **facts: str) -> bytes:
    """An array's member whose header says something else."""
    told = {"descr": f"'{array.dtype.str}'", "fortran_order": "False", "shape": str(array.shape), **facts}
    text = "{" + ", ".join(f"'{key}': {value}" for key, value in told.items()) + ", }"
    head = text.encode("latin1", "replace") + b"\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + array.tobytes()


def _absurd_shape(array: np.ndarray, rng: Random, place: Place) -> bytes:
    options = (
        "(2**40,)",
        f"({2**40},)",
        f"({2**31}, {2**31})",
        "(-1,)",
        "()",
        "(0, 5)",
        "12",
        "(1e9,)",
        "None",
        "(12, True)",
    )
    return _described(array, shape=rng.choice((*options, "(" + "1, " * 40 + ")", f"({2**63},)", "(12, 10000000000)")))


def _absurd_type(array: np.ndarray, rng: Random, place: Place) -> bytes:
    options = (
        "'|O'",
        "'<M8[s]'",
        "'|S9999999999'",
        "'<U2147483647'",
        "[('a', '<f4')]",
        "'<c16'",
        "'<f2'",
        "'x'",
        "[]",
        "'|V8'",
    )
    return _described(
        array, descr=rng.choice((*options, "[('a', '<f4', (99999999, 99999))]", "'|b1'", "'>i8'", "'<g'"))
    )


def _code_in_header(array: np.ndarray, rng: Random, place: Place) -> bytes:
    code = f"__import__('os').system('touch {place.marker}')"
    options = ({"shape": code}, {"descr": code}, {"shape": "(" * 100 + ")" * 100}, {"shape": "[" * 50_000}, {"a": "1"})
    return _described(array, **rng.choice((*options, {"shape": "9" * 5000}, {"shape": "()" + "\n" * 9})))


def _objects(array: np.ndarray, rng: Random, place: Place) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def _other_array(array: np.ndarray, rng: Random, place: Place) -> bytes:
    """A good array that is not what it should be."""
    odd = [np.nan, np.inf, -1, 2**62, 1e308, 0.5]
    options: tuple[Any, ...] = (
        np.array(3),
        np.zeros((0, 4)),
        array.astype(np.float64) * np.nan,
        np.full(array.shape, rng.choice(odd)),
        array[: rng.randrange(3)],
        np.array(["a", "b"] * 6),
        array.astype(np.complex64),
        np.zeros((12, 0, 3)),
        np.zeros((12, *(1,) * 30)),
        np.full(12, 10**12),
        np.full(12, np.iinfo(np.int64).min),
        np.full(12, np.iinfo(np.uint64).max, dtype=np.uint64),
        np.zeros(12, dtype="datetime64[s]"),
        array.astype(np.float16),
        np.array([-5, 7] * 6),
    )
    buffer = io.BytesIO()
    np.save(buffer, rng.choice(options))
    return buffer.getvalue()


def _of_array(change: Callable[[np.ndarray, Random, Place], bytes]) -> Break:
    def changed(content: bytes, rng: Random, place: Place) -> bytes:
        parts = members(content)
        at = rng.randrange(len(parts))
        array = np.load(io.BytesIO(parts[at].content))
        parts[at] = replace(parts[at], content=change(array, rng, place))
        return written(parts)

    changed.__name__ = change.__name__.lstrip("_")
    return changed


def more_arrays(content: bytes, rng: Random, place: Place) -> bytes:
    parts = members(content)
    names = (
        b"\x1b[2J_train.npy",
        b"a\nb_train.npy",
        b"../x_train.npy",
        b"x_train",
        b"_train.npy",
        b"c_test.npy",
        b"y_test.npy",
    )
    parts.append(Member(rng.choice(names), rng.choice(parts).content))
    return written(parts)


_ARRAYS = (_absurd_shape, _absurd_type, _code_in_header, _objects, _other_array, _other_array)
ARRAYS: tuple[Break, ...] = (*map(_of_array, _ARRAYS), more_arrays)


def other_index(content: bytes, rng: Random, place: Place) -> bytes:
    """An index of files that are elsewhere, not there, or that is no index.

    Links in the folder are followed: the cache of Hugging Face's hub is made of them.
    """
    index = json.loads(content)
    beyond = (
        "../outside/secret.bin",
        str(place.secret),
        "../../etc/passwd",
        "link",
        ".",
        "",
        "net.safetensors.index.json",
    )
    if rng.random() < 0.5:
        name = rng.choice([*index["weight_map"]])
        index["weight_map"][name] = rng.choice(
            (*beyond, "gone.safetensors", "a\nb", "x" * 5000, "0.SAFETENSORS", None, 3)
        )
    else:
        index = changed_tree(index, rng, place)
    return json.dumps(index).encode()


INDICES: tuple[Break, ...] = (other_index,)
