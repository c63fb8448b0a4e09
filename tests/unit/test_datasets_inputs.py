"""Data with several inputs, rows as dicts, and labels for each token or pixel."""

from __future__ import annotations

import gc
import io
import pickle
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from torch.nn.functional import cross_entropy
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler, Subset, TensorDataset

from graftkit.contracts import Data
from graftkit.core.errors import DataError
from graftkit.datasets import load_data
from graftkit.datasets.arrays import ArrayPart, ArrayRows
from graftkit.datasets.splitting import SPLIT_WARNING

Arrays = dict[str, np.ndarray]


def read(spec: object, *, seed: int = 0, input_shape: tuple[int, ...] | None = None) -> Data:
    return load_data(str(spec), seed=seed, input_shape=input_shape)


def refusal(spec: object) -> str:
    """The one line that a specification is refused with."""
    with pytest.raises(DataError) as caught:
        read(spec)
    message = str(caught.value)
    assert "\n" not in message
    return message


def tokens(rows: int = 20, part: str = "train", **other: np.ndarray) -> Arrays:
    """An archive of token numbers, a mask and two classes, with other arrays in it or in place of them."""
    numbers = np.arange(rows * 5).reshape(rows, 5) % 7
    made = {f"input_ids_{part}": numbers, f"attention_mask_{part}": numbers > 2, f"y_{part}": np.arange(rows) % 2}
    return {**made, **other}


@pytest.fixture
def save(tmp_path: Path):
    def write(**content: np.ndarray) -> Path:
        np.savez(tmp_path / "data.npz", **content)
        return tmp_path / "data.npz"

    return write


@pytest.fixture
def script(tmp_path: Path):
    """Writes a user's file: `Own` is a dataset of 12 rows, each of them `row`; its function `rows` has this body."""

    def write(body: str, row: str = "0") -> str:
        (tmp_path / "mine.py").write_text(
            "import collections, numpy as np, torch\nfrom torch.utils.data import *\n"
            "class Own(Dataset):\n    def __len__(self): return 12\n"
            f"    def __getitem__(self, i): return {row}\n"
            "def rows():\n" + "".join(f"    {line}\n" for line in body.splitlines())
        )
        return f"{tmp_path / 'mine.py'}:rows"

    return write


# ── archives ─────────────────────────────────────────────────────────────────────────────────────


def test_every_array_of_a_part_is_an_input_by_its_name(save) -> None:
    pixels = np.full((20, 2), 255, np.uint8)
    data = read(save(**tokens(pixels_train=pixels, age_train=np.linspace(0, 1, 20))))
    inputs, target = data.train[0]
    assert {name: (value.dtype, tuple(value.shape)) for name, value in inputs.items()} == {
        "input_ids": (torch.int64, (5,)),
        "attention_mask": (torch.bool, (5,)),
        "pixels": (torch.float32, (2,)),
        "age": (torch.float32, ()),
    }
    assert inputs["pixels"].tolist() == [1, 1] and target.dtype == torch.int64
    assert data.classes == 2
    assert data.warnings == (SPLIT_WARNING,)  # tokens that have a name are meant as tokens
    assert {name: len(value) for name, value in data.example(3).items()} == dict.fromkeys(inputs, 3)


@pytest.mark.parametrize(("name", "single"), [("x", True), ("input_ids", False)])
def test_only_x_alone_has_no_name(save, name: str, single: bool) -> None:
    numbers = np.arange(60).reshape(20, 3)
    data = read(save(**{f"{name}_train": numbers, "y_train": np.arange(20) % 2}))
    assert isinstance(data.train, TensorDataset) == single
    assert isinstance(data.example(), torch.Tensor) == single
    assert any("as tokens" in warning for warning in data.warnings) == single


def test_x_beside_others_is_called_x(save) -> None:
    data = read(save(**tokens(x_train=np.ones((20, 2), bool))), input_shape=(-1, 1, 2))
    inputs, _ = data.train[0]
    assert list(inputs) == ["input_ids", "attention_mask", "x"]
    assert (inputs["x"].dtype, inputs["x"].shape) == (torch.bool, (2,))  # the layout is for a single input


def test_a_split_keeps_inputs_and_labels_together(save) -> None:
    rows = np.arange(20)
    data = read(save(a_train=rows[:, None], b_train=-rows[:, None] * 1.0, y_train=rows % 2), seed=3)
    seen = []
    for part in (data.train, data.validation):
        for inputs, target in DataLoader(part, batch_size=None):
            assert inputs["a"] == -inputs["b"] and inputs["a"] % 2 == target
            seen.append(int(inputs["a"]))
    assert sorted(seen) == rows.tolist() and (len(data.train), len(data.validation)) == (16, 4)


def test_parts_have_the_same_inputs_in_the_same_order(save) -> None:
    held = dict(reversed(tokens(4, "val").items()))
    data = read(save(**tokens(), **held, **tokens(6, "test")))
    assert [len(part) for part in (data.train, data.validation, data.test)] == [20, 4, 6]
    assert list(data.validation[0][0]) == list(data.train[0][0]) == ["input_ids", "attention_mask"]
    assert torch.equal(data.validation.inputs["input_ids"], torch.from_numpy(held["input_ids_val"]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attention_mask_train": np.ones((19, 5))}, "input_ids_train has 20 rows but .*attention_mask_train has 19"),
        ({"y_train": np.arange(19) % 2}, "input_ids_train has 20 rows but .*y_train has 19"),
        (tokens(4, "val", other_val=np.ones((4, 1))), "has other_val but no other_train; give all parts the same"),
        ({"input_ids_val": np.ones((4, 5), int)}, "no attention_mask_val and no y_val; it holds input_ids_train, "),
        ({"y_test": np.arange(4) % 2}, "has no input_ids_test and no attention_mask_test"),
        (tokens(4, "val", input_ids_val=np.ones((4, 6), int)), r"input_ids_train has rows of shape \[5\] but .* \[6\]"),
        (tokens(4, "val", attention_mask_val=np.ones((4, 5))), "mask_train holds bool but attention_mask_val float64"),
        ({"age_train": np.array([np.nan] * 3 + [0.0] * 17)}, "age_train: 3 of 20 rows hold NaN"),
        ({"age_train": np.array(["a"] * 20)}, "age_train holds <U1; give numbers"),
        ({"age_train": np.float32(3)}, "age_train is a single number"),
        ({"age_train": np.ones((20, 0))}, r"age_train \[20, 0\] has rows without a single number"),
        (tokens(1, "test"), "input_ids_test has 1 row;"),
    ],
)
def test_archives_whose_inputs_disagree_are_refused(save, change: Arrays, words: str) -> None:
    path = save(**tokens(20, **change))
    with pytest.raises(DataError, match=words):
        read(path)


def test_what_is_no_part_is_mentioned(save) -> None:
    stray = {"input_ids_valid": np.ones(3), "_train": np.ones(3), "names": np.ones(3)}
    assert "input_ids_valid, _train, names not read; names end in" in read(save(**tokens(**stray))).warnings[0]


DTYPES = st.sampled_from([np.bool_, np.int8, np.uint16, np.int32, np.int64, np.float16, np.float32, np.uint8])
NAMES = st.text("abcxyz_0", min_size=1, max_size=6).filter(lambda name: name != "y")


@st.composite
def archives(draw: st.DrawFn) -> tuple[Arrays, Arrays]:
    """Inputs by name and labels, all of as many rows."""
    rows = draw(st.integers(2, 6))
    inputs = {}
    for name in draw(st.lists(NAMES, min_size=2, max_size=4, unique=True)):
        dtype = np.dtype(draw(DTYPES))
        shape = (rows, *draw(arrays_of.array_shapes(min_dims=0, max_dims=2, max_side=3)))
        finite = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
        inputs[name] = draw(arrays_of.arrays(dtype, shape, elements=arrays_of.from_dtype(dtype, **finite)))
    return inputs, {"y": np.arange(rows)}


@given(archives())
@settings(deadline=None, max_examples=60)
def test_what_an_archive_holds_comes_back_row_by_row(made: tuple[Arrays, Arrays]) -> None:
    inputs, labels = made
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npz"
        parts = {f"{name}_{part}": array for part in ("train", "val") for name, array in {**inputs, **labels}.items()}
        np.savez(path, **parts)
        data = read(path)
    for rows in (data.train, data.validation):
        whole, targets = rows[list(range(len(rows)))]
        assert targets.tolist() == labels["y"].tolist() and whole.keys() == inputs.keys()
        for name, array in inputs.items():
            scale = 255 if array.dtype == np.uint8 else 1
            kind = {"b": torch.bool, "f": torch.float32}.get(array.dtype.kind, torch.int64)
            assert whole[name].dtype == (torch.float32 if array.dtype == np.uint8 else kind)
            np.testing.assert_allclose(whole[name].numpy().astype(np.float64) * scale, array, rtol=1e-6)
            for index in range(len(rows)):
                assert torch.equal(rows[index][0][name], whole[name][index])


# ── rows in memory ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("several", [dict, tuple])
def test_rows_in_memory_are_indexed_once_a_batch(several: type) -> None:
    one, other = torch.arange(10)[:, None], torch.rand(10, 2)
    rows = ArrayRows({"one": one, "other": other} if several is dict else (one, other), torch.arange(10) % 3)
    assert rows.batched and len(rows) == 10
    batches = list(DataLoader(rows, sampler=BatchSampler(SequentialSampler(rows), 4, drop_last=False), batch_size=None))
    assert [len(targets) for _, targets in batches] == [4, 4, 2]
    first = [next(iter(inputs.values())) if several is dict else inputs[0] for inputs, _ in batches]
    assert torch.equal(torch.cat(first), one)
    inputs, targets = Subset(rows, [7, 1, 3])[[0, 2]]
    assert targets.tolist() == [1, 0] and type(inputs) is several


def test_rows_in_memory_can_be_picked() -> None:
    part = ArrayPart({"a": np.arange(6), "b": np.ones((6, 2), bool)}, np.arange(6)).pick(np.array([4, 0]))
    assert part.rows()[1][0]["a"] == 0 and part.targets.tolist() == [4, 0]
    picked = part.rows().pick([1])
    assert len(picked) == 1 and picked[0][1] == 0 and picked[0][0]["b"].tolist() == [True, True]


# ── the user's own function ──────────────────────────────────────────────────────────────────────

NAMED = "{'ids': torch.arange(4) + i, 'mask': np.ones(4, bool)}"


@pytest.mark.parametrize(
    "row",
    [
        f"({NAMED}, i % 2)",
        f"[collections.OrderedDict({NAMED}), i % 2]",
        f"{{**{NAMED}, 'labels': i % 2}}",
        f"{{'label': torch.tensor(i % 2), **{NAMED}}}",
        f"collections.UserDict({NAMED}, labels=np.int32(i % 2))",  # as transformers' BatchEncoding
        "{'ids': [i, i + 1, i + 2, i + 3], 'mask': [True] * 4, 'label': i % 2}",  # as rows of a tokenizer
    ],
)
def test_rows_give_inputs_by_name(script, row: str) -> None:
    data = read(script("return Own(), Own()", row))
    inputs, target = next(iter(DataLoader(data.train, batch_size=3)))
    assert inputs["ids"].tolist() == [[i, i + 1, i + 2, i + 3] for i in range(3)]
    assert (list(inputs), inputs["mask"].dtype) == (["ids", "mask"], torch.bool)
    assert target.tolist() == [0, 1, 0] and (data.classes, data.warnings) == (2, ())
    assert data.example()["ids"].shape == (2, 4)


@pytest.mark.parametrize("form", ["({}, {})", "[{}, {}]"])
def test_rows_give_inputs_in_order(script, form: str) -> None:
    row = f"({form.format('torch.ones(3) * i', 'np.uint8([255])')}, i / 7)"
    data = read(script("return Own(), Own()", row))
    inputs, target = data.train[2]
    assert type(inputs) is tuple and [value.tolist() for value in inputs] == [[2, 2, 2], [1]]
    assert target.dtype == torch.float32
    assert [tuple(value.shape) for value in data.example()] == [(2, 3), (2, 1)]


def test_a_list_of_numbers_is_one_input(script) -> None:
    assert torch.equal(read(script("return Own(), Own()", "([i, i + .5], i % 2)")).example()[1], torch.tensor([1, 1.5]))


def test_a_dataset_that_is_not_torchs_is_read_and_split(script) -> None:
    methods = "__len__ = Own.__len__\n    __getitem__ = Own.__getitem__\n    def __getitems__(self, found): pass"
    body = f"class Theirs:\n    {methods}\nreturn Theirs()"
    data = read(script(body, f"{{**{NAMED}, 'labels': i % 2}}"))
    assert (len(data.train), len(data.validation), data.warnings) == (10, 2, (SPLIT_WARNING,))
    assert data.example()["mask"].shape == (2, 4)


@pytest.mark.parametrize(
    "row",
    [
        f"{{**{NAMED}, 'labels': i % 2}}",
        f"({NAMED}, i % 2)",
        "((torch.arange(4) + i, torch.ones(4).bool()), 1 - i % 2)",
    ],
)
def test_loaders_give_pairs(script, row: str) -> None:
    data = read(script("own = DataLoader(Own(), batch_size=5)\nreturn own, own", row))
    for part in (data.train, data.validation):
        sizes = []
        for inputs, targets in part:
            ids, mask = inputs.values() if isinstance(inputs, dict) else inputs
            assert (ids.dtype, mask.dtype, len(ids)) == (torch.int64, torch.bool, len(targets))
            sizes.append(len(targets))
        assert sizes == [5, 5, 2]
    example = data.example()
    assert [tuple(value.shape) for value in (example.values() if isinstance(example, dict) else example)] == [
        (2, 4)
    ] * 2
    pickle.dumps(data.train.collate_fn)  # a loader's workers need that


def test_the_users_own_loader_is_not_changed(script) -> None:
    spec = script("global mine\nmine = DataLoader(Own())\nreturn mine, mine", f"{{**{NAMED}, 'labels': i % 2}}")
    data = read(spec)
    theirs = sys.modules["graftkit_user_data"].mine
    assert isinstance(next(iter(theirs)), dict) and isinstance(next(iter(data.train)), (tuple, list))


OWN_LOADER = """class Mine(DataLoader):
    def __iter__(self): return iter([{'ids': torch.ones(3, 2), 'labels': torch.arange(3)}])
return Mine(Own()), Mine(Own())"""


@pytest.mark.parametrize(
    ("body", "row", "words"),
    [
        (
            "return Own()",
            "{'ids': i}",
            "train[0] is of type dict; give pairs of (inputs, targets), or name the targets",
        ),
        ("return Own()", "{'ids': i, 'labels': 1, 'label': 2}", "train[0] has both labels and label"),
        ("return Own()", "{'labels': 1}", "train[0] holds labels alone"),
        ("return Own()", "({}, 1)", "train[0] has an empty dict of inputs"),
        ("return Own()", "({3: torch.ones(2)}, 1)", "train[0] has an input called 3; name each input"),
        (
            "return Own()",
            "(torch.ones(2), torch.ones(2), 1)",
            "of type tuple of 3; give pairs of (inputs, targets); several",
        ),
        ("return Own()", "({'text': 'hello'}, 1)", "train[0] input text holds values of type str"),
        ("return Own()", "({'text': ['hello']}, 1)", "train[0] input text holds values of type list"),
        ("return Own()", "({'ids': [[1], [1, 2]]}, 1)", "train[0] input ids is a list whose members differ"),
        ("return Own()", "((torch.ones(2), None), 1)", "train[0] input 1 holds values of type NoneType"),
        ("return Own()", "((torch.ones(2), torch.ones(2) / 0), 1)", "train[0] input 1: 1 of 1 rows hold NaN"),
        (
            "return Own()",
            "({'a': torch.ones(2), 'b': torch.ones(1 + i // 3)}, i % 2)",
            "input b has rows of shapes [1] and [2]",
        ),
        (
            "return Own()",
            "({'a': torch.ones(2) if i else 1 - np.eye(2, dtype=int)[0]}, i)",
            "input a has rows of types int64 and float32",
        ),
        (
            "return Own()",
            "({'a': 1.0, **({'b': 1} if i else {})}, i)",
            "train has rows with inputs (a) and (a, b); give all rows the same inputs",
        ),
        ("return Own()", "({'a': torch.ones(0)}, i)", "train input a, [0] a row, have no numbers"),
        (
            "a = DataLoader(Own())\nreturn a, a",
            "({'a': torch.ones(2).double()}, i)",
            "train gives input a float64 [1, 2], which have",
        ),
        (
            "a = DataLoader(Own())\nreturn a, a",
            "({'a': 'hello'}, i)",
            "train input a holds values of type list; give tensors",
        ),
        ("a = DataLoader(Own())\nreturn a, a", "{'a': torch.ones(2)}", "a batch of"),
        (
            "made = (torch.ones(3), torch.ones(4)), torch.ones(3).long()\n"
            "a = DataLoader(Own(), collate_fn=lambda rows: made)\nreturn a, a",
            "0",
            "has 4 inputs but 3 targets",
        ),
        (OWN_LOADER, "0", "train makes its batches by itself, as dicts"),
        ("return Own(), [Own()]", "({'a': 1.0}, i)", "validation is a value of type list of 1; give a torch Dataset"),
    ],
)
def test_rows_that_no_model_can_be_given_are_refused(script, body: str, row: str, words: str) -> None:
    assert words in refusal(script(body, row))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            "({'a': torch.ones(3)}, i % 2)",
            "train input a has rows of shape [2] but validation [3]; give all parts the same shape",
        ),
        ("({'a': i}, i % 2)", "train input a has rows of shape [2] but validation []"),
        ("({'a': [1, 2]}, i % 2)", "train input a has rows of type float32 but validation int64"),
        ("({'b': torch.ones(2)}, i % 2)", "train has rows with inputs (a) but validation (b)"),
        ("(torch.ones(2), i % 2)", "train has rows with inputs (a) but validation (a single one)"),
    ],
)
def test_parts_whose_rows_differ_are_refused(script, other: str, words: str) -> None:
    body = f"class Other(Own):\n    def __getitem__(self, i): return {other}\nreturn Own(), Other()"
    assert words in refusal(script(body, "({'a': torch.ones(2)}, i % 2)"))


# ── labels for each token or pixel ───────────────────────────────────────────────────────────────


def tagged(rows: int = 20, length: int = 5) -> np.ndarray:
    labels = np.arange(rows * length).reshape(rows, length) % 4
    labels[:, -1] = -100
    return labels


@pytest.mark.parametrize("shape", [(5,), (4, 6)])
@pytest.mark.parametrize("dtype", [np.int16, np.int64])
def test_labels_may_be_left_out_where_a_row_has_several(save, shape: tuple[int, ...], dtype: type) -> None:
    labels = tagged(20, int(np.prod(shape))).reshape(20, *shape).astype(dtype)
    data = read(save(**tokens(y_train=labels)), seed=1)
    targets = torch.cat([data.train.targets, data.validation.targets])
    assert (data.labels, data.classes, targets.dtype, targets.shape) == ("classes", 4, torch.int64, (20, *shape))
    assert int((targets == -100).sum()) == int((labels == -100).sum())
    scores = torch.rand(20, 4, *shape)
    counted = targets != -100
    expected = cross_entropy(scores.movedim(1, -1)[counted], targets[counted])
    assert torch.allclose(cross_entropy(scores, targets), expected)


def test_maps_of_pixels_are_classes(save) -> None:
    maps = (np.arange(20 * 4 * 6).reshape(20, 4, 6) % 3).astype(np.uint8)
    data = read(save(x_train=np.random.RandomState(0).rand(20, 3, 4, 6), y_train=maps))
    inputs, targets = data.train.tensors
    assert (data.classes, targets.dtype, targets.shape) == (3, torch.int64, (16, 4, 6))
    assert torch.isfinite(cross_entropy(torch.nn.Conv2d(3, 3, 1)(inputs), targets))


def test_labels_of_tokens_in_rows_and_batches(script) -> None:
    row = "{'ids': [1, 2, 3], 'labels': [0, 1, -100] if i % 2 else [0, 1, 2]}"
    rows = read(script("return Own(), Own()", row))
    assert (rows.classes, rows.train[1][1].tolist()) == (3, [0, 1, -100])
    row = "({'ids': torch.ones(3)}, torch.tensor([0, 1, -100] if i % 2 else [0, 1, 2]))"
    assert read(script("own = DataLoader(Own(), batch_size=4)\nreturn own, own", row)).classes == 3


def test_a_row_whose_tags_hold_a_single_one_is_not_one_hot(script, save) -> None:
    row = "({'ids': torch.ones(3)}, [1, 0, 0] if i % 2 else [1, 0, 1])"
    assert read(script("return Own(), Own()", row)).classes == 2
    held = tokens(4, "val", y_val=np.eye(5, dtype=int)[:4])
    assert read(save(**tokens(y_train=np.abs(tagged()) % 2), **held)).classes == 2
    assert "train is one-hot, [12, 2]" in refusal(script("return Own(), Own()", "({'ids': 1.0}, [i % 2, 1 - i % 2])"))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (
            np.where(np.arange(20)[:, None] < 16, -1, tagged()),
            "negative labels in 16 of 20 rows; classes count from 0; -100 leaves one",
        ),
        (np.where(np.arange(20) % 2, -100, 1), "negative labels in 10 of 20 rows; classes count from 0$"),
        (np.where(np.arange(20) % 2, -100, 1)[:, None], "negative labels in 10 of 20 rows; classes count from 0$"),
        (np.full((20, 5), -100), "y_train holds only -100"),
        (np.where(tagged() > 0, -100, 0), r"holds only one class \(0\)"),
    ],
)
def test_labels_nothing_can_be_learnt_from_are_refused(save, labels: np.ndarray, words: str) -> None:
    path = save(**tokens(y_train=labels))
    with pytest.raises(DataError, match=words):
        read(path)


def test_what_is_left_out_is_no_class_that_training_lacks(save) -> None:
    held: dict[str, Any] = tokens(4, "val", y_val=tagged(4))
    full = np.arange(100).reshape(20, 5) % 4
    assert read(save(**tokens(y_train=full), **held)).warnings == ()
    held["y_val"] = np.full((4, 5), -100)
    assert "y_val holds only -100, which leaves a label out" in refusal(save(**tokens(y_train=full), **held))


# ── hostile archives ─────────────────────────────────────────────────────────────────────────────


def test_an_array_that_claims_to_be_enormous_is_refused(save, tmp_path: Path) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (2, 100000000000000), }"
    header += b" " * (118 - 1 - len(header)) + b"\n"
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr("x_train.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    assert "is a broken archive" in refusal(tmp_path / "data.npz")


@given(
    where=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8),
    kept=st.floats(0, 1),
    squeeze=st.booleans(),
)
@settings(deadline=None, max_examples=200)
def test_a_damaged_archive_is_read_or_refused_in_one_line(
    where: list[tuple[float, int]], kept: float, squeeze: bool
) -> None:
    whole = io.BytesIO()
    (np.savez_compressed if squeeze else np.savez)(whole, **tokens())
    content = bytearray(whole.getvalue())
    for place, byte in where:
        content[int(place * (len(content) - 1))] = byte
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npz"
        path.write_bytes(content if where else content[: int(kept * len(content))])
        try:
            assert len(read(path).train) + len(read(path).validation) == 20
        except DataError as error:
            assert "\n" not in str(error) and len(str(error)) < 500


def test_a_damaged_archive_is_closed(save) -> None:
    path = save(**tokens())
    content = path.read_bytes()
    path.write_bytes(content.replace(b"PK\x01\x02", b"PK\x01\x03"))  # its end is whole, its list of files is not
    assert "is a broken archive" in refusal(path)
    gc.collect()  # a file that was left open becomes a warning here, and that an error
