"""Data specifications: what is read, how it is split, and what is refused in one line."""

from __future__ import annotations

import io
import random
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from graftkit.contracts import Data
from graftkit.core.errors import DataError, RuntimeMissingError
from graftkit.datasets import DATASETS, load_data
from graftkit.datasets.inputs import conform_layout
from graftkit.datasets.splitting import SPLIT_WARNING, split_rows

Arrays = dict[str, np.ndarray]


def read(spec: object, *, seed: int = 0, input_shape: tuple[int, ...] | None = None) -> Data:
    return load_data(str(spec), seed=seed, input_shape=input_shape)


def refusal(spec: object, *, input_shape: tuple[int, ...] | None = None) -> str:
    """The one line that a specification is refused with."""
    with pytest.raises(DataError) as caught:
        read(spec, input_shape=input_shape)
    message = str(caught.value)
    assert "\n" not in message
    return message


def tensors(rows: object) -> tuple[torch.Tensor, ...]:
    assert isinstance(rows, TensorDataset)
    return rows.tensors


def arrays(rows: int = 20, **other: np.ndarray) -> Arrays:
    """A small archive of two classes, with other arrays in it or in place of them."""
    numbers = np.random.RandomState(0).rand(rows, 3).astype(np.float32)
    return {"x_train": numbers, "y_train": np.arange(rows) % 2, **other}


@pytest.fixture
def save(tmp_path: Path):
    def write(name: str = "data.npz", /, **content: np.ndarray) -> Path:
        np.savez(tmp_path / name, **content)
        return tmp_path / name

    return write


@pytest.fixture
def script(tmp_path: Path):
    """Writes a user's file whose function `rows` has this body."""

    def write(body: str, before: str = "") -> str:
        head = f"import numpy as np, torch\nfrom torch.utils.data import *\n{before}\ndef rows():\n"
        (tmp_path / "mine.py").write_text(head + "".join(f"    {line}\n" for line in body.splitlines()))
        return f"{tmp_path / 'mine.py'}:rows"

    return write


def paint(path: Path, size: tuple[int, int] = (6, 4), mode: str = "RGB", level: int = 51) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, level if mode == "L" else (level, 0, 255)).save(path)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Ten images of each of two classes."""
    for name in ("dog", "cat"):
        for index in range(10):
            paint(tmp_path / "pets" / name / f"{index}.png")
    return tmp_path / "pets"


# ── splits ───────────────────────────────────────────────────────────────────────────────────────


def test_values_that_are_all_the_same_are_told(tmp_path: Path) -> None:
    """They may be what a loss of one's own leaves aside."""
    np.savez(tmp_path / "a.npz", x_train=np.eye(6, dtype=np.float32), y_train=np.full(6, 0.5, np.float32))
    warnings = load_data(str(tmp_path / "a.npz"), seed=0, input_shape=None).warnings
    assert any(
        "y_train holds the same values in all rows: R\N{SUPERSCRIPT TWO} says nothing" in line for line in warnings
    )


@given(
    labels=st.lists(st.integers(0, 6), min_size=4, max_size=200), seed=st.integers(0, 2**40), share=st.floats(0.1, 0.5)
)
@settings(deadline=None, max_examples=150)
def test_a_split_is_a_stratified_partition(labels: list[int], seed: int, share: float) -> None:
    strata = np.array(labels)
    kept, taken = split_rows(len(labels), share, seed=seed, strata=strata)
    assert sorted([*kept.tolist(), *taken.tolist()]) == list(range(len(labels)))
    assert set(strata[kept]) == set(labels)  # training knows every class
    for stratum in set(labels):
        count = int((strata == stratum).sum())
        given_away = int((strata[taken] == stratum).sum())
        assert abs(given_away - count * share) <= 1
    again = split_rows(len(labels), share, seed=seed, strata=strata)
    assert np.array_equal(kept, again[0]) and np.array_equal(taken, again[1])


def test_another_seed_splits_otherwise() -> None:
    first, second = (split_rows(100, 0.2, seed=seed, strata=None)[1].tolist() for seed in (0, 1))
    assert first != second
    assert len(first) == len(second) == 20


# ── digits ───────────────────────────────────────────────────────────────────────────────────────


def test_digits_are_stratified_and_never_move() -> None:
    first, second = read("digits", seed=0), read("digits", seed=7)
    sizes = [len(tensors(part)[0]) for part in (first.train, first.validation, first.test)]
    assert sizes == [1078, 360, 359]
    for one, other in zip((first.train, first.test), (second.train, second.test), strict=True):
        assert torch.equal(tensors(one)[0], tensors(other)[0])
    pixels, labels = tensors(first.train)
    assert pixels.shape[1:] == (1, 8, 8) and pixels.dtype == torch.float32 and pixels.max() == 1
    counts = torch.bincount(labels, minlength=10)
    assert counts.max() - counts.min() <= 6  # the classes themselves differ by 9 rows in 1797
    assert (first.labels, first.classes, first.warnings) == ("classes", 10, ())


def test_digits_parts_share_no_row() -> None:
    data = read("digits")
    parts = [{row.numpy().tobytes() for row in tensors(p)[0]} for p in (data.train, data.validation, data.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 1797


def test_digits_say_which_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(RuntimeMissingError, match=r"needs scikit-learn: pip install 'graftkit\[demo\]'"):
        read("digits")


# ── archives ─────────────────────────────────────────────────────────────────────────────────────


def test_an_archive_without_validation_is_split_with_a_warning(save) -> None:
    data = read(save(**arrays(20)), seed=3)
    (train, _), (held, labels) = tensors(data.train), tensors(data.validation)
    assert (len(train), len(held)) == (16, 4)
    assert labels.bincount().tolist() == [2, 2]
    assert data.test is None and data.warnings == (SPLIT_WARNING,)
    assert torch.equal(tensors(read(save(**arrays(20)), seed=3).validation)[0], held)
    assert not torch.equal(tensors(read(save(**arrays(20)), seed=4).validation)[0], held)


def test_an_archives_own_parts_are_taken_as_they_are(save) -> None:
    x, y = arrays(6).values()
    data = read(save(**arrays(20, x_val=x, y_val=y, x_test=x + 1, y_test=y)))
    assert len(tensors(data.train)[0]) == 20
    assert torch.equal(tensors(data.validation)[0], torch.from_numpy(x))
    assert torch.equal(tensors(data.test)[0], torch.from_numpy(x + 1))
    assert data.warnings == () and data.classes == 2


def test_test_rows_are_never_split_off_for_validation(save) -> None:
    x, y = arrays(6).values()
    data = read(save(**arrays(20, x_test=x, y_test=y)))
    assert len(tensors(data.train)[0]) + len(tensors(data.validation)[0]) == 20
    assert len(tensors(data.test)[0]) == 6


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64", "bool"])
def test_inputs_become_float32(save, dtype: str) -> None:
    x = (np.arange(60).reshape(20, 3) % 2 * (255 if dtype == "uint8" else 1)).astype(dtype)
    inputs = tensors(read(save(**arrays(x_train=x))).train)[0]
    assert inputs.dtype == torch.float32 and (inputs.min(), inputs.max()) == (0, 1)


def test_integer_inputs_stay_tokens_and_are_mentioned(save) -> None:
    data = read(save(**arrays(x_train=np.arange(60, dtype=np.int32).reshape(20, 3))))
    assert data.example().dtype == torch.int64
    assert "as tokens" in data.warnings[0]


@pytest.mark.parametrize("labels", [np.arange(20) % 3, (np.arange(20) % 3).astype(np.uint8)[:, None]])
def test_integers_are_classes(save, labels: np.ndarray) -> None:
    data = read(save(**arrays(y_train=labels)))
    targets = tensors(data.train)[1]
    assert (data.labels, data.classes, targets.dtype, targets.ndim) == ("classes", 3, torch.int64, 1)


@pytest.mark.parametrize("shape", [(20,), (20, 1), (20, 4)])
def test_floats_are_values(save, shape: tuple[int, ...]) -> None:
    data = read(save(**arrays(y_train=np.random.RandomState(0).rand(*shape))))
    targets = tensors(data.train)[1]
    assert (data.labels, data.classes, targets.dtype) == ("values", None, torch.float32)
    assert targets.shape == (16, shape[1] if len(shape) == 2 else 1)


def test_whole_floats_are_values_with_a_warning(save) -> None:
    data = read(save(**arrays(y_train=np.arange(20) % 3 * 1.0)))
    assert data.labels == "values" and "store integers if they are classes" in data.warnings[0]


@pytest.mark.parametrize(
    ("shape", "wanted", "given_shape", "warns"),
    [
        ((28, 28), (-1, 1, 28, 28), (1, 28, 28), False),
        ((28, 28), (-1, 1, -1, -1), (1, 28, 28), False),
        ((50,), (8, 1, 50), (1, 50), False),
        ((8, 9, 3), (-1, 3, 8, 9), (3, 8, 9), True),
        ((8, 9, 3), (1, 3, -1, -1), (3, 8, 9), True),
        ((28, 28, 1), (-1, 1, 28, 28), (1, 28, 28), True),
        ((3, 8, 9), (-1, 3, 8, 9), (3, 8, 9), False),
        ((3, 8, 3), (-1, 3, -1, -1), (3, 8, 3), False),  # both would fit: left alone
        ((8, 9, 3), (-1, 5, 8, 9), (8, 9, 3), False),  # neither fits: for others to refuse
        ((8, 9, 3), None, (8, 9, 3), False),
        ((8, 9), (-1, 3, 8, 9), (8, 9), False),
    ],
)
def test_channels_are_added_or_moved_only_without_doubt(shape, wanted, given_shape, warns) -> None:
    x = np.random.RandomState(0).rand(2, *shape).astype(np.float32)
    placed, warnings = conform_layout(x, "x_train", wanted)
    assert placed.shape[1:] == given_shape
    assert bool(warnings) == warns
    assert placed.sum(dtype=np.float64) == pytest.approx(x.sum(dtype=np.float64))
    if warns:
        assert np.array_equal(placed[:, 0], x[..., 0]) and placed.flags["C_CONTIGUOUS"]


@given(rank=st.integers(1, 4), channels=st.integers(1, 4), data=st.data())
@settings(deadline=None, max_examples=60)
def test_layout_never_changes_what_already_fits(rank: int, channels: int, data: st.DataObject) -> None:
    shape = (channels, *data.draw(st.lists(st.integers(1, 5), min_size=rank, max_size=rank)))
    wanted = (-1, *(data.draw(st.sampled_from([-1, size])) for size in shape))
    x = np.zeros((2, *shape), dtype=np.float32)
    assert conform_layout(x, "x", wanted) == (x, ())


def test_an_archive_is_known_by_content(save) -> None:
    path = save(**arrays())
    assert read(path.rename(path.with_suffix(".data"))).classes == 2


def test_a_zip_of_something_else_is_not_an_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "weights.pt", "w") as archive:
        archive.writestr("model/data.pkl", b"x")
    assert "cannot be read as data; give digits, file.npz" in refusal(tmp_path / "weights.pt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "there is no file" in refusal(tmp_path / "none.npz")


@pytest.mark.parametrize("content", [b"", b"nothing", "cut", "flipped"])
def test_a_broken_archive_is_refused(save, content: bytes | str) -> None:
    path = save(**arrays(200))
    whole = path.read_bytes()
    damaged = {"cut": whole[: len(whole) // 2], "flipped": whole[:300] + b"?" * 50 + whole[350:]}
    path.write_bytes(damaged[content] if isinstance(content, str) else content)
    assert "broken" in refusal(path)


def test_missing_arrays_are_named_with_what_is_there(save) -> None:
    message = refusal(save(x=np.zeros((3, 2)), y=np.zeros(3)))
    assert "no x_train and no y_train; it holds x, y" in message
    assert "no y_val" in refusal(save(**arrays(x_val=np.zeros((3, 3), dtype=np.float32))))
    assert "holds nothing" in refusal(save())


def test_arrays_that_are_not_read_are_mentioned(save) -> None:
    assert "x_valid not read" in read(save(**arrays(x_valid=np.zeros(3)))).warnings[0]


def test_pickles_are_never_loaded(save) -> None:
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    assert "object array" in refusal(save(**arrays(x_train=np.array([Trap()] * 20, dtype=object))))
    assert "object array" in refusal(save(**arrays(y_train=np.array(["a", None] * 10, dtype=object))))


@pytest.mark.parametrize("array", ["x_train", "y_train", "x_test"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_counted(save, array: str, value: float) -> None:
    content = arrays(20, y_train=np.linspace(0, 1, 20), x_test=np.zeros((20, 3)), y_test=np.linspace(0, 1, 20))
    content[array] = content[array].copy()
    content[array][[2, 5]] = value
    assert f"{array}: 2 of 20 rows hold NaN or infinity" in refusal(save(**content))


def test_numbers_too_large_for_float32_are_refused(save) -> None:
    assert "20 of 20 rows" in refusal(save(**arrays(x_train=np.full((20, 3), 1e300))))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y_train": np.arange(19) % 2}, "has 20 rows but .*y_train has 19"),
        ({"y_train": np.zeros(20, dtype=int)}, r"only one class \(0\)"),
        ({"y_train": np.arange(20) % 2 - 1}, "negative labels in 10 of 20 rows"),
        ({"y_train": np.array(["a", "b"] * 10)}, "holds <U1; give integers"),
        ({"y_train": np.eye(4, dtype=int)[np.arange(20) % 4]}, "one-hot"),
        ({"y_train": np.zeros(20, dtype=complex)}, "holds complex128"),
        ({"y_train": np.int64(3)}, "single number"),
        ({"x_train": np.zeros((20, 3), dtype="U2")}, "give numbers"),
        ({"x_train": np.float32(3)}, "single number"),
        ({"x_train": np.zeros((20, 0), dtype=np.float32)}, "without a single number"),
        ({"x_train": np.zeros((0, 3)), "y_train": np.zeros(0, dtype=int)}, "has 0 rows"),
        ({"x_val": np.zeros((0, 3)), "y_val": np.zeros(0, dtype=int)}, "x_val has 0 rows"),
        ({"x_test": np.zeros((1, 3)), "y_test": np.zeros(1, dtype=int)}, "x_test has 1 row;"),
        ({"x_val": np.zeros((4, 2)), "y_val": np.zeros(4, dtype=int)}, r"shape \[3\] but x_val \[2\]"),
        ({"x_val": np.zeros((4, 3), np.uint8), "y_val": np.zeros(4, dtype=int)}, "scaled differently"),
        ({"x_val": np.zeros((4, 3), np.int64), "y_val": np.zeros(4, dtype=int)}, "scaled differently"),
        ({"x_val": np.zeros((4, 3)), "y_val": np.zeros(4)}, r"integers \(classes\) but .* floats \(values\)"),
        ({"x_train": np.zeros((3, 3)), "y_train": np.arange(3)}, "3 rows are too few to split"),
    ],
)
def test_arrays_nothing_can_be_learnt_from_are_refused(save, change: Arrays, words: str) -> None:
    path = save(**arrays(20, **change))
    with pytest.raises(DataError, match=words):
        read(path)


def test_labels_that_training_never_had_are_a_warning(save) -> None:
    data = read(save(**arrays(20, x_val=np.zeros((4, 3)), y_val=np.array([0, 1, 2, 5]))))
    assert "y_val has labels that" in data.warnings[0] and data.warnings[0].endswith("never has: 2, 5")
    assert data.classes == 6


# ── folders ──────────────────────────────────────────────────────────────────────────────────────


def test_a_folder_gives_a_class_a_subfolder(pets: Path) -> None:
    data = read(pets, seed=1)
    assert (data.labels, data.classes, data.test) == ("classes", 2, None)
    assert data.warnings == (SPLIT_WARNING,)
    assert data.example().shape == (2, 3, 4, 6)
    pixels, label = data.validation[0]
    assert label == 0 and pixels.dtype == torch.float32  # cat comes before dog
    assert pixels[:, 0, 0].tolist() == pytest.approx([0.2, 0.0, 1.0])
    assert sorted(int(label) for _, label in DataLoader(data.validation, batch_size=None)) == [0, 0, 1, 1]
    files = {*data.train.files, *data.validation.files}
    assert len(files) == len(data.train) + len(data.validation) == 20


def test_a_folders_parts(pets: Path) -> None:
    (pets / "dog").rename(pets.parent / "dog")
    for part in ("train", "validation", "test"):
        for name in ("cat", "dog"):
            for index in range(2):
                paint(pets / part / name / f"{index}.jpg")
    data = read(pets)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [4, 4, 4]
    assert data.warnings == (f"{pets}: cat/ not read, beside train/",)
    (pets / "train").rename(pets / "val")
    assert "both val/ and validation/" in refusal(pets)
    (pets / "val").rename(pets.parent / "val")
    assert "no train/" in refusal(pets)


def test_a_class_may_be_called_train(pets: Path) -> None:
    (pets / "cat").rename(pets / "train")
    assert read(pets).classes == 2


def test_a_class_only_the_test_part_has_moves_no_other(pets: Path) -> None:
    pets.rename(pets.parent / "train")
    for name in ("ant", "dog"):
        paint(pets.parent / "test" / name / "0.png")
    data = read(pets.parent)
    assert [int(label) for _, label in data.test] == [2, 1]
    assert data.warnings[0].endswith("never has: ant")


def test_images_take_the_models_form(pets: Path) -> None:
    data = read(pets, input_shape=(-1, 1, 5, 8))
    assert data.example().shape == (2, 1, 5, 8)
    assert data.warnings[0] == f"{pets}: 20 of 20 images were resized to 5x8 (height x width)"
    assert read(pets, input_shape=(-1, 1, 4, 6)).warnings == (SPLIT_WARNING,)
    assert read(pets, input_shape=(1, -1, -1, 12)).example().shape == (2, 3, 4, 12)


def test_grey_images_keep_one_channel_and_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for index in range(3):
            (tmp_path / name).mkdir(exist_ok=True)
            pixels = np.full((3, 2), 257 * 51 if name == "a" else 0, dtype=np.uint16)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    data = read(tmp_path)
    assert data.example().shape == (2, 1, 3, 2)
    assert data.train[0][0].unique().tolist() == pytest.approx([0.2])


@pytest.mark.parametrize("content", [b"", b"not an image", "cut"])
def test_an_unreadable_image_is_named(pets: Path, content: bytes | str) -> None:
    file = pets / "cat" / "3.png"
    file.write_bytes(file.read_bytes()[:40] if isinstance(content, str) else content)
    assert f"cannot read the image {file}" in refusal(pets)


def test_an_image_that_breaks_later_is_named(pets: Path) -> None:
    data = read(pets)
    file = data.train.files[0]
    noise = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 255, (50, 50, 3), dtype=np.uint8)).save(noise, "png")
    file.write_bytes(noise.getvalue()[:2000])
    with pytest.raises(DataError, match=f"cannot read the image {file}"):
        data.train[0]


def test_files_that_are_no_images_are_left_alone(pets: Path) -> None:
    (pets / "cat" / "Thumbs.db").write_bytes(b"x")
    (pets / "cat" / "._1.png").write_bytes(b"x")
    (pets / ".git").mkdir()
    assert read(pets).classes == 2


def test_folders_nothing_can_be_learnt_from_are_refused(pets: Path) -> None:
    assert "has no subfolders" in refusal(pets / "cat")
    assert r"the model takes [-1, 64]" in refusal(pets, input_shape=(-1, 64))
    assert "the model takes [1, 7, 4, 6]" in refusal(pets, input_shape=(1, 7, 4, 6))
    for file in (pets / "cat").iterdir():
        file.unlink()
    assert "only one class (dog)" in refusal(pets)
    for file in (pets / "dog").iterdir():
        file.unlink()
    assert "has 0 rows" in refusal(pets)


def test_a_folder_says_which_extra_is_missing(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(RuntimeMissingError, match=r"needs Pillow: pip install 'graftkit\[images\]'"):
        read(pets)


# ── the user's own function ──────────────────────────────────────────────────────────────────────

TWO = """a = TensorDataset(torch.rand(12, 3), torch.arange(12) % 2)
b = TensorDataset(torch.rand(4, 3), torch.arange(4) % 2)
"""


@pytest.mark.parametrize("form", ["a, b", "[a, b]", "{'train': a, 'validation': b}", "(a, b, None)"])
def test_a_function_returns_parts(script, form: str) -> None:
    data = read(script(f"{TWO}return {form}"))
    assert (len(data.train), len(data.validation), data.test) == (12, 4, None)
    assert (data.classes, data.warnings, data.example().shape) == (2, (), (2, 3))


def test_a_function_returns_a_test_part(script) -> None:
    assert len(read(script(f"{TWO}return a, a, b")).test) == 4


@pytest.mark.parametrize("form", ["a", "{'train': a}", "(a, None)"])
def test_a_function_without_validation_is_split(script, form: str) -> None:
    data = read(script(f"{TWO}return {form}"), seed=5)
    assert (len(data.train), len(data.validation)) == (10, 2)
    assert data.warnings == (SPLIT_WARNING,)
    assert data.example().shape == (2, 3)


def test_loaders_are_iterated_as_they_are(script) -> None:
    data = read(script(f"{TWO}return DataLoader(a, batch_size=5, shuffle=True), DataLoader(b, batch_size=3)"))
    assert isinstance(data.train, DataLoader) and data.train.batch_size == 5
    assert data.example().shape == (2, 3)


@pytest.mark.parametrize(
    ("row", "inputs", "target"),
    [
        ("(np.zeros(3), i % 2)", torch.float32, torch.int64),
        ("(np.full((1, 3), 255, np.uint8), np.int32(i % 2))", torch.float32, torch.int64),
        ("[torch.zeros(3).half(), torch.tensor([i % 2], dtype=torch.uint8)]", torch.float32, torch.int64),
        ("(torch.zeros(3), i / 7)", torch.float32, torch.float32),
        ("(torch.zeros(3).bfloat16(), torch.tensor([i / 7]))", torch.float32, torch.float32),
    ],
)
def test_rows_become_tensors_of_the_right_type(script, row: str, inputs: torch.dtype, target: torch.dtype) -> None:
    before = f"class Own(Dataset):\n    def __len__(self): return 12\n    def __getitem__(self, i): return {row}\n"
    data = read(script("return Own()", before))
    x, y = next(iter(DataLoader(data.train, batch_size=4)))
    assert (x.dtype, y.dtype) == (inputs, target)
    assert y.shape == ((4,) if target == torch.int64 else (4, 1))
    assert x.max() <= 1


def test_a_functions_own_random_split_stays_and_disturbs_nobody(script) -> None:
    spec = script("a = TensorDataset(torch.rand(12, 3), torch.arange(12) % 2)\nreturn random_split(a, [8, 4])")
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    expected = torch.rand(1), random.random(), np.random.rand()
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    first, second, third = (read(spec, seed=seed).example() for seed in (3, 3, 4))
    assert torch.equal(first, second) and not torch.equal(first, third)
    assert (torch.rand(1), random.random(), np.random.rand()) == expected


def test_a_package_module_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_package_for_rows").mkdir()
    (tmp_path / "own_package_for_rows" / "data.py").write_text(
        "import torch\nfrom torch.utils.data import TensorDataset\nfrom own_neighbour import rows\n"
        "def parts(): return TensorDataset(torch.rand(rows, 3), torch.arange(rows) % 2)\n"
    )
    (tmp_path / "own_neighbour.py").write_text("rows = 15\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert len(read("own_package_for_rows.data:parts").train) == 12
    assert sys.path == before
    assert "there is no module own_package_for_rows.dat," in refusal("own_package_for_rows.dat:parts")
    assert "has no function part. Did you mean parts" in refusal("own_package_for_rows.data:part")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return None", "returned a value of type NoneType; return (train, validation)"),
        (f"{TWO}return (a,)", "returned a value of type tuple of 1"),
        (f"{TWO}return a, b, a, b", "returned a value of type tuple of 4"),
        (f"{TWO}return {{'train': a, 'val': b}}", "part called 'val'"),
        (f"{TWO}return {{'validation': b}}", "no training part"),
        (f"{TWO}return DataLoader(a)", "return (train, validation)"),
        (f"{TWO}return [1, 2], b", "train is a value of type list of 2; give a torch Dataset or DataLoader"),
        (f"{TWO}return a, TensorDataset(torch.rand(4, 3))", "is of type tuple of 1; give pairs"),
        (f"{TWO}return a, TensorDataset(torch.rand(4, 2), torch.arange(4))", "shape [3] but validation [2]"),
        (f"{TWO}return a, TensorDataset(torch.rand(0, 3), torch.arange(0))", "validation inputs has 0 rows"),
        (f"{TWO}return a, TensorDataset(torch.rand(4, 3), torch.rand(4))", "give all parts one type"),
        (f"{TWO}return TensorDataset(torch.rand(9, 3) / 0, torch.arange(9))", "9 of 9 rows hold NaN"),
        (f"{TWO}return TensorDataset(torch.rand(9, 3), torch.zeros(9).long())", "only one class"),
        (
            "return DataLoader(TensorDataset(torch.rand(4, 3), torch.rand(4))), 0",
            "is a value of type int; give a torch",
        ),
        ("a = DataLoader(TensorDataset(torch.rand(4, 3), torch.rand(4)))\nreturn a, a", "have to be float32 [1, 1]"),
        (
            "a = DataLoader(TensorDataset(torch.rand(4, 3).double(), torch.arange(4)))\nreturn a, a",
            "gives inputs float64",
        ),
        ("a = DataLoader(TensorDataset(torch.rand(4, 3) / 0, torch.arange(4)))\nreturn a, a", "NaN or infinity"),
        ("a = DataLoader([])\nreturn a, a", "has 0 rows"),
        ("a = DataLoader([(torch.rand(2), 'cat')] * 4)\nreturn a, a", "holds values of type tuple; give tensors"),
        ("a = DataLoader([{'x': torch.rand(2)}] * 4)\nreturn a, a", "is of type dict; give pairs"),
        ("a = DataLoader([(torch.rand(i), 1) for i in (2, 3)])\nreturn a, a", "shapes [2] and [3]"),
        (
            "class It(IterableDataset):\n    def __iter__(self): return iter(())\nreturn It(), It()",
            "IterableDataset; wrap it in a DataLoader",
        ),
    ],
)
def test_what_a_function_cannot_return(script, body: str, words: str) -> None:
    assert words in refusal(script(body))


def test_an_error_in_the_function_is_told_in_one_line_with_its_place(script, tmp_path: Path) -> None:
    assert f"ZeroDivisionError: division by zero ({tmp_path / 'mine.py'}, line 6)" in refusal(
        script("x = 1\nreturn 1 / 0")
    )
    message = refusal(script("return torch.zeros(2) @ torch.zeros(3)"))
    assert "RuntimeError: " in message and message.endswith("line 5)")
    assert "SystemExit: 3" in refusal(script("raise SystemExit(3)"))


def test_an_error_while_importing_or_reading_rows_is_told_the_same(script, tmp_path: Path) -> None:
    assert f"SyntaxError: invalid syntax ({tmp_path / 'mine.py'}, line 3)" in refusal(script("pass", "x = = 1"))
    assert "ModuleNotFoundError: No module named 'not_there'" in refusal(script("pass", "import not_there"))
    own = "class Own(Dataset):\n    def __len__(self): return 12\n    def __getitem__(self, i): return {}[i]\n"
    assert f"KeyError: 0 ({tmp_path / 'mine.py'}, line 5)" in refusal(script("return Own(), Own()", own))


def test_a_function_that_is_not_there(script, tmp_path: Path) -> None:
    spec = script("pass")
    assert "has no function row. Did you mean rows" in refusal(spec[:-1])
    assert "there is no file" in refusal(tmp_path / "other.py:rows")
    assert "there is no module nowhere_at_all" in refusal("nowhere_at_all.data:rows")


# ── specifications ───────────────────────────────────────────────────────────────────────────────


def test_every_source_is_listed_under_its_own_name() -> None:
    assert {name: source.name for name, source in DATASETS.items()} == {name: name for name in DATASETS}


@pytest.mark.parametrize("spec", ["digts", "", "https://example.org/data", "no/such/place", "a:b:"])
def test_other_words_are_answered_with_the_four_forms(spec: str) -> None:
    message = refusal(spec)
    for form in ("digits", "file.npz", "folder/", "file.py:function"):
        assert form in message


def test_what_was_meant_is_proposed(tmp_path: Path) -> None:
    assert refusal("digts").endswith("Did you mean digits?")
    (tmp_path / "pictures").mkdir()
    assert f"Did you mean {tmp_path / 'pictures'}" in refusal(tmp_path / "picture")
