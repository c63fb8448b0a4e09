"""The pictures, tables and pages that people read."""

from __future__ import annotations

import io
import itertools
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from graftkit.core.records import (
    DendriteRecord,
    EdgeRecord,
    EpochRecord,
    Inspection,
    Measurement,
    PhaseRecord,
    RunReport,
    SeedRecord,
    SiteRecord,
    SkippedRecord,
)
from graftkit.core.values import Spending, ValueRecord
from graftkit.reporting.curves import curves_svg
from graftkit.reporting.dot import network_dot, quote
from graftkit.reporting.page import report_html
from graftkit.reporting.picture import network_svg
from graftkit.reporting.ranks import rank
from graftkit.reporting.tables import inspection_table, result_table, verdict
from graftkit.reporting.value_picture import MOST, value_svg
from graftkit.reporting.values import spending_words, value_table

SVG = "{http://www.w3.org/2000/svg}"
EVIL = '<evil>&"'


def conv(name: str, read: int, write: int, kernel: int, side: int) -> SiteRecord:
    parameters = read * write * kernel * kernel
    return SiteRecord(
        name, "conv2d", (-1, read, side, side), (-1, write, side, side), (kernel, kernel), parameters,
        parameters * side * side,
    )  # fmt: skip


def linear(name: str, read: int, write: int) -> SiteRecord:
    return SiteRecord(name, "linear", (-1, 128, read), (-1, 128, write), (), read * write + write, 128 * read * write)


def context(count: int, neurons: int, strength: float) -> DendriteRecord:
    return DendriteRecord("context", (("units", 2), ("gate", True)), count, neurons, strength, 3 * neurons, 3 * neurons)


def graft(site: SiteRecord, gain: float | None, *dendrites: DendriteRecord) -> SiteRecord:
    return replace(site, dendrites=dendrites, gain=gain)


def inspection(name: str, sites: list[SiteRecord], edges: set[tuple[str, str]]) -> Inspection:
    total = sum(s.parameters + sum(d.parameters for d in s.dendrites) for s in sites)
    macs = sum(s.macs + sum(d.macs for d in s.dendrites) for s in sites)
    return Inspection(name, "run", tuple(sites), (), tuple(EdgeRecord(*e) for e in sorted(edges)), total, macs)


def resnet(blocks: tuple[int, ...] = (3, 4, 23, 3)) -> Inspection:
    """A ResNet-101 of bottleneck blocks; every block reads the sum of all blocks before it in its stage."""
    sites = [conv("conv1", 3, 64, 7, 112)]
    edges = {("", "conv1")}
    stream, read = ["conv1"], 64
    for stage, count in enumerate(blocks, start=1):
        width, side = 64 << (stage - 1), 112 >> stage
        for block in range(count):
            names = [f"layer{stage}.{block}.conv{i}" for i in (1, 2, 3)]
            sites += [
                conv(names[0], read, width, 1, side),
                conv(names[1], width, width, 3, side),
                conv(names[2], width, 4 * width, 1, side),
            ]
            edges |= {(source, names[0]) for source in stream} | set(itertools.pairwise(names))
            if block == 0:
                down = f"layer{stage}.0.downsample.0"
                sites.append(conv(down, read, 4 * width, 1, side))
                edges |= {(source, down) for source in stream}
                stream = [down]
            stream, read = [*stream, names[2]], 4 * width
    sites.append(replace(linear("fc", read, 1000), input_shape=(-1, read), output_shape=(-1, 1000), macs=read * 1000))
    edges |= {(source, "fc") for source in stream} | {("fc", "")}
    for index, gain in ((2, 0.0041), (15, 0.0123), (40, -0.0003), (77, None)):
        if index < len(sites):
            sites[index] = graft(sites[index], gain, context(1, 64, 0.1234))
    return inspection("resnet101", sites, edges)


def transformer(layers: int = 6) -> Inspection:
    """A pre-norm encoder: every layer reads the residual stream, the sum of all that was written before."""
    sites, edges, stream = [linear("embed.proj", 80, 256)], {("", "embed.proj")}, ["embed.proj"]
    for layer in range(layers):
        at = f"encoder.layers.{layer}"
        heads = [f"{at}.self_attn.{letter}_proj" for letter in "qkv"]
        out, up, down = f"{at}.self_attn.out_proj", f"{at}.linear1", f"{at}.linear2"
        sites += [linear(name, 256, 256) for name in (*heads, out)] + [linear(up, 256, 1024), linear(down, 1024, 256)]
        edges |= {(source, head) for source in stream for head in heads} | {(head, out) for head in heads}
        stream.append(out)
        edges |= {(source, up) for source in stream} | {(up, down)}
        stream.append(down)
    sites.append(linear("classifier", 256, 1000))
    edges |= {(source, "classifier") for source in stream} | {("classifier", "")}
    sites[6] = graft(sites[6], 0.012, context(2, 256, 0.31), replace(context(1, 128, 0.004), kind="full"))
    sites[-1] = graft(sites[-1], 0.002, context(1, 256, 0.05))
    return inspection("speech-encoder", sites, edges)


def report(
    base: float, control: float | None, grafted: float, *, shipped: str = "grafted", seeds: int = 1
) -> RunReport:
    """A run whose test numbers are a point below the validation's."""

    def measured(value: float, extra: int) -> Measurement:
        return Measurement(value, value - 0.01, 982 + extra, 40_000 + 2 * extra)

    controlled = None if control is None else measured(control, 0)
    records = tuple(
        SeedRecord(
            seed,
            measured(grafted + 0.004 * seed, 64),
            None if control is None else measured(control + 0.002 * seed, 0),
            shipped,
        )
        for seed in range(seeds)
    )
    epochs, phases = curves_of(seeds)
    return RunReport(
        name="kws-net", metric="accuracy", seed=0, shipped=shipped, baseline=measured(base, 0), control=controlled,
        grafted=measured(grafted, 64) if shipped == "grafted" else measured(base, 0),
        best_grafted=measured(grafted, 64), seeds=records, phases=phases, epochs=epochs, inspection=small(),
        parity={"onnxruntime": 3.1e-7}, runtime_metric={"onnxruntime": grafted}, warnings=("12 rows repeat <&>",),
        stopped="two cycles without a gain", settings={"data": "shared/data/x.npz", "epochs": 30, "rule": None},
    )  # fmt: skip


PHASES = ((1, "neuron", 10), (1, "dendrite", 5), (2, "neuron", 10), (2, "dendrite", 5), (3, "neuron", 8))


def curves_of(seeds: int) -> tuple[tuple[EpochRecord, ...], tuple[PhaseRecord, ...]]:
    """Two cycles of both arms: 10 neuron epochs, 5 dendrite epochs, and again."""
    epochs, phases = [], []
    for arm, seed in itertools.product(("grafted", "control"), range(seeds)):
        epoch, value = 0, 0.7 + 0.01 * seed
        for cycle, phase, length in PHASES:
            if arm == "control" and phase == "dendrite":
                continue
            for _ in range(length):
                epoch += 1
                value += (0.93 + 0.02 * (cycle if arm == "grafted" else 1) - value) * 0.12 * (phase == "neuron")
                loss = 2 * (1 - value) + 0.02 * (epoch % 3) if phase == "neuron" else 0.4 - 0.01 * epoch
                epochs.append(EpochRecord(arm, seed, cycle, phase, epoch, loss, value, 1e-3))
            grown = 0 if arm == "control" else cycle - (phase == "neuron")
            phases.append(PhaseRecord(arm, seed, cycle, phase, length, value, True, 982 + 64 * grown, grown))
    return tuple(epochs), tuple(phases)


def small() -> Inspection:
    """Two convolutions and a classifier, one of them grafted, and two calls that are no sites."""
    sites = [conv("features.0", 1, 8, 3, 16), conv("features.3", 8, 16, 3, 8), linear("classifier", 16, 10)]
    sites[1] = graft(sites[1], 0.0215, context(1, 16, 0.12))
    edges = {("", "features.0"), ("features.0", "features.3"), ("features.3", "classifier"), ("classifier", "")}
    skipped = (
        SkippedRecord("embed", "embedding", "an embedding reads numbers of rows, there is nothing to branch from"),
        SkippedRecord("", "matmul", "its weight is computed, not a parameter"),
    )
    return replace(inspection("kws-net", sites, edges), skipped=skipped, notes=("shapes are dynamic in dimension 0",))


def chain(length: int) -> Inspection:
    names = [f"features.{index}" for index in range(length)]
    edges = set(itertools.pairwise(["", *names, ""]))
    return inspection("chain", [conv(name, 64, 64, 3, 8) for name in names], edges)


def parsed(found: Inspection) -> ElementTree.Element:
    return ElementTree.fromstring(network_svg(found))


def rectangles(svg: ElementTree.Element) -> list[tuple[float, float, float, float]]:
    """Left, top, right and bottom of all nodes."""
    nodes = [rect for rect in svg.iter(f"{SVG}rect") if rect.get("class") in ("gk-box", "gk-pill")]
    places = [[float(rect.get(key, "nan")) for key in ("x", "y", "width", "height")] for rect in nodes]
    return [(x, y, x + width, y + height) for x, y, width, height in places]


def lines(svg: ElementTree.Element) -> list[list[tuple[float, float]]]:
    """The corners of every edge; its curves stay between them."""
    drawn = [
        path.get("d", "") for path in svg.iter(f"{SVG}path") if path.get("class") in ("gk-flow", "gk-skip", "gk-back")
    ]
    return [[(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+),(-?[\d.]+)", d)] for d in drawn]


def overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def assert_clean(found: Inspection) -> None:
    """No two nodes overlap, no edge runs over a node, and all lies within the picture."""
    svg = parsed(found)
    nodes = rectangles(svg)
    assert len(nodes) == len(found.sites) + 2
    assert not [pair for pair in itertools.combinations(nodes, 2) if overlap(*pair)]
    inner = [(x1 + 0.2, y1 + 0.2, x2 - 0.2, y2 - 0.2) for x1, y1, x2, y2 in nodes]
    for line in lines(svg):
        for (ax, ay), (bx, by) in itertools.pairwise(line):
            segment = (min(ax, bx), min(ay, by), max(ax, bx), max(ay, by))
            assert not any(overlap(segment, node) for node in inner), (line, segment)
    width, height = float(svg.get("width", "0")), float(svg.get("height", "0"))
    points = [(x, y) for line in lines(svg) for x, y in line] + [(x2, y2) for _, _, x2, y2 in nodes]
    assert all(0 <= x <= width and 0 <= y <= height for x, y in points)


def printed(shown: RenderableType, width: int = 80, encoding: str = "utf-8") -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    Console(file=stream, width=width, force_terminal=False).print(shown)
    stream.seek(0)
    return stream.read()


@st.composite
def networks(draw: st.DrawFn, cycles: bool = False) -> Inspection:
    """Any sites and edges: loose parts, crowded ranks, long skips and, if wanted, cycles."""
    count = draw(st.integers(0, 24))
    names = [f"block{index // 5}.op{index}" for index in range(count)]
    ends = st.integers(-1, count)
    drawn = draw(st.lists(st.tuples(ends, ends), max_size=60))
    forward = [pair if cycles else (min(pair), max(pair)) for pair in drawn]
    edges = {(names[a] if 0 <= a < count else "", names[b] if 0 <= b < count else "") for a, b in forward}
    sites = [linear(name, 8, 8) for name in names]
    for index in draw(st.sets(st.integers(0, max(count - 1, 0)), max_size=4)):
        if index < count:
            sites[index] = graft(
                sites[index], draw(st.sampled_from([None, 0.01])), *[context(1, 8, 0.1)] * draw(st.integers(1, 3))
            )
    return inspection("any", sites, edges)


@pytest.mark.parametrize(
    "found", [small(), chain(100), resnet(), resnet((2, 2, 2, 2)), transformer()], ids=lambda f: f.name
)
def test_picture_shows_every_site_without_overlap(found: Inspection) -> None:
    assert_clean(found)
    titles = [title.text or "" for title in parsed(found).iter(f"{SVG}title")]
    assert [title.splitlines()[0] for title in titles[1:]] == [site.site for site in found.sites]


@settings(max_examples=60, deadline=None)
@given(networks())
def test_nodes_never_overlap_in_any_network(found: Inspection) -> None:
    assert_clean(found)


@settings(max_examples=60, deadline=None)
@given(networks(cycles=True))
def test_cycles_are_drawn_too(found: Inspection) -> None:
    assert_clean(found)
    network_dot(found)


def test_grafted_sites_stand_out() -> None:
    groups = {g.get("class"): g for g in parsed(small()).iter(f"{SVG}g") if "gk-site" in (g.get("class") or "")}
    assert set(groups) == {"gk-site", "gk-site gk-grafted"}
    words = [text.text for text in groups["gk-site gk-grafted"].iter(f"{SVG}text")]
    assert words == ["features.3", "conv2d 8→16 3×3", "1.2k", "context ×1", "0.12", "gain +0.0215"]


@pytest.mark.parametrize("found", [chain(100), resnet(), transformer()], ids=lambda f: f.name)
def test_large_pictures_stay_legible(found: Inspection) -> None:
    text = network_svg(found)
    svg = ElementTree.fromstring(text)
    assert min(float(size) for size in re.findall(r"font-size:([\d.]+)px", text)) >= 9
    width, height = float(svg.get("width", "0")), float(svg.get("height", "0"))
    assert 0.5 < width / height < 2 and width < 1500


def test_residual_stream_is_drawn_as_one_skip_a_block() -> None:
    ranking = rank(transformer())
    assert ranking.hidden > 100 and len(ranking.skips) < 40
    assert f"{ranking.hidden} longer skips not drawn" in network_svg(transformer())


def test_flow_edges_are_never_left_out() -> None:
    # Whatever is not drawn can be walked along what is.
    found = rank(resnet())
    reached = {node: {node} for node in range(len(found.ranks))}
    for node in sorted(reached, key=lambda n: -found.ranks[n]):
        reached[node].update(*(reached[b] for a, b in found.flow if a == node))
    names = ["", *(site.site for site in resnet().sites), ""]
    for edge in resnet().edges:
        target = names.index(edge.target, 1)
        assert target in reached[names.index(edge.source)]


@settings(max_examples=40, deadline=None)
@given(st.text())
def test_any_name_is_valid_xml(name: str) -> None:
    found = inspection(name, [linear(name, 8, 8)], {("", name), (name, "")})
    ElementTree.fromstring(network_svg(found))


def test_names_are_escaped() -> None:
    found = inspection(EVIL, [graft(linear(EVIL, 8, 8), None, replace(context(1, 8, 0.1), kind=EVIL))], {("", EVIL)})
    assert EVIL not in network_svg(found)
    assert EVIL in [text.text for text in parsed(found).iter(f"{SVG}text")]
    page = report_html(replace(report(0.9, 0.91, 0.92), name=EVIL, warnings=(EVIL,), inspection=found))
    assert "<evil>" not in page


@pytest.mark.parametrize("draw", [network_svg, network_dot], ids=["svg", "dot"])
def test_pictures_are_deterministic(draw: object) -> None:
    assert callable(draw)
    assert draw(resnet()) == draw(resnet())


def test_page_is_deterministic_and_self_contained() -> None:
    page = report_html(report(0.918, 0.922, 0.9263, seeds=3))
    assert page == report_html(report(0.918, 0.922, 0.9263, seeds=3))
    without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert "http:" not in without_names and "https:" not in without_names
    assert "<script" not in page and "<link" not in page and "@import" not in page


def test_page_tells_everything() -> None:
    found = report(0.918, 0.922, 0.9263, seeds=3)
    page = report_html(found)
    for words in (
        "kws-net", "91.80%", "92.63%", "features.3", "context ×1 · 16/16 neurons · strength 0.12", "+0.0215",
        "there is nothing to branch from", "12 rows repeat &lt;&amp;&gt;", "shared/data/x.npz", "3.1e-07",
        "two cycles without a gain", "dendrites grafted", "92.40 ± 0.20%",
    ):  # fmt: skip
        assert words in page, words


def test_page_of_a_bare_run() -> None:
    bare = replace(
        report(0.9, None, 0.9, shipped="given"), best_grafted=None, seeds=(), epochs=(), phases=(), warnings=(),
        settings={}, parity={}, runtime_metric={}, inspection=inspection("bare", [], set()), stopped="",
    )  # fmt: skip
    assert "Training</h2>" not in report_html(bare)


def test_curves_take_broken_numbers() -> None:
    broken = tuple(replace(e, loss=float("nan"), validation=float("inf")) for e in report(0.9, 0.9, 0.9).epochs)
    assert "curves" in report_html(replace(report(0.9, 0.9, 0.9), epochs=broken))


def test_dot_quotes() -> None:
    assert quote('a"b\\c\nd') == '"a\\"b\\\\c\\nd"'
    found = inspection(EVIL, [linear('say "x"', 8, 8)], {("", 'say "x"'), ('say "x"', "")})
    text = network_dot(found)
    assert 'say \\"x\\"' in text and "input -> site1;" in text and "site1 -> output;" in text
    assert all(line.count('"') % 2 == 0 for line in text.replace('\\"', "").splitlines())


def test_inspection_table_reads_well_in_a_pipe() -> None:
    text = printed(inspection_table(small()))
    assert "  └ context ×1 · 16/16 neurons · strength 0.12" in text
    assert re.search(r"features\.3 +conv2d 8→16 3×3 +1\.2k +73\.7k +\+0\.0215", text)
    assert "3 sites · 1,442 parameters" in text and "(the model itself) (matmul): its weight" in text
    assert "\x1b" not in text and not re.search("[│┃┏╭]", text)


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_tables_keep_to_the_width_and_lose_nothing(width: int) -> None:
    text = printed(inspection_table(resnet()), width)
    assert max(map(len, text.splitlines())) <= width
    assert all(site.site in text for site in resnet().sites)


def test_tables_work_without_unicode() -> None:
    text = printed(inspection_table(small()), encoding="ascii")
    assert "context x1 - 16/16 neurons" in text
    assert "92.40 ~ 0.20%" in printed(result_table(report(0.918, 0.922, 0.9263, seeds=3)), encoding="ascii")


def test_result_table_numbers() -> None:
    text = printed(result_table(report(0.918, 0.922, 0.9263, seeds=3)))
    rows = {line.split()[0]: line for line in text.splitlines()[:4]}
    assert re.search(r"91\.80% +90\.80% +982 +40k", rows["baseline"])
    assert re.search(r"92\.20% +91\.20% +982 +40k", rows["control"])
    assert re.search(r"92\.63% +91\.63% +1,046 \(\+6\.5%\) +40\.1k \(\+0\.3%\)", rows["grafted"])
    assert re.search(r"grafted \(3 seeds\) +93\.03 ± 0\.40%", text)
    assert max(map(len, text.splitlines())) <= 80


def test_result_table_shows_the_graft_that_does_not_ship() -> None:
    text = printed(result_table(report(0.93, 0.91, 0.92, shipped="given")))
    assert "best grafted (not shipped)" in text and "ships (the model as given)" in text


@pytest.mark.parametrize("control", [0.93, 0.9263])
def test_verdict_says_first_that_the_control_wins(control: float) -> None:
    assert verdict(report(0.918, control, 0.9263))[0].startswith("More training alone does as well or better: ")


def test_verdict_order_when_the_given_model_ships() -> None:
    first, second, *_ = verdict(report(0.94, 0.935, 0.93, shipped="given"))
    assert first.startswith("More training alone")
    assert second == "No graft beat the model you gave; model.onnx is that model, unchanged."


def test_verdict_says_how_sure_a_gain_is_that_does_not_ship() -> None:
    found = replace(report(0.92, 0.915, 0.9263, shipped="given"), margin=0.0081)
    assert verdict(found)[0] == (
        "No graft surely beat the model you gave, so model.onnx is that model, unchanged: the best gains +0.63 points"
        " on validation with a standard error of 0.81 points."
    )


def test_verdict_where_the_control_wins_on_test_only() -> None:
    found = report(0.918, 0.922, 0.9263)
    assert found.control is not None
    first = verdict(replace(found, control=replace(found.control, test=0.95)))[0]
    assert "95.00% on test against 91.63%" in first and "better on validation" in first


def test_verdict_where_the_control_wins_over_the_seeds() -> None:
    found = report(0.918, 0.922, 0.9263, seeds=3)
    seeds = tuple(replace(s, control=replace(s.grafted, validation=s.grafted.validation + 0.01)) for s in found.seeds)
    assert "validation over 3 seeds" in verdict(replace(found, seeds=seeds))[0]


def test_verdict_splits_the_gain() -> None:
    said = " ".join(verdict(report(0.918, 0.922, 0.9263)))
    assert "(+0.83 points): +0.40 points from more training" in said
    assert "+0.43 points from the dendrites" in said
    assert "One seed is a hint" in said and "More training alone" not in said


def test_verdict_over_seeds_does_not_call_it_a_hint() -> None:
    said = " ".join(verdict(report(0.918, 0.922, 0.9263, seeds=3)))
    assert "Over 3 seeds, grafted - control on validation is +0.63 ± 0.20 points" in said and "hint" not in said


def test_verdict_without_control() -> None:
    assert any(sentence.startswith("No control was run") for sentence in verdict(report(0.918, None, 0.9263)))


def test_verdict_speaks_plain_numbers_for_other_metrics() -> None:
    said = " ".join(verdict(replace(report(0.918, 0.922, 0.9263), metric="r2")))
    assert "+0.0083" in said and "points" not in said


def test_verdict_says_that_the_best_seed_is_shown() -> None:
    found = report(0.918, 0.922, 0.9263, seeds=3)
    best = found.seeds[2].grafted
    said = " ".join(verdict(replace(found, grafted=best, best_grafted=best)))
    assert "those of seed 2, the best of 3 on validation" in said
    assert "seed 2 shown, 3 seeds run" in report_html(replace(found, grafted=best, best_grafted=best))


# ── what a budget went to ────────────────────────────────────────────────────────────────────────


def spending(unit: str = "parameters", *, rows: int = 3) -> Spending:
    """The first dendrite is kept for two of four neurons, the second does harm, the others are worth little."""
    options, sure = (("activation", "tanh"), ("units", 4)), (0.003, -0.002, 0.001, -0.001)
    worth, error = (0.004, -0.001, 0.002, 0.0), (0.001,) * 4
    first = ValueRecord("layers.0.<conv>", "context", options, worth, error, sure, 1120.0, (0, 2), 960.0)
    harm = ValueRecord("layers.1", "full", (), (-0.004,) * 4, (0.001,) * 4, (-0.005,) * 4, 40.0)
    little = [replace(harm, site=f"layers.{n}", worth=(0.0001,) * 4, sure=(-0.001,) * 4) for n in range(2, rows)]
    return Spending("parameters", unit, 12_000.0, 1200.0, 960.0, 10, (harm, first, *little))


def test_value_table_has_the_best_first_and_says_what_was_spent() -> None:
    lines = printed(value_table(spending())).splitlines()
    assert lines[0].split() == ["site", "dendrite", "worth", "pays", "price", "kept", "spent"]
    assert lines[1].split() == ["layers.0.<conv>", "context", "units=4", "+5.00", "2/4", "1,120", "2/4", "960"]
    assert lines[2].split() == ["layers.1", "full", "-16.00", "0/4", "40", "-", "-"]
    text = " ".join(" ".join(lines).split())
    assert (
        "Budget: 960 of 1,200 parameters spent on 2 of the 12 dendrites (one a neuron) that a trial of 10 epochs"
        in text
    )
    assert max(map(len, lines)) <= 80


def test_value_table_in_other_units() -> None:
    assert "Budget: 960.0 of 1,200.0 us spent" in spending_words(spending("us"))
    assert "Budget: 960 of 1.2k multiply-adds spent" in spending_words(spending("multiply-adds"))


@pytest.mark.parametrize("page", [True, False])
def test_value_picture_has_a_bar_for_each_neuron(page: bool) -> None:
    text = value_svg(spending(), page=page)
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg") and "layers.0.<conv>" in "".join(root.itertext())
    assert ("var(--accent)" in text) == page and ("#0b7a5d" in text) == (not page)
    assert text == value_svg(spending(), page=page)
    assert value_svg(replace(spending(), values=())) == ""


def test_value_picture_shows_those_that_pay_most_where_there_are_many() -> None:
    text = "".join(ElementTree.fromstring(value_svg(spending(rows=90))).itertext())
    assert "layers.0.<conv>" in text and text.count("layers.") <= MOST


def test_the_report_shows_what_the_budget_went_to() -> None:
    page = report_html(replace(report(0.918, 0.922, 0.9263), spending=spending()))
    assert "What the trial valued, and what the budget went to" in page and "layers.0.&lt;conv&gt;" in page
    assert "what the budget went to" not in report_html(report(0.918, 0.922, 0.9263))


def test_a_trials_epochs_are_in_no_curve() -> None:
    found = report(0.918, 0.922, 0.9263)
    trial = tuple(replace(epoch, arm="trial", validation=0.123) for epoch in found.epochs[:5])
    assert curves_svg(replace(found, epochs=(*trial, *found.epochs))) == curves_svg(found)


def test_seeds_whose_budget_bought_nothing_are_no_grafted_networks() -> None:
    found = report(0.918, 0.90, 0.9263, seeds=3)
    empty = replace(found.seeds[0], grafted=found.baseline, control=replace(found.baseline, validation=0.99))
    rest = replace(found, seeds=found.seeds[1:])
    assert verdict(replace(found, seeds=(empty, *found.seeds[1:])))[1:] == verdict(rest)[1:]
    assert "grafted (2 seeds)" in printed(result_table(replace(found, seeds=(empty, *found.seeds[1:]))))
