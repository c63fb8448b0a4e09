"""What the command line makes of its words, before any model is read."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from graftkit.cli import COMMANDS, cli, options
from graftkit.cli.augment import _stem
from graftkit.cli.example import example_of, shapes
from graftkit.cli.paths import NewFile
from graftkit.cli.progress import Watcher
from graftkit.contracts import SourceRequest
from graftkit.core.records import EpochRecord, StepRecord
from graftkit.run_folder import METRICS, SOURCE


@pytest.mark.parametrize(
    ("text", "shape", "dtype"),
    [
        ("3,32,32", (2, 3, 32, 32), torch.float32),
        ("3x32x32", (2, 3, 32, 32), torch.float32),
        ("6", (2, 6), torch.float32),
        ("", (2,), torch.float32),
        ("128:int64", (2, 128), torch.int64),
        (":bool", (2,), torch.bool),
        (" 3 : float16 ", (2, 3), torch.float16),
    ],
)
def test_an_input_is_two_rows_of_its_shape(text: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensor = example_of([text])
    assert isinstance(tensor, torch.Tensor)
    assert tuple(tensor.shape) == shape and tensor.dtype is dtype
    assert bool((tensor == (1 if dtype is torch.bool else 0)).all())


def test_inputs_with_names_come_by_name_and_others_in_order() -> None:
    named = example_of(["ids:5:int64", "mask:5:bool", "age:", "count::int32"])
    assert isinstance(named, dict)
    assert {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in named.items()} == {
        "ids": ((2, 5), torch.int64),
        "mask": ((2, 5), torch.bool),
        "age": ((2,), torch.float32),
        "count": ((2,), torch.int32),
    }
    in_order = example_of(["3", "4x4"])
    assert [tuple(tensor.shape) for tensor in in_order] == [(2, 3), (2, 4, 4)]
    assert shapes(named) == "rows of ids [5], mask [5], age [], count []"
    assert shapes(in_order) == "rows of [3], [4, 4]"
    assert shapes(in_order[0]) == "rows of [3]"


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["wide"], "is not"),
        (["3,,3"], "is not"),
        (["3,0"], "is not"),
        (["-3"], "is not"),
        (["3:int"], "is not"),
        (["a:b:c:int64"], "is not"),
        (["2d:3"], "is not"),
        (["ids:5:long"], "is not"),
        (["ids:5", "3"], "all inputs a name, or none"),
        (["ids:5", "ids:6"], "ids is given twice"),
    ],
)
def test_an_input_that_is_none_is_told(texts: list[str], said: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        example_of(texts)
    assert said in caught.value.message


@given(st.lists(st.integers(1, 9), max_size=4), st.sampled_from(",x"), st.sampled_from(["int64", "float32", None]))
def test_a_shape_is_read_as_it_is_written(sizes: list[int], between: str, dtype: str | None) -> None:
    shape = between.join(map(str, sizes))
    for name in ("", "ids:"):
        found = example_of([f"{name}{shape}" + (f":{dtype}" if dtype else "")])
        tensor = found["ids"] if isinstance(found, dict) else found
        assert list(tensor.shape) == [2, *sizes]
        assert tensor.dtype is getattr(torch, dtype or "float32")


def asked(*words: str) -> SourceRequest:
    """The request that a command with the shared options makes of these words."""
    found: list[SourceRequest] = []

    @click.command()
    @click.argument("model")
    @options.model
    def command(model: str, **given: object) -> None:
        found.append(options.source_request(model, given))

    result = CliRunner().invoke(command, words)
    if result.exit_code:
        raise click.UsageError(result.output)
    return found[0]


def test_the_shared_options_make_a_request() -> None:
    assert asked("net.pt") == SourceRequest("net.pt")
    words = ("--arch", "timm:resnet18", "--arch-args", "num_classes=10", "--arch-args", "act=a=b", "--allow", "a.B")
    request = asked("net.pt", *words, "--allow", "c.D", "--trust", "--part", "a.0")
    assert request.part == "a.0"
    assert (request.arch, request.trust) == ("timm:resnet18", True)
    assert request.arch_args == (("num_classes", "10"), ("act", "a=b"))
    assert request.allow == ("a.B", "c.D")


@pytest.mark.parametrize(
    "words", [("--arch-args", "width"), ("--arch-args", ""), ("--dynamic", "never"), ("--arch",), ("--allow",)]
)
def test_options_without_a_value_are_wrong_usage(words: tuple[str, ...]) -> None:
    with pytest.raises(click.UsageError):
        asked("net.pt", *words)


def test_no_option_takes_nan_for_a_number() -> None:
    found = {}
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        for option in command.params:
            if isinstance(option.type, click.FloatRange | click.types.FloatParamType):
                result = CliRunner().invoke(cli, [name, option.opts[0], "nan"])
                found[name, option.opts[0]] = result.exit_code, "'nan' is not a finite number" in result.output
    assert len(found) > 10 and set(found.values()) == {(2, True)}, found


def test_a_file_to_write_has_a_name_and_is_no_folder(tmp_path: Path) -> None:
    found = {}
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        for option in command.params:
            if isinstance(option.type, NewFile):
                for word, why in (("", "'' names no file"), (".", "'.' names no file"), (str(tmp_path), "")):
                    result = CliRunner().invoke(cli, [name, "model.onnx", option.opts[0], word])
                    found[name, word] = result.exit_code, why in result.output
    assert len(found) == 12 and set(found.values()) == {(2, True)}, found


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("bench", "a.onnx", "--plot", "a.onnx"), "'a.onnx' does not end in .svg"),
        (
            ("inspect", "a.onnx", "--format", "json", "--out", "{metrics}"),
            "would replace {metrics}, which",
        ),
        (("inspect", "{model}", "--out", "{model}"), "would replace {model}, which is something else"),
        (("export", "run", "--tolerance", "0.1"), "--tolerance says how much --precision or --gate may cost"),
    ],
)
def test_nothing_is_lost_by_a_slip(words: tuple[str, ...], why: str, tmp_path: Path) -> None:
    names = {"model": tmp_path / "model.onnx", "metrics": tmp_path / "run" / METRICS}
    names["metrics"].parent.mkdir()
    for path in (*names.values(), names["metrics"].parent / SOURCE):
        path.write_text("mine")
    result = CliRunner().invoke(cli, [word.format(**names) for word in words])
    assert result.exit_code == 2 and why.format(**names) in result.output.replace("\n", " ")
    assert all(path.read_text() == "mine" for path in names.values())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_is_told_in_a_line(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(number, os.strerror(number), "model.onnx")

    monkeypatch.setattr(options, "started", full)
    result = CliRunner().invoke(cli, ["inspect", "model.onnx"])
    assert (result.exit_code, result.stderr) == (1, f"graftkit: {os.strerror(number)} (model.onnx)\n")


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("models/net.pt", "net"),
        ("net.safetensors", "net"),
        ("package.nets:build", "build"),
        ("timm:resnet18", "resnet18"),
        ("timm:resnet18.a1_in1k", "resnet18"),
        ("hf:models/bert-base.v2/", "bert-base.v2"),
    ],
)
def test_a_run_is_called_after_its_model(model: str, name: str) -> None:
    assert _stem(model) == name


def test_the_bar_moves_within_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    watcher = Watcher()
    with watcher as observer:
        assert observer.on_step is not None
        observer.on_step(StepRecord("grafted", 1, 1, 4, 3, 6))
        (task,) = watcher.progress.tasks
        assert task.completed == 0.5 and task.total == 4 and task.description == "grafted, cycle 1"
        observer.on_epoch(EpochRecord("grafted", 0, 1, "neuron", 1, 0.5, 0.75, 1e-3), 4)
        assert task.completed == 1 and "epoch 1/4  validation 0.7500" in task.fields["score"]
        observer.on_step(StepRecord("grafted", 1, 2, 4, 3, 6))
        assert task.completed == 1.5


def test_piped_output_asks_for_no_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    with Watcher() as observer:
        assert observer.on_step is None


def test_what_cannot_work_is_said_without_what_only_work_needs() -> None:
    """Each of these takes a second or two to import, besides the two of torch itself."""
    heavy = ("lightning", "matplotlib", "optuna", "sklearn", "torch._dynamo", "transformers")
    lines = [
        "inspect no.pt",
        "augment no.pt",
        "compress no.pt",
        "sweep no.pt",
        "evaluate no",
        "bench no.onnx",
        "verify no",
    ]
    script = (
        "import sys; from graftkit.cli import main\n"
        f"for line in {lines}:\n"
        "    sys.argv = ['graftkit', *line.split()]\n"
        "    try: main()\n"
        f"    except SystemExit as ended: print(line, ended.code, [m for m in {heavy} if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    found = [line for line in done.stdout.splitlines() if line.startswith(tuple(lines))]
    assert found == [f"{line} 1 []" for line in lines], done
