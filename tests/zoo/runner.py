"""Takes one case all the way: trace, graft, five steps of training, ONNX, onnxruntime; every claim is checked."""

from __future__ import annotations

import re
import time
import traceback as tracebacks
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import graftkit as gk
from graftkit import shipping, surgery, tracing
from graftkit.calling import flat_outputs
from graftkit.core.errors import GraftkitError, PlanError
from graftkit.dendrites import build_dendrite
from graftkit.model import TracedModel
from graftkit.plan import GraftPlan

from .base import cause
from .case import Call, Case, example_of
from .compare import Session, Wrong, close, difference
from .results import Row
from .training import check_training

TRACED_ROWS, OTHER_ROWS = 2, 5
_CALLS = re.compile(r"aten::(linear|conv\w*|convolution)$")


def examine(case: Case) -> Row:
    """The row of a case; whatever is raised on the way becomes its cause."""
    started = time.perf_counter()
    row = Row(case.name, case.family)
    try:
        _Walk(case, row).all()
        row.status = "pass"
        if case.expect == "refused":
            row.status, row.cause = "fail", "was to be refused, but went through"
    except Exception as error:  # the zoo's business is to write down what happens
        _judge(case, row, error)
    row.seconds = round(time.perf_counter() - started, 1)
    return row


def _judge(case: Case, row: Row, error: Exception) -> None:
    said = f"{type(error).__name__}: {error}" if isinstance(error, GraftkitError | Wrong) else cause(error)
    refused = case.expect == "refused" and isinstance(error, GraftkitError)
    if refused and all(word in str(error) for word in case.words):
        row.status, row.cause = "refused", said
        return
    row.status = "fail"
    row.cause = f"{said} ({_place(error)})".replace("\n", " ")
    row.traceback = "".join(tracebacks.format_exception(error))[-6000:]


def _place(error: BaseException) -> str:
    """Where graftkit, or else the zoo, was when it happened: file and line."""
    frames = tracebacks.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/graftkit/" in f.filename] or [f for f in frames if "/zoo/" in f.filename]
    if not ours:
        return "no line"
    parts = Path(ours[-1].filename).parts
    start = max(i for i, part in enumerate(parts) if part in ("graftkit", "zoo"))
    return f"{'/'.join(parts[start:])}:{ours[-1].lineno}"


@dataclass
class _Walk:
    """The way of one case; each step fills in what it found."""

    case: Case
    row: Row

    def all(self) -> None:
        self._at("building")
        self.module = self.case.build()
        self._at("tracing")
        self.traced = self._trace()
        self._at("grafting")
        self.model = gk.graft(self.traced, self._plan())
        self.row.grafts = len(self.model.plan.grafts)
        self._at("training")
        self.row.notes += check_training(self.model, self.fresh)
        self.row.trained = True
        self._at("evaluating")
        self._evaluate()
        self._at("exporting")
        self.session = Session(shipping.to_onnx(self.model))
        self._at("running")
        self._compare_runtime()

    def _at(self, stage: str) -> None:
        self.row.stage = stage

    def _trace(self) -> TracedModel:
        case, row = self.case, self.row
        torch.manual_seed(1)
        example = example_of(case.inputs(TRACED_ROWS))
        traced = gk.trace(self.module, example, name=case.name, output=case.output, parts=case.parts)
        sizes = dict.fromkeys(size for port in traced.signature.inputs for size in port.shape if isinstance(size, str))
        row.batch = "free" if "batch" in sizes else "fixed"
        row.free = [size for size in sizes if size != "batch"]
        row.sites, row.notes = len(traced.sites), list(traced.notes)
        row.skipped = dict(Counter(call.reason for call in traced.skipped))
        row.calls = sum(bool(_CALLS.match(_operator(node))) for node in traced.eval_graph.graph.nodes)
        listed = row.sites + sum(call.operator.startswith(("linear", "conv")) for call in traced.skipped)
        if listed < row.calls:
            raise Wrong(f"{row.calls} Linear and Conv calls, but only {listed} are sites or skipped with a reason")
        return traced

    def _plan(self) -> GraftPlan:
        """The default plan as `augment` takes it; where every site gives the output, those all the same."""
        try:
            plan = gk.make_plan(self.traced)
        except PlanError as error:
            if "it gives the model's output" not in str(error):
                raise
            self.row.notes.append("its only sites give the output; they were named")
            return gk.make_plan(self.traced, sites=[site.key for site in self.traced.sites])
        lost = surgery.lost_grafts(surgery.empty(self.traced), plan.grafts, build_dendrite)
        self.row.notes += [f"no error reaches {site}" for site in lost]
        return GraftPlan(tuple(graft for graft in plan.grafts if graft.site not in lost))

    @property
    def whole(self) -> bool:
        """Whether the module itself was traced, and not a part or a copy of it."""
        return self.traced.source is self.module

    def rows(self, wanted: int) -> int:
        return wanted if self.row.batch == "free" else TRACED_ROWS

    def fresh(self, rows: int) -> tuple[Tensor, ...]:
        """Fresh inputs in the signature's order."""
        return self.flat(self.case.inputs(self.rows(rows)))

    def flat(self, call: Call) -> tuple[Tensor, ...]:
        """Arguments in the signature's order; for a part of the module, its own example with noise."""
        ports, given = self.traced.signature.inputs, self.traced.inputs
        if self.whole or self.case.parts is False:
            given = tracing.flat_inputs(self.module, example_of(call))
        else:
            rows = next(leaf for leaf in call[0] if isinstance(leaf, Tensor)).shape[0]
            given = tracing.resized(given, ports, "batch", rows)
            given = tuple(x + torch.randn_like(x) * x.std() if x.is_floating_point() else x for x in given)
        return tuple(x.to(getattr(torch, port.dtype)) for x, port in zip(given, ports, strict=True))

    def _outputs(self, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        with torch.no_grad():
            return dict(zip(self.traced.signature.output_names, self.model.outputs(*inputs), strict=True))

    def _evaluate(self) -> None:
        """In evaluation the silenced graph is the module itself with the trained weights."""
        self.model.eval()
        call = self.case.inputs(self.rows(OTHER_ROWS))
        inputs = self.flat(call)
        trained, again = self._outputs(inputs), self._outputs(inputs)
        live = self._live(call, inputs)
        self.steady = [n for n in trained if torch.equal(trained[n].nan_to_num(), again[n].nan_to_num())]
        if len(self.steady) < len(trained):
            self.row.notes.append(f"random in evaluation: {', '.join(n for n in trained if n not in self.steady)}")
            drawn = self._live(call, inputs)
            if any(torch.equal(live[n], drawn[n]) for n in trained if n not in self.steady):
                raise Wrong("outputs are random in evaluation, and the module's own are not")
        held = {site: self.model.silence(site) for site in self.model.plan.sites()}
        silent = self._outputs(inputs)
        for site, kept in held.items():
            self.model.unsilence(site, kept)
        self.row.live = close(_only(live, self.steady), silent, "silenced, against the module itself")
        self.row.effect = max(_differences(_only(trained, self.steady), silent))
        if not self.row.effect > 0:
            raise Wrong("the trained dendrites change no output")

    def _live(self, call: Call, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """The module's own outputs in evaluation, by name."""
        if not self.whole:
            return dict(zip(self.traced.signature.output_names, tracing.call_source(self.traced, inputs), strict=True))
        self.module.train()
        self.module.eval()
        args, keywords = call
        with torch.no_grad():
            return dict(flat_outputs(self.module(*args, **keywords)).tensors)

    def _compare_runtime(self) -> None:
        self.row.parity = self._parity(self.fresh(OTHER_ROWS), f"onnxruntime on {self.rows(OTHER_ROWS)} rows")
        if self.case.other is None:
            return
        if not self.row.free:
            self.row.other = "fixed"
            return
        inputs = self.flat(self.case.other(self.rows(3)))
        self.row.parity = max(self.row.parity, self._parity(inputs, "onnxruntime at another size"))
        self.row.other = "right"

    def _parity(self, inputs: tuple[Tensor, ...], what: str) -> float:
        names = self.traced.signature.input_names
        given = self.session.run(dict(zip(names, inputs, strict=True)))
        return close(_only(self._outputs(inputs), self.steady), given, what)


def _operator(node: torch.fx.Node) -> str:
    schema = getattr(node.target, "_schema", None)
    return schema.name if schema is not None else ""


def _only(values: dict[str, Tensor], names: list[str]) -> dict[str, Tensor]:
    return {name: values[name] for name in names}


def _differences(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> list[float]:
    return [difference(value, theirs[name]) for name, value in ours.items()] or [0.0]
