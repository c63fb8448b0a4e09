"""Decides what one cycle grafts: which kind at which site, from what was asked for or what measured best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graftkit import tracing
from graftkit.contracts import DendriteKind
from graftkit.core.errors import PlanError, did_you_mean
from graftkit.core.sites import Site, is_named, select_sites
from graftkit.dendrites import Adapter, Around, Context, Full, Lowrank, Own, options_of, parse_kind
from graftkit.learning import Rule
from graftkit.model import TracedModel
from graftkit.plan import Graft, GraftPlan

DEFAULT, BOTH = "default", "+"
# Additive context was nowhere below the control and led for Linear (docs/results.md); its gating form gained most on
# CIFAR-10 (docs/frontier.md) and lost a third of a point on digits. The second kind is for a site that the first does
# not fit.
CONTEXT, SHARED = Context(units=4, mode="add"), Lowrank(rank=1)
DEFAULT_KINDS: Mapping[str, tuple[DendriteKind, ...]] = {"conv": (CONTEXT, SHARED), "linear": (CONTEXT, SHARED)}
# What the published method grafts is a copy of the layer.
DEFAULT_KINDS_DETACHED: Mapping[str, tuple[DendriteKind, ...]] = {"conv": (Full(),), "linear": (Full(),)}
# Where the network stands still: above LoRA at equal size in benchmarks/adapt.py, and far above context and `lowrank`.
DEFAULT_KINDS_FROZEN: Mapping[str, tuple[DendriteKind, ...]] = {
    "conv": (Adapter(rank=2, centre=True), Adapter(rank=2)),
    "linear": (Adapter(rank=2),),
}

_OVER_POSITIONS = (Context.name, Own.name)  # what they say at one is made of all
_SEEING = (*_OVER_POSITIONS, Around.name)  # or of those before and behind

# What a trial chooses from. A copy of the layer repeats what the layer sees, and may still pay for some neurons.
TRIED = ("context:units=4,mode=add", "context:units=4,mode=gate", "own", "around", "lowrank:rank=1", "full")
TRIED_FROZEN = ("adapter:rank=2", "context:units=4,mode=gate", "lowrank:rank=1,activation=linear")


@dataclass(frozen=True)
class _Offer:
    """Kinds for one sort of operator: the first that fits a site is grafted there, or with `all` each that fits."""

    kinds: tuple[DendriteKind, ...] = ()
    all: bool = False


def plan_cycle(
    traced: TracedModel,
    *,
    dendrites: Sequence[str] = (),
    sites: Sequence[str] = (),
    rule: Rule,
    join: str = "activation",
    mask: str | None = None,
    every: bool = False,
) -> tuple[GraftPlan, tuple[str, ...]]:
    """One dendrite for each chosen site, or one of each kind; and a line for each that was left out and why.

    Args:
        traced: the model.
        dendrites: kinds as text, `context:units=2`; `conv=KIND` or `linear=KIND` for one sort of operator,
            `KIND+KIND` for one of each at a site; none for the defaults.
        sites: glob patterns, `!` excludes; none for every site but a Linear that gives the model's output, and for
            every site where the network stands still.
        rule: the learning rule, which decides whether inputs are detached.
        join: where dendrites join, see `Graft`.
        mask: the model input that says which positions of a sequence count, [batch, length]; see `Graft`.
        every: one dendrite of each kind that fits, in the order given, for a trial to choose from.

    Raises:
        PlanError: an unknown kind or mask, a pattern that matches nothing, a kind that does not fit a site that
            was named, or nothing left to graft.
    """
    if not traced.sites:
        hidden = "; ".join(dict.fromkeys(call.reason for call in traced.skipped))
        raise PlanError(
            f"{traced.name} has no Linear or Conv call where a dendrite could be grafted"
            + (f" (of {len(traced.skipped)}: {hidden})" if hidden else "")
        )
    tried = (TRIED_FROZEN if rule.freeze else TRIED) if every else ()
    offers = _offers(dendrites or tried, rule, every=every)
    grafts, left_out = [], []
    chosen = select_sites(traced.sites, sites)
    seen = _views(traced, chosen, [kind for offer in offers.values() for kind in offer.kinds], mask)
    for site in chosen:
        offer = offers.get("linear" if site.is_linear else "conv", _Offer())
        asked = _Asked(is_named(site, sites), bool(dendrites), every, mask is not None, site.key in seen.masked)
        reasons = [_reason(site, kind, rule, asked, alike=site.key in seen.alike) for kind in offer.kinds]
        fitting = [kind for kind, reason in zip(offer.kinds, reasons, strict=True) if reason is None]
        if not fitting:
            why = _why(offer, reasons) if reasons else "no kind was given for this sort of operator"
            if site.key in sites or site.path in sites:  # named in so many words, not by a pattern
                raise PlanError(f"no dendrite can be grafted at {site.key}: {why}")
            left_out.append(f"{site.key}: {why}")
            continue
        if offer.all and not every:
            refused = [(kind.name, why) for kind, why in zip(offer.kinds, reasons, strict=True) if why is not None]
            if refused and {site.key, site.path} & set(sites):
                raise PlanError(f"no {refused[0][0]} can be grafted at {site.key}: {refused[0][1]}")
            left_out += [f"{site.key}: no {name}: {why}" for name, why in refused]
        taken = fitting if offer.all else fitting[:1]
        # all dendrites of a site agree in their mask, which others do not read
        counted = mask if asked.masked and any(kind.name in _OVER_POSITIONS for kind in taken) else None
        for kind in taken:
            grafts.append(Graft(site.key, kind.name, options_of(kind), join=join, detach=rule.detaches, mask=counted))
    if not grafts:
        raise PlanError(f"nothing to graft: {'; '.join(left_out[:3])}")
    if mask is not None and not any(graft.mask for graft in grafts):
        raise PlanError(
            f"nothing would read the mask {mask!r}: {' and '.join(_OVER_POSITIONS)} do, over sequences [batch, length,"
            f" features] of its positions, {list(seen.mask_shape)} in the example"
        )
    return GraftPlan(tuple(grafts)), tuple(left_out)


def _offers(texts: Sequence[str], rule: Rule, *, every: bool) -> dict[str, _Offer]:
    """The kinds for each sort of operator, in order: the last that was asked for, or every, or the defaults."""
    learning = DEFAULT_KINDS_FROZEN if rule.freeze else DEFAULT_KINDS
    defaults = DEFAULT_KINDS_DETACHED if rule.detaches else learning
    if not texts:
        return {operator: _Offer(kinds, every) for operator, kinds in defaults.items()}
    offers: dict[str, _Offer] = {}
    for text in texts:
        head, equals, rest = text.partition("=")
        only = head if equals and ":" not in head else None
        if only is not None and only not in defaults:
            raise PlanError(f"{text!r}: write KIND, conv=KIND or linear=KIND, as in conv=context:units=2")
        names = (rest if only else text).split(BOTH)
        if DEFAULT in names and len(names) > 1:
            raise PlanError(f"{text!r}: {DEFAULT} is a choice among kinds and goes with no other; write their names")
        for operator in (only,) if only else defaults:
            found = defaults[operator] if names == [DEFAULT] else tuple(map(parse_kind, names))
            before = offers.get(operator, _Offer()).kinds if every else ()
            kinds = (*before, *(kind for kind in found if kind not in before))
            offers[operator] = _Offer(kinds, every or len(names) > 1)
    return offers


@dataclass(frozen=True)
class _Asked:
    """Whether a site was named, whether the kind was or is one of all that are tried, and what there is of a mask.

    Attributes:
        masked: whether the mask that was given says which of the site's positions count.
    """

    named: bool
    kind: bool
    tried: bool
    mask: bool
    masked: bool


def _reason(site: Site, kind: DendriteKind, rule: Rule, asked: _Asked, *, alike: bool) -> str | None:
    """Why a kind is not grafted at a site, None if it is; `alike`: whether the output looks at its positions alike."""
    if refusal := kind.refuses(site):
        return refusal
    if kind.name in _SEEING and _is_line(site) and not (asked.named and asked.kind):
        if not alike:
            return (
                f"over a sequence {kind.name} would show a causal model its future, and this one may be causal (name"
                " site and kind, --sites and --dendrites, if it is not)"
            )
        if site.is_linear and len(site.output_shape) == 3 and -1 in _positions(site) and not asked.masked:
            return (
                f"{kind.name} would count the padding of a sequence of any length ("
                + ("the mask is for other positions" if asked.mask else "a mask can say which positions count")
                + "; or name site and kind)"
            )
        if site.is_linear and not (asked.kind or asked.tried or asked.masked):
            return f"{kind.name} over tokens is for those who ask for it: it has not been measured"
    if site.is_linear and site.feeds_output and not asked.named and not rule.freeze:
        return "it gives the model's output (name it with --sites to graft it all the same)"
    return None


def _is_line(site: Site) -> bool:
    """Whether its positions may be moments, one after another."""
    return site.positions > 1 and (site.is_linear or site.spatial_dims == 1)


def _positions(site: Site) -> list[int]:
    """The sizes of its dimensions of positions, -1 where they are free."""
    return [size for dim, size in enumerate(site.output_shape) if dim not in (site.batch_dim, site.channel_dim)]


@dataclass(frozen=True)
class _Seen:
    """Of the sites at which the output looks at all positions alike, and those whose positions the mask counts."""

    alike: frozenset[str] = frozenset()
    masked: frozenset[str] = frozenset()
    mask_shape: tuple[int, ...] = ()


def _views(traced: TracedModel, sites: Sequence[Site], kinds: Sequence[DendriteKind], mask: str | None) -> _Seen:
    """What has to be known of sequences before a kind is grafted there that sees all of them."""
    names = traced.signature.input_names
    if mask is not None and mask not in names:
        raise PlanError(f"the model has no input {mask!r} to use as a mask.{did_you_mean(mask, names)}")
    given = None if mask is None else traced.inputs[names.index(mask)]
    if given is not None and (given.ndim != 2 or not bool(((given == 0) | (given == 1)).all())):
        raise PlanError(f"a mask is [batch, length] of ones for what counts and zeros; the input {mask!r} is not")
    shape = () if given is None else tuple(given.shape)
    lines = [site for site in sites if _is_line(site)]
    if not lines or not any(kind.name in _SEEING for kind in kinds):
        return _Seen(mask_shape=shape)
    found = tracing.views(traced, lines)
    masked = {
        site.key
        for site in lines
        if given is not None and site.is_linear and _rows_first(found.shapes.get(site.key, ()), site)[:-1] == shape
    }
    return _Seen(found.alike, frozenset(masked), shape)


def _rows_first(shape: tuple[int, ...], site: Site) -> tuple[int, ...]:
    """[length, batch, features] as [batch, length, features]."""
    return (shape[1], shape[0], *shape[2:]) if site.batch_dim == 1 and len(shape) > 1 else shape


def _why(offer: _Offer, reasons: Sequence[str | None]) -> str:
    """Why none of the kinds fits: of a choice, why not the last; of those wanted together, why not each."""
    if not offer.all or len(set(reasons)) == 1:
        return str(reasons[-1])
    return "; ".join(f"no {kind.name}: {why}" for kind, why in zip(offer.kinds, reasons, strict=True))


def parameter_limit(text: str | int | None, given: int) -> int | None:
    """A cap on parameters: `+20%` of what the model has, or a number. Raises PlanError."""
    if text is None or isinstance(text, int):
        return text
    try:
        if text.startswith("+") and text.endswith("%"):
            limit = int(given * (1 + float(text[1:-1]) / 100))
        else:
            limit = int(text.replace(",", "").replace("_", ""))
    except (ValueError, OverflowError):
        raise PlanError(f"--max-parameters {text!r}: write +20% or a number such as 12000") from None
    if limit < given:
        raise PlanError(f"--max-parameters {limit:,} is less than the model has already ({given:,})")
    return limit
