"""Decides what one cycle grafts: which kind at which site, from what was asked for or what measured best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graftkit.contracts import DendriteKind, Rule
from graftkit.core.errors import PlanError
from graftkit.core.sites import Site, select_sites
from graftkit.dendrites import Context, Full, Lowrank, options_of, parse_kind
from graftkit.model import TracedModel
from graftkit.plan import Graft, GraftPlan

DEFAULT = "default"
# What paid best in benchmarks/kinds.py (docs/results.md). A Linear over a sequence gets no `context` unless asked.
DEFAULT_KINDS: Mapping[str, DendriteKind] = {"conv": Context(units=4, mode="gate"), "linear": Lowrank(rank=2)}
# `context` cannot be trained by correlation, and what the published method grafts is a copy of the layer.
DEFAULT_KINDS_DETACHED: Mapping[str, DendriteKind] = {"conv": Full(), "linear": Full()}


def plan_cycle(
    traced: TracedModel,
    *,
    dendrites: Sequence[str] = (),
    sites: Sequence[str] = (),
    rule: Rule,
    join: str = "activation",
    mask: str | None = None,
) -> tuple[GraftPlan, tuple[str, ...]]:
    """One dendrite for each chosen site, and a line for each site that was left out and why.

    Args:
        traced: the model.
        dendrites: kinds as text, `context:units=2`; `conv=KIND` or `linear=KIND` for one sort of operator;
            none for the defaults.
        sites: glob patterns, `!` excludes; none for every site but a Linear that gives the model's output.
        rule: the learning rule, which may refuse a kind and decides whether inputs are detached.
        join: where dendrites join, see `Graft`.
        mask: the model input that says which positions count, see `Graft`.

    Raises:
        PlanError: an unknown kind, a pattern that matches nothing, a kind that does not fit a site that was
            named, or nothing left to graft.
    """
    if not traced.sites:
        raise PlanError(f"{traced.name} has no Linear or Conv call where a dendrite could be grafted")
    kinds = _kinds(dendrites, rule)
    grafts, left_out = [], []
    for site in select_sites(traced.sites, sites):
        kind = kinds.get("linear" if site.is_linear else "conv")
        reason = _reason(site, kind, rule, named=bool(sites))
        if reason or kind is None:
            left_out.append(f"{site.key}: {reason}")
            continue
        grafts.append(Graft(site.key, kind.name, options_of(kind), join=join, detach=rule.detaches, mask=mask))
    if not grafts:
        raise PlanError(f"nothing to graft: {'; '.join(left_out[:3])}")
    return GraftPlan(tuple(grafts)), tuple(left_out)


def _kinds(texts: Sequence[str], rule: Rule) -> dict[str, DendriteKind]:
    defaults = DEFAULT_KINDS_DETACHED if rule.detaches else DEFAULT_KINDS
    if not texts:
        return dict(defaults)
    kinds: dict[str, DendriteKind] = {}
    for text in texts:
        head, equals, rest = text.partition("=")
        only = head if equals and ":" not in head else None
        if only is not None and only not in defaults:
            raise PlanError(f"{text!r}: write KIND, conv=KIND or linear=KIND, as in conv=context:units=2")
        name = rest if only else text
        for operator in (only,) if only else defaults:
            kinds[operator] = defaults[operator] if name == DEFAULT else parse_kind(name)
    return kinds


def _reason(site: Site, kind: DendriteKind | None, rule: Rule, *, named: bool) -> str | None:
    """Why a site gets no dendrite; where the user named it, what does not fit is an error instead."""
    if kind is None:
        return "no kind was given for this sort of operator"
    refusal = kind.refuses(site)
    unfit = rule.refuses(kind.name)
    if unfit:
        raise PlanError(f"the rule {rule.name} cannot train {kind.name} dendrites: {unfit}")
    if refusal and named:
        raise PlanError(f"{kind.name} dendrites do not fit {site.key}: {refusal}")
    if refusal or named:
        return refusal
    if site.is_linear and site.feeds_output:
        return "it gives the model's output (name it with --sites to graft it all the same)"
    if kind.name == Context.name and site.is_sequence:
        return "context over a sequence would show a causal model its future (name it with --sites if that is wanted)"
    return None


def parameter_limit(text: str | int | None, given: int) -> int | None:
    """A cap on parameters: `+20%` of what the model has, or a number. Raises PlanError."""
    if text is None or isinstance(text, int):
        return text
    try:
        if text.startswith("+") and text.endswith("%"):
            return int(given * (1 + float(text[1:-1]) / 100))
        limit = int(text.replace(",", "").replace("_", ""))
    except ValueError:
        raise PlanError(f"--max-parameters {text!r}: write +20% or a number such as 12000") from None
    if limit < given:
        raise PlanError(f"--max-parameters {limit:,} is less than the model has already ({given:,})")
    return limit
