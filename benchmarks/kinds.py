"""Measures which kind of dendrite pays, against a control with the same epochs and against wider plain nets."""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass

import torch
from _arms import (
    HEADINGS,
    Arm,
    Net,
    Progress,
    Results,
    Trainee,
    compared,
    finish,
    heading,
    keep_raw,
    markdown,
    nets,
    parser,
)

CONTROL, BASE = "control: as many epochs again", "plain, before that"
CONTEXTS = tuple(f"context:units={units},mode={mode}" for mode in ("add", "gate") for units in (1, 2, 4))
LOWRANKS = tuple(f"lowrank:rank={rank}" for rank in (1, 2, 4))
CONV_KINDS = ("full", "pointwise", "depthwise", *LOWRANKS, *CONTEXTS, "own", "around", "own+around")
LINEAR_KINDS = ("full", *LOWRANKS, *CONTEXTS, "own")
TELLING = ("full", "lowrank:rank=2", "context:units=4,mode=add", "context:units=4,mode=gate")
EVERYWHERE = ("*",)


@dataclass(frozen=True)
class Row:
    """One way to graft: its name in the table, the kinds, and the sites."""

    name: str
    kinds: tuple[str, ...]
    sites: tuple[str, ...] = ()


def grafts(net: str, *, few: bool) -> list[Row]:
    """What is grafted onto a net; output layers only where the row's name says so."""
    if net.endswith("mlp"):
        chosen = TELLING if few else LINEAR_KINDS
        heads = () if few else ("full", "lowrank:rank=2", "context:units=4,mode=gate")
        return [Row(k, (k,)) for k in chosen] + [Row(f"{k}, output layer too", (k,), EVERYWHERE) for k in heads]
    rows = [Row(kind, (kind,)) for kind in (TELLING if few else CONV_KINDS)]
    gate, low = TELLING[3], TELLING[1]
    both = Row(f"{gate}; {low} at the output layer", (f"conv={gate}", f"linear={low}"), EVERYWHERE)
    return rows if few else [*rows, both]


def measure(name: str, net: Net, seed: int, options: argparse.Namespace, results: Results, progress: Progress) -> None:
    """All arms of one seed."""

    def keep(row: str, arm: Arm) -> None:
        results[row].append(arm)
        progress.say(name, seed, row, arm)

    data = net.data(seed)
    trainee = Trainee(net.fresh(net.widths, seed), data, seed)
    after = (options.epochs, options.learning_rate)
    keep(BASE, trainee.scratch(options.base_epochs, options.base_learning_rate))
    keep(CONTROL, trainee.control(*after))
    wanted = [row for row in grafts(name, few=name in options.few) if not options.kinds or row.name in options.kinds]
    for graft in wanted:
        keep(graft.name, trainee.graft(graft.kinds, *after, sites=graft.sites, join="activation"))
    for widths in () if options.kinds else plains(name, net, results, few=name in options.few):
        plain = Trainee(net.fresh(widths, seed), data, seed)
        row = f"plain {'-'.join(map(str, widths))} from scratch, all epochs at once"
        keep(row, plain.scratch(options.base_epochs + options.epochs, options.base_learning_rate))


def plains(name: str, net: Net, results: Results, *, few: bool) -> list[tuple[int, ...]]:
    """The grafted net's own widths, and those that match the kind that suits the operator, and `full`."""
    small = "lowrank:rank=2" if name.endswith("mlp") else "context:units=4,mode=gate"
    kinds = (small,) if few else (small, "full")
    return [net.widths, *(net.wider(results[kind][0].parameters) for kind in kinds)]


def main() -> None:
    """Run what was asked for and print a table for each net."""
    made = parser(__doc__)
    made.add_argument("--few", nargs="*", default=(), help="nets for which only the most telling kinds are measured")
    made.add_argument("--kinds", nargs="*", default=(), help="only these rows, beside the control")
    options = made.parse_args()
    known = {row.name for name in nets(options) for row in grafts(name, few=name in options.few)}
    if not known.issuperset(options.kinds):
        made.error(f"--kinds: there are {', '.join(sorted(known))}")
    torch.set_num_threads(1)
    raw: dict[str, Results] = {}
    text, progress = [heading(options, options.seeds)], Progress()
    for name, net in nets(options).items():
        raw[name] = defaultdict(list)
        for seed in range(options.seeds):
            measure(name, net, seed, options, raw[name], progress)
            keep_raw(options, raw)
        text += [f"**{name}**", markdown(HEADINGS, compared(raw[name], CONTROL, base=BASE))]
    finish("\n\n".join(text), options, raw)


if __name__ == "__main__":
    main()
