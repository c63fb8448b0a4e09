"""Every runtime on files of many architectures, grafted with dendrites that speak: docs/runtimes.md's table.

With --precision, the sample models in smaller numbers instead: docs/precision.md's.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import graftkit as gk
from graftkit import checking
from graftkit.core.errors import GraftkitError, PlanError, RuntimeMissingError
from graftkit.folding import DEFAULT_OPSET
from graftkit.model import GraftedModel, TracedModel
from graftkit.plan import GraftPlan
from graftkit.precisions import PRECISIONS
from graftkit.runtimes import RUNTIMES
from tests.zoo.case import example_of
from tests.zoo.cases import find

SAMPLES = Path(__file__).parents[1] / "sample_models"
# Untrained, timm/efficientvit_b0 and torchvision/shufflenet_v2_x0_5 say the same to any input, to 1e-5 and 1e-4 of
# their scale, and timm/mixer_s32_224 says zero: a runtime that reads no input would agree.
ZOO = (
    "classic/rnn", "classic/lstm", "classic/gru_stacked_both_ways", "classic/conv1d", "classic/unet",
    "hf/BertForSequenceClassification", "hf/GPT2LMHeadModel", "hf/T5ForConditionalGeneration",
    "hf/LlamaForCausalLM", "hf/ViTForImageClassification", "hf/Wav2Vec2ForSequenceClassification",
    "timm/convnext_atto", "timm/vit_tiny_patch16_224", "timm/mobilevit_xxs", "timm/regnetx_002",
    "timm/ghostnet_050", "torchvision/squeezenet1_1", "torchvision/mobilenet_v3_small",
    "torchvision/efficientnet_b0", "torchvision/resnet18",
    "classic/temporal_convolution", "classic/separable_cnn", "timm/poolformer_s12", "timm/repvit_m0_9",
    "torchvision/densenet121", "torchvision/lraspp_mobilenet_v3_large",
)  # fmt: skip
UNWRITTEN = "graftkit does not write it"
BEGIN, END = "<!-- table: benchmarks/runtimes.py -->", "<!-- end of table -->"
TOLERANCE = 1e-4
TIMES, LEAST = 4, 1e-2  # of onnxruntime's own difference, or of the outputs' scale: what smaller numbers may be off


@dataclass(frozen=True)
class Made:
    """A grafted model, and the rows it is asked."""

    model: GraftedModel
    batches: Sequence[tuple[torch.Tensor, ...]]


def sample(name: str) -> Made:
    """A sample model on digits."""
    rows = gk.load_data("digits")
    return made(gk.load(SAMPLES / f"{name}.pt", trust=True), rows.example(), [rows.example(count) for count in (1, 3)])


def zoo(name: str) -> Made:
    """A case of the zoo, untrained."""
    case = find(name)
    calls = [case.inputs(count) for count in (2, 1, 3)]
    example, *others = (example_of(call) for call in calls)
    return made(case.build(), example, others)


def made(source: Any, example: Any, others: Sequence[Any]) -> Made:
    """Dendrites on all sites, none of them silent."""
    traced = gk.trace(source, example, dynamic="batch")
    model = gk.graft(traced, _plan(traced), seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.dendrites.parameters():
            if not parameter.any():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return Made(model.eval(), [model.arrange(other) for other in others])


def _plan(traced: TracedModel) -> GraftPlan:
    """Both kinds; where `context` would show a causal model its future, the other alone."""
    try:
        return gk.make_plan(traced, dendrites=("full", "context"))
    except PlanError:
        return gk.make_plan(traced, dendrites="full")


def measure(what: Made, path: Path, name: str) -> dict[str, Any]:
    """The largest difference in one runtime, and the time of one row; or why there is none."""
    names = what.model.traced.signature.input_names
    try:
        session = RUNTIMES[name].open(path, threads=1)
        try:
            worst = checking.compare(session, lambda batch: what.model.outputs(*batch), names, what.batches)
            row = checking.feed(names, what.batches[0])
            session.seconds(row, 2)
            return {"difference": worst, "ms": 1e3 * float(np.median(session.seconds(row, 5)))}
        finally:
            session.close()
    except GraftkitError as error:
        return {"why": str(error), "missing": isinstance(error, RuntimeMissingError)}


def measured(names: Sequence[str], runtimes: Sequence[str], raw: Path) -> Iterator[dict[str, Any]]:
    """A result a model and runtime; those that are there already are not measured again."""
    there = [json.loads(line) for line in raw.read_text().splitlines()] if raw.is_file() else []
    yield from there
    known = {(one["model"], one["runtime"]) for one in there}
    for name in names:
        wanted = [runtime for runtime in runtimes if (name, runtime) not in known]
        if not wanted:
            continue
        with tempfile.TemporaryDirectory() as folder, raw.open("a") as log:
            for one in _of(name, wanted, Path(folder, "model.onnx")):
                log.write(json.dumps(one) + "\n")
                log.flush()
                print(one, file=sys.stderr)
                yield one


def _of(name: str, runtimes: Sequence[str], path: Path) -> Iterator[dict[str, Any]]:
    begun = time.monotonic()
    model, _, precision = name.partition(" ")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            what = sample(model.partition("/")[2]) if model.startswith("sample_models/") else zoo(model)
            how: dict[str, Any] = {"opset": max(DEFAULT_OPSET, PRECISIONS[precision].opset)} if precision else {}
            how |= {"rows": gk.load_data("digits"), "precision": precision, "tolerance": 1.0} if precision else {}
            gk.export(what.model, path, **how)
    except Exception as error:  # of any model's own code
        why = f"{UNWRITTEN}: {str(error).splitlines()[0][:200]}"
        yield from ({"model": name, "runtime": runtime, "why": why} for runtime in runtimes)
        return
    print(f"{name}: written in {time.monotonic() - begun:.0f} s", file=sys.stderr)
    for runtime in runtimes:
        yield {"model": name, "runtime": runtime, **measure(what, path, runtime)}


def table(found: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Markdown: a row a model, a column a runtime, and below it what is wrong with numbers."""
    cells = {(one["model"], one["runtime"]): one for one in found if one["model"] in names}
    notes: dict[str, int] = {}
    lines = [f"| model | {' | '.join(RUNTIMES)} |", f"| --- |{' ---: |' * len(RUNTIMES)}"]
    for name in names:
        row = [_cell(cells.get((name, runtime)), notes, _most(cells, name)) for runtime in RUNTIMES]
        lines.append(f"| {name} | {' | '.join(row)} |")
    agree = "agree" if any(" " in name for name in names) else f"agree to {TOLERANCE:g}"
    lines.append(f"| **{agree}** | {' | '.join(_counted(cells, runtime) for runtime in RUNTIMES)} |")
    return [*lines, "", *(f"{number}. {why}" for why, number in notes.items())]


def told(page: str) -> Iterator[dict[str, Any]]:
    """What a page's table says, as `measured` gives it: for the models that are not measured this time."""
    inside = page.partition(BEGIN)[2].partition(END)[0].splitlines()
    notes = dict(re.findall(r"^(\d+)\. (.*)$", "\n".join(inside), flags=re.MULTILINE))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in inside if line.startswith("|")]
    for model, *cells in rows[2:-1]:
        for runtime, cell in zip(rows[0][1:], cells, strict=True):
            refused = re.fullmatch(r"no \((\d+)\)", cell)
            if refused:
                yield {"model": model, "runtime": runtime, "why": notes[refused[1]].replace("\\|", "|")}
            elif cell:
                yield {"model": model, "runtime": runtime, "difference": float(cell.strip("*"))}


def _counted(cells: Mapping[tuple[str, str], Mapping[str, Any]], runtime: str) -> str:
    column = [one for (_, name), one in cells.items() if name == runtime and not one.get("missing")]
    return f"{sum(_agrees(one, _most(cells, one['model'])) for one in column)} of {len(column)}"


def _most(cells: Mapping[tuple[str, str], Mapping[str, Any]], name: str) -> float:
    """How much a row's runtimes may be off, as `graftkit verify` has it."""
    own = cells.get((name, "onnxruntime"), {}).get("difference", 0.0)
    return max(TIMES * own, LEAST) if " " in name else TOLERANCE


def _agrees(one: Mapping[str, Any] | None, most: float) -> bool:
    return one is not None and one.get("difference", math.inf) <= most


def _cell(one: Mapping[str, Any] | None, notes: dict[str, int], most: float) -> str:
    if one is None or one.get("missing"):
        return ""
    if "difference" in one:
        return f"{one['difference']:.0e}" if _agrees(one, most) else f"**{one['difference']:.0e}**"
    why = re.sub(r"/tmp/\S+", "...", str(one["why"])).replace("|", "\\|")
    return f"no ({notes.setdefault(why, len(notes) + 1)})"


def main() -> None:
    """Measure what is not measured yet, and write the table."""
    made_of = argparse.ArgumentParser(description=__doc__)
    made_of.add_argument("--raw", type=Path, default=Path("runs/bench/runtimes.jsonl"))
    made_of.add_argument("--write", type=Path, help="a page whose table is replaced")
    made_of.add_argument(
        "--only", action="append", default=[], help="a part of models' names; of others a page's rows stay"
    )
    made_of.add_argument("--runtime", action="append", choices=list(RUNTIMES))
    made_of.add_argument("--precision", action="append", help="of the sample models, instead of all in fp32")
    asked = made_of.parse_args()
    torch.set_num_threads(1)
    samples = [f"sample_models/{path.stem}" for path in sorted(SAMPLES.glob("*.pt"))]
    every = [f"{name} {one}" for one in asked.precision for name in samples] if asked.precision else [*samples, *ZOO]
    names = [name for name in every if not asked.only or any(part in name for part in asked.only)]
    asked.raw.parent.mkdir(parents=True, exist_ok=True)
    found = list(measured(names, asked.runtime or list(RUNTIMES), asked.raw))
    if asked.write is not None:
        found = [*told(asked.write.read_text()), *(one for one in found if not one.get("missing"))]
    known = {one["model"] for one in found}
    known -= {one["model"] for one in found if " " in one["model"] and str(one.get("why")).startswith(UNWRITTEN)}
    lines = table(found, [name for name in every if name in known])
    versions = ", ".join(f"{name} {_version(name)}" for name in RUNTIMES)
    text = "\n".join([BEGIN, "", *lines, "", f"Versions: {versions}.", "", END])
    if asked.write is None:
        print(text)
        return
    page = asked.write.read_text()
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    asked.write.write_text(before + text + after)


def _version(name: str) -> str:
    try:
        return RUNTIMES[name].version()
    except RuntimeMissingError:
        return "(not there)"


if __name__ == "__main__":
    main()
