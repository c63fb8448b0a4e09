"""Measures networks side by side, each as an ONNX file: size, memory, latency, energy."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from graftkit import benching
from graftkit.benching.energy import Meter
from graftkit.core.compressions import NetworkRecord
from graftkit.core.errors import RuntimeMissingError
from graftkit.model import GraftedModel
from graftkit.shipping import export


def benched(
    rows: Mapping[str, tuple[NetworkRecord, GraftedModel]], tell: Callable[[str], None]
) -> dict[str, NetworkRecord]:
    """The rows with what their files measure, in turns, in onnxruntime on one thread; all against the first.

    Args:
        rows: by name; the first is what the others are compared with.
        tell: told what happens.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, (name, (_, model)) in enumerate(rows.items()):
            file = benching.read_file(export(model.eval(), Path(folder) / f"{number}.onnx"), name)
            files.append(replace(file, sizes=_sizes(model)))
        report = benching.bench(files, meter=_meter(), on_stage=tell)
    timings = {timing.subject: timing for timing in report.timings}
    subjects = {subject.name: subject for subject in report.subjects}
    found = {}
    for name, (record, _) in rows.items():
        timing, size = timings[name], subjects[name].size
        if timing.trouble:
            found[name] = replace(record, size=size)
            continue
        ratio = timing.versus
        versus = None if ratio is None else (ratio.median, ratio.low, ratio.high)
        found[name] = replace(
            record,
            size=size,
            memory=timing.memory,
            latency=timing.median,
            p90=timing.p90,
            versus=versus,
            energy=timing.energy,
        )
    return found


def _meter() -> Meter | None:
    """What reads energy, where zeus is installed."""
    try:
        return Meter()
    except RuntimeMissingError:
        return None


def _sizes(model: GraftedModel) -> dict[str, int]:
    """What free sizes of the inputs were in the example."""
    ports, example = model.traced.signature.inputs, model.traced.inputs
    pairs = [pair for port, x in zip(ports, example, strict=True) for pair in zip(port.shape, x.shape, strict=True)]
    return {name: size for name, size in pairs if isinstance(name, str)}
