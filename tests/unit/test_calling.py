"""How models are called: every form of input goes in, every form of output comes out, in both modes, at other sizes."""

from __future__ import annotations

import json
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Mapping
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from graftkit import api as gk
from graftkit import tracing
from graftkit.calling import Arguments, calling_of, choose_output, flat_forward, flat_outputs
from graftkit.cli import cli
from graftkit.core.errors import DataError, TraceError

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


# ── forms of input, traced ───────────────────────────────────────────────────────────────────────


class Linear(nn.Module):
    """What the forms below share: a layer with dropout and batch norm, so that the modes differ."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm, self.drop = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.4)

    def core(self, x: Tensor) -> Tensor:
        return self.drop(self.norm(self.layer(x)))


class Positional(Linear):
    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.core(left) - 2 * right


class Optional(Linear):
    def forward(self, x: Tensor, mask: Tensor | None = None, scale: float = 2.0, shift: Tensor | None = None) -> Tensor:
        y = self.core(x) * scale
        y = y if mask is None else y.masked_fill(~mask, 0.0)
        return y if shift is None else y + shift


class Nested(Linear):
    def forward(self, pair: list[Tensor], more: dict[str, Any]) -> Tensor:
        left, right = pair
        return self.core(left) + right * more["deep"][0] - more["factor"]


class Star(Linear):
    def forward(self, *parts: Tensor) -> Tensor:
        return self.core(parts[0]) + torch.stack(parts[1:]).cumprod(0).sum(0)


class Stars(Linear):
    def forward(self, **parts: Tensor) -> Tensor:
        return self.core(parts["main"]) / (1 + parts["weight"].exp())


class Batch(Linear):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.core(batch["x"]) + batch["y"].sum(1, keepdim=True)


class Several(Linear):
    def forward(self, tensors: list[Tensor]) -> Tensor:
        return self.core(tensors[0]) * tensors[1] + len(tensors)


class Tokens(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 4)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.embed(ids)
        mean = (x * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        return self.core(mean)


def rows(count: int) -> Tensor:
    return torch.randn(count, 4)


@dataclass(frozen=True)
class Form:
    """A way to call: how an example is made, how the module itself is called with it, what the inputs are called."""

    module: type[nn.Module]
    make: Callable[[int], Any]
    call: Callable[[nn.Module, Any], Tensor]
    names: tuple[str, ...]


def spread(module: nn.Module, example: Any) -> Tensor:
    return module(*example)


def by_name(module: nn.Module, example: Any) -> Tensor:
    return module(**example)


def whole(module: nn.Module, example: Any) -> Tensor:
    return module(example)


FORMS = {
    "positional": Form(Positional, lambda n: (rows(n), rows(n)), spread, ("left", "right")),
    "keywords": Form(Positional, lambda n: {"right": rows(n), "left": rows(n)}, by_name, ("right", "left")),
    "both": Form(
        Optional,
        lambda n: Arguments((rows(n),), {"shift": rows(n), "scale": 3.0}),
        lambda module, example: module(*example.args, **example.keywords),
        ("x", "shift"),
    ),
    "left out": Form(Optional, lambda n: rows(n), whole, ("x",)),
    "left out between": Form(Optional, lambda n: (rows(n), None, 0.5, rows(n)), spread, ("x", "shift")),
    "mask": Form(Optional, lambda n: (rows(n), rows(n) > 0), spread, ("x", "mask")),
    "nested": Form(
        Nested,
        lambda n: ([rows(n), rows(n)], {"factor": 3, "deep": (rows(n), None)}),
        spread,
        ("pair_0", "pair_1", "more_deep_0"),
    ),
    "star": Form(Star, lambda n: (rows(n), rows(n), rows(n)), spread, ("input_0", "input_1", "input_2")),
    "two stars": Form(Stars, lambda n: {"weight": rows(n), "main": rows(n)}, by_name, ("weight", "main")),
    "dict": Form(Batch, lambda n: {"y": rows(n), "x": rows(n)}, whole, ("batch_y", "batch_x")),
    "list": Form(Several, lambda n: [rows(n), rows(n), rows(n)], whole, ("tensors_0", "tensors_1", "tensors_2")),
    "tokens": Form(
        Tokens, lambda n: {"ids": torch.randint(9, (n, 5)), "mask": torch.rand(n, 5) > 0.4}, by_name, ("ids", "mask")
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_input_in_both_modes_at_other_sizes(name: str) -> None:
    form = FORMS[name]
    torch.manual_seed(0)
    module = form.module()
    traced = tracing.trace_module(module, form.make(2), name=name)
    assert traced.signature.input_names == form.names
    assert all(port.shape[0] == "batch" for port in traced.signature.inputs)
    assert [site.key for site in traced.sites] == ["layer"] and traced.notes == ()
    model = gk.graft(traced)
    for count in (3, 9):
        example = form.make(count)
        inputs = tracing.flat_inputs(module, example)
        assert inputs[0].dtype == getattr(torch, traced.signature.inputs[0].dtype)
        for training in (False, True):
            state = {key: value.clone() for key, value in module.state_dict().items()}
            torch.manual_seed(1)
            expected = form.call(module.train(training), example)
            module.load_state_dict(state)
            torch.manual_seed(1)
            torch.testing.assert_close(model.train(training)(*inputs), expected)
            module.load_state_dict(state)
    module.eval()


def test_inputs_by_name_are_brought_in_order() -> None:
    traced = tracing.trace_module(Positional(), (rows(2), rows(2)), name="net")
    model = gk.graft(traced).eval()
    left, right = rows(3), rows(3)
    expected = model(left, right)
    for given_ in ({"right": right, "unused": left, "left": left}, (left, right), [left, right]):
        assert torch.equal(model(*model.arrange(given_)), expected)
    with pytest.raises(DataError, match="the rows have no right; they have left"):
        model.arrange({"left": left})
    with pytest.raises(DataError, match=r"takes 2 inputs \(left, right\), but the rows have 1"):
        model.arrange(left)


def test_whole_number_and_bool_inputs_are_described() -> None:
    form = FORMS["tokens"]
    ports = tracing.trace_module(form.module(), form.make(2), name="net").signature.inputs
    assert [port.text() for port in ports] == ["ids: int64 [batch, length]", "mask: bool [batch, length]"]


# ── forms of output, traced ──────────────────────────────────────────────────────────────────────


@dataclass
class Result:
    loss: Tensor | None
    logits: Tensor
    hidden: tuple[Tensor, ...] = ()


class Pair(NamedTuple):
    first: Tensor
    second: Tensor | None


class Opaque:
    """What graftkit cannot look into."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor


Body = Callable[[Tensor, Tensor], Any]  # (input, hidden) -> the model's output


class Gives(nn.Module):
    def __init__(self, body: Body):
        super().__init__()
        self.layer, self.body, self.scale = nn.Linear(4, 4), body, nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Any:
        return self.body(x, self.layer(x) * self.scale)


OUTPUTS: dict[str, tuple[Body, tuple[str, ...], str, tuple[str, ...]]] = {  # body, names, chosen, notes on
    "tensor": (lambda x, h: h, ("output",), "output", ()),
    "tuple": (lambda x, h: (h, h + 1), ("output_0", "output_1"), "output_0", ()),
    "list of one": (lambda x, h: [h], ("output_0",), "output_0", ()),
    "nested": (lambda x, h: (h.tanh(), (h, [x + h])), ("output_0", "output_1.0", "output_1.1.0"), "output_0", ()),
    "dict": (lambda x, h: {"hidden": h, "logits": h * 2}, ("hidden", "logits"), "logits", ()),
    "ordered": (lambda x, h: OrderedDict(aux=h, out=h * 2), ("aux", "out"), "out", ()),
    "dataclass": (lambda x, h: Result(None, h, (h + 1, h + 2)), ("logits", "hidden.0", "hidden.1"), "logits", ()),
    "named tuple": (lambda x, h: Pair(h, None), ("first",), "first", ()),
    "named tuple inside": (lambda x, h: {"all": Pair(h, x * 2)}, ("all.first", "all.second"), "all.first", ()),
    "none": (lambda x, h: (None, h, None), ("output_1",), "output_1", ()),
    "not tensors": (
        lambda x, h: (h, "word", x.shape[0], 0.5, Opaque(h)),
        ("output_0",),
        "output_0",
        ("str", "int", "float", "Opaque"),
    ),
    "twice": (lambda x, h: {"a": h, "b": h}, ("a", "b"), "a", ()),
    "input returned": (lambda x, h: {"x": x, "y": h}, ("x", "y"), "y", ()),
    "whole numbers": (lambda x, h: (h.argmax(1), h > 0, h), ("output_0", "output_1", "output_2"), "output_2", ()),
    "one number": (lambda x, h: {"loss": h.mean(), "logits": h}, ("loss", "logits"), "logits", ()),
}  # fmt: skip


@pytest.mark.parametrize("name", OUTPUTS)
def test_every_form_of_output_in_both_modes(name: str) -> None:
    body, names, chosen, others = OUTPUTS[name]
    torch.manual_seed(0)
    module = Gives(body)
    # the input returned as it is holds floats, too: the output that is trained has to be named
    traced = tracing.trace_module(module, rows(2), name=name, output=chosen if name == "input returned" else None)
    assert traced.signature.output_names == names and traced.signature.output == chosen
    assert traced.notes == tuple(f"its output of type {other} stays outside" for other in others)
    model, x = gk.graft(traced), rows(5)
    for training in (False, True):
        expected = [t for t in _leaves(module.train(training)(x)) if isinstance(t, Tensor)]
        found = model.train(training).outputs(x)
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)
        assert torch.equal(model(x), expected[names.index(chosen)])


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, Result):
        value = (value.loss, value.logits, value.hidden)
    if isinstance(value, dict):
        value = list(value.values())
    return [leaf for member in value for leaf in _leaves(member)] if isinstance(value, list | tuple) else [value]


def test_parameters_among_the_outputs_are_given_as_they_are_now() -> None:
    class Scaled(Gives):
        def forward(self, x: Tensor) -> Any:
            return {"logits": self.layer(x), "scale": self.scale}

    module = Scaled(lambda x, h: h)
    traced = tracing.trace_module(module, rows(2), name="net")
    with torch.no_grad():
        module.scale.fill_(3.0)
    assert traced.eval_graph(rows(3))[1].item() == 3.0


def test_a_model_without_any_tensor_is_refused() -> None:
    with pytest.raises(TraceError, match=r"returns no tensor \(str\)"):
        tracing.trace_module(Gives(lambda x, h: ["nothing", None]), rows(2), name="net")


# ── training gives other outputs than evaluation ─────────────────────────────────────────────────


class Auxiliary(nn.Module):
    """A head and an auxiliary head of the same size; `body` says what each mode gives."""

    def __init__(self, body: Callable[[bool, Tensor, Callable[[], Tensor], Tensor], Any]):
        super().__init__()
        self.trunk, self.head, self.aux, self.body = nn.Linear(4, 4), nn.Linear(4, 3), nn.Linear(4, 3), body

    def forward(self, x: Tensor) -> Any:
        h = self.trunk(x).relu()
        return self.body(self.training, self.head(h), lambda: self.aux(h), h)


AUXILIARY: dict[str, Callable[..., Any]] = {
    "tuple": lambda training, main, aux, h: (main, aux()) if training else main,
    "tuple, auxiliary first": lambda training, main, aux, h: (aux(), main) if training else main,
    "dict": lambda training, main, aux, h: {"out": main, "aux": aux()} if training else {"out": main},
    "dict, auxiliary first": lambda training, main, aux, h: {"aux": aux(), "out": main} if training else main,
    "named tuple": lambda training, main, aux, h: Pair(main, aux()) if training else main,
    "named tuple, second is None": lambda training, main, aux, h: Pair(main, aux() if training else None),
    "other order": lambda training, main, aux, h: (h, main) if training else (main, h),
    "other order of equals": lambda training, main, aux, h: (aux(), main) if training else (main, aux()),
    "hidden states in training alone": lambda training, main, aux, h: (h, h.tanh(), main) if training else main,
}


@pytest.mark.parametrize("name", AUXILIARY)
def test_the_same_output_is_trained_whatever_else_training_gives(name: str) -> None:
    torch.manual_seed(0)
    module = Auxiliary(AUXILIARY[name])
    traced = tracing.trace_module(module, rows(2), name=name)
    assert [site.key for site in traced.sites] == ["trunk", "head"]
    model, x = gk.graft(traced), rows(3)
    expected = module.head(module.trunk(x).relu())
    assert torch.equal(model.eval()(x), expected)
    assert torch.equal(model.train()(x), expected)
    model(x).square().sum().backward()
    assert module.head.weight.grad is not None and module.aux.weight.grad is None


def test_a_training_mode_that_never_gives_the_output_is_refused() -> None:
    module = Auxiliary(lambda training, main, aux, h: h if training else main)
    with pytest.raises(TraceError, match="in training the model gives output"):
        tracing.trace_module(module, rows(2), name="net")


def test_other_example_values_do_not_matter() -> None:
    """Constants of an example's arguments (a flag, a number) are kept; its tensors are not."""
    module = Optional()
    zeros = tracing.trace_module(module, (torch.zeros(2, 4), None, 4.0), name="net")
    x = rows(3)
    assert torch.equal(zeros.eval_graph(x), module.eval()(x, None, 4.0))
