"""How a module is called and what it gives: arguments of any shape as flat tensors and back; which output counts."""

from __future__ import annotations

import json
from collections import namedtuple
from collections.abc import Mapping
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from graftkit import api as gk
from graftkit.calling import Arguments, calling_of, choose_output, flat_forward, flat_outputs
from graftkit.cli import cli
from graftkit.core.errors import TraceError

# ── nested structures, at random ─────────────────────────────────────────────────────────────────

NAMES = st.text("abcxyz_1.- ²é", min_size=1, max_size=3) | st.sampled_from(["in", "class", "output", "output_0", "a.b"])
OTHER = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["word", 0.5])


def _nested(leaves: st.SearchStrategy[Any], keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def deeper(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        several = st.lists(inner, max_size=3)
        return several | several.map(tuple) | st.dictionaries(keys, inner, max_size=3)

    return st.recursive(leaves, deeper, max_leaves=8)


TENSORS = st.builds(lambda: torch.zeros(2, 1))  # each drawn one is an object of its own
STRUCTURES = _nested(TENSORS | OTHER, NAMES)


def tensors_in(value: Any) -> list[Tensor]:
    """Depth first, by identity: written anew, to hold graftkit's own way of counting against it."""
    if isinstance(value, Tensor):
        return [value]
    members = list(value.values()) if isinstance(value, Mapping) else value
    return [t for member in members for t in tensors_in(member)] if isinstance(members, list | tuple) else []


def same_structure(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return one is other
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same_structure(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same_structure, one, other))
    return bool(one == other)


class Anything(nn.Module):
    """Gives back what it was called with."""

    def forward(self, *args: Any, **keywords: Any) -> Any:
        return args, keywords


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STRUCTURES, max_size=3).map(tuple), st.dictionaries(NAMES, STRUCTURES, max_size=3))
def test_arguments_of_any_shape_make_the_round_trip(args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    inside = [*tensors_in(args), *tensors_in(keywords)]
    example = Arguments(args, keywords)
    if not inside:
        with pytest.raises(TraceError, match="holds no tensor"):
            calling_of(Anything(), example)
        return
    calling, flat = calling_of(Anything(), example)
    assert [id(t) for t in flat] == [id(t) for t in inside]
    assert len(set(calling.names)) == len(flat) and all(name.isidentifier() for name in calling.names)
    again, named = calling.arguments(flat)
    assert same_structure(args, again) and same_structure(keywords, named)
    others = tuple(torch.ones(2, 1) for _ in flat)  # nothing of the example's tensors may be kept inside
    args, keywords = calling.arguments(others)
    assert [id(t) for t in [*tensors_in(args), *tensors_in(keywords)]] == [id(t) for t in others]
    with flat_forward(Anything(), calling):
        pass  # every name can be an argument's


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_nested(TENSORS | OTHER, NAMES | st.integers(0, 2)))
def test_no_tensor_of_an_output_is_lost(output: Any) -> None:
    found = flat_outputs(output)
    assert [id(t) for t in found.tensors.values()] == [id(t) for t in tensors_in(output)]
    assert all(isinstance(name, str) and name for name in found.tensors)
    assert "NoneType" not in found.others


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.none() | TENSORS, min_size=1, max_size=4), st.data())
def test_dataclasses_and_named_tuples_are_named_by_their_fields(
    values: list[Tensor | None], data: st.DataObject
) -> None:
    fields = [f"field_{index}" for index in range(len(values))]
    kinds = [make_dataclass("Kind", fields), namedtuple("Kind", fields), lambda *v: dict(zip(fields, v, strict=True))]
    kind: Any = data.draw(st.sampled_from(kinds))
    expected = {name: value for name, value in zip(fields, values, strict=True) if value is not None}
    found = flat_outputs(kind(*values)).tensors
    assert list(found) == list(expected) and all(found[name] is expected[name] for name in expected)
    inner = flat_outputs([kind(*values)]).tensors
    assert list(inner) == [f"output_0.{name}" for name in expected]


def test_names_of_inputs_are_the_arguments_own() -> None:
    class Model(nn.Module):
        def forward(self, x: Any, pair: Any, *rest: Any, mask: Any = None) -> None: ...

    x = torch.zeros(2)
    calling, _ = calling_of(Model(), Arguments((x, [x, {"deep": x}], x, x), {"mask": x}))
    assert calling.names == ("x", "pair_0", "pair_1_deep", "input_2", "input_3", "mask")


def test_what_forward_does_not_take_is_refused() -> None:
    class Two(nn.Module):
        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return left + right

    x = torch.zeros(2, 1)
    with pytest.raises(TraceError, match="takes 2 arguments, but the example has 3"):
        calling_of(Two(), (x, x, x))
    with pytest.raises(TraceError, match=r"no argument 'middle'; its forward takes left, right"):
        calling_of(Two(), {"left": x, "middle": x})
    with pytest.raises(TraceError, match="holds no tensor"):
        calling_of(Two(), {"left": 1, "right": None})


def test_flat_forward_leaves_the_module_as_it_was() -> None:
    module, x = nn.Linear(2, 2), torch.zeros(2, 2)
    calling, _ = calling_of(module, x)
    with pytest.raises(RuntimeError), flat_forward(module, calling) as seen:
        assert torch.equal(module(x), seen[-1].tensors["output"])
        raise RuntimeError
    assert "forward" not in vars(module) and module(x).shape == (2, 2)

    own = lambda x: x + 1  # noqa: E731
    module.__dict__["forward"] = own  # as some libraries patch a model
    with flat_forward(module, calling):
        assert torch.equal(module(x), x + 1)
    assert module.__dict__["forward"] is own


# ── which output feeds the loss ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (("output",), "output"),
        (("hidden", "logits"), "logits"),
        (("output_0", "output_1"), "output_0"),
        (("ids", "score"), "score"),  # whole numbers have no gradient
        (("last_hidden_state", "pooler_output"), "last_hidden_state"),
        (("aux", "out"), "out"),
    ],
)
def test_the_output_is_found(names: tuple[str, ...], chosen: str) -> None:
    outputs = {name: torch.zeros(2, dtype=torch.int64 if name == "ids" else torch.float32) for name in names}
    assert choose_output(outputs, None) == chosen
    for name in names:
        assert choose_output(outputs, name) == name


def test_no_such_output_and_none_to_train() -> None:
    with pytest.raises(TraceError, match=r"no output 'logit'; it gives logits, hidden"):
        choose_output({"logits": torch.zeros(2), "hidden": torch.zeros(2)}, "logit")
    with pytest.raises(TraceError, match="floating-point"):
        choose_output({"ids": torch.zeros(2, dtype=torch.int64), "mask": torch.zeros(2, dtype=torch.bool)}, None)


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.near, self.far = nn.Linear(4, 4), nn.Linear(4, 3), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.trunk(x).relu()
        return {"near": self.near(h), "far": self.far(h)}


@pytest.mark.parametrize(("output", "left_out", "width"), [("near", "far", 3), ("far", "near", 2)])
def test_a_named_output_is_what_is_trained(output: str, left_out: str, width: int) -> None:
    module, x = TwoHeads(), torch.randn(2, 4)
    traced = gk.trace(module, x, output=output)
    assert traced.signature.output == output
    assert [site.key for site in traced.sites] == ["trunk", output]
    assert [(call.key, call.reason) for call in traced.skipped] == [
        (left_out, "it does not reach the output that is trained")
    ]
    for training in (True, False):
        grafted = gk.graft(traced).train(training)
        assert grafted(x).shape == (2, width)
        assert torch.equal(grafted(x), module.train(training)(x)[output])
        assert len(grafted.outputs(x)) == 2
    with pytest.raises(TraceError, match=r"no output 'middle'; it gives near, far"):
        gk.trace(module, x, output="middle")


def test_the_command_line_names_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "two_headed.py").write_text("from test_calling import TwoHeads\n")
    monkeypatch.chdir(tmp_path)
    command = ["inspect", "two_headed:TwoHeads", "--input", "4", "--json", "--output"]
    told = CliRunner().invoke(cli, [*command, "far"])
    assert told.exit_code == 0, told.output
    assert [site["site"] for site in json.loads(told.stdout)["sites"]] == ["trunk", "far"]
    wrong = CliRunner().invoke(cli, [*command, "middle"])
    assert wrong.exit_code != 0 and "no output 'middle'; it gives near, far" in wrong.output
