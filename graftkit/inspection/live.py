"""Describes a traced or grafted model: its sites, and what each received."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import groupby

import torch

from graftkit.core.records import DendriteRecord, Inspection, SiteRecord, SkippedRecord
from graftkit.core.sites import Site
from graftkit.model import GraftedModel, TracedModel

GAIN = "gain is the validation metric lost when a site's dendrites are switched off and all else stays as trained"
COUNTED = "multiply-adds count Linear and Conv calls and dendrites, nothing else"


def coverage(traced: TracedModel) -> str:
    """How many Linear and Conv calls there are, how many are sites, and why each other is not."""
    calls = len(traced.sites) + len(traced.skipped)
    if not traced.skipped:
        return f"all {calls} Linear and Conv calls are sites"
    reasons = Counter(call.reason for call in traced.skipped)
    left = "; ".join(
        f"{count} not: {reason} ({', '.join(_keys(traced, reason))})" for reason, count in reasons.most_common()
    )
    return f"{len(traced.sites)} of {calls} Linear and Conv calls are sites; {left}"


def _keys(traced: TracedModel, reason: str, most: int = 3) -> list[str]:
    keys = [call.key for call in traced.skipped if call.reason == reason]
    return [*keys[:most], f"{len(keys) - most} more"] if len(keys) > most else keys


def inspect_traced(traced: TracedModel, *, format: str = "module") -> Inspection:
    """What a traced model consists of, before anything is grafted."""
    names = {id(tensor): tensor for tensor in traced.tensors().values() if isinstance(tensor, torch.nn.Parameter)}
    return Inspection(
        name=traced.name,
        format=format,
        sites=tuple(_site(site) for site in traced.sites),
        skipped=tuple(SkippedRecord(call.key, call.operator, call.reason) for call in traced.skipped),
        edges=traced.edges,
        parameters=sum(parameter.numel() for parameter in names.values()),
        macs=sum(site.macs for site in traced.sites),
        notes=(coverage(traced), *traced.notes, COUNTED),
        signature=traced.signature,
    )


def inspect_grafted(model: GraftedModel, gains: Mapping[str, float], *, format: str = "run") -> Inspection:
    """What a grafted model consists of; `gains` is the validation metric lost without a site's dendrites."""
    plain = inspect_traced(model.traced, format=format)
    sites = tuple(_site(site, _dendrites(model, site.key), gains.get(site.key)) for site in model.traced.sites)
    return Inspection(
        name=plain.name,
        format=format,
        sites=sites,
        skipped=plain.skipped,
        edges=plain.edges,
        parameters=model.parameter_count(),
        macs=model.macs(),
        notes=(*plain.notes, GAIN) if gains else plain.notes,
        signature=plain.signature,
    )


def _site(site: Site, dendrites: tuple[DendriteRecord, ...] = (), gain: float | None = None) -> SiteRecord:
    return SiteRecord(
        site=site.key,
        operator=site.operator,
        input_shape=site.input_shape,
        output_shape=site.output_shape,
        kernel=site.geometry.kernel if site.geometry else (),
        parameters=site.parameters,
        macs=site.macs,
        dendrites=dendrites,
        gain=gain,
    )


def _dendrites(model: GraftedModel, key: str) -> tuple[DendriteRecord, ...]:
    """The dendrites of a site, neighbours of one kind and options as one record."""
    grafts = model.plan.at(key)
    if not grafts:
        return ()
    members = list(zip(grafts, model.at(key).members(), strict=True))
    records = []
    for (kind, options), group in groupby(members, key=lambda pair: (pair[0].kind, pair[0].options)):
        dendrites = [dendrite for _, dendrite in group]
        strengths = torch.stack([dendrite.served() for dendrite in dendrites])
        serving = strengths.amax(0) > 0
        records.append(
            DendriteRecord(
                kind=kind,
                options=options,
                count=len(dendrites),
                neurons=int(serving.sum()),
                strength=float(strengths[strengths > 0].mean()) if serving.any() else 0.0,
                parameters=sum(p.numel() for dendrite in dendrites for p in dendrite.parameters()),
                macs=sum(dendrite.macs for dendrite in dendrites),
            )
        )
    return tuple(records)
