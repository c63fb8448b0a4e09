"""Making a model smaller: targets, teachers, sparsity, fresh weights, the knee, and folders that were tampered with."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

import graftkit as gk
from graftkit import pruning, surgery, training
from graftkit.augmenting import Interrupted
from graftkit.compressing import Asked, compress, kept, parse_target, remembering, resume
from graftkit.compressing.contest import contest
from graftkit.compressing.lab import Lab, Network
from graftkit.compressing.shrinking import shrunk
from graftkit.compressing.sizes import FRONT, Descent, Reached, knee
from graftkit.compressing.spreading import _others, spread
from graftkit.contracts import Data, LoadedModel, Observer, SourceRequest
from graftkit.core.compressions import CompressionReport, ContestRecord, NetworkRecord, SizeRecord
from graftkit.core.errors import PlanError, PruningError, RuntimeMissingError, SourceError
from graftkit.core.records import Inspection
from graftkit.costs import COSTS
from graftkit.fitting import FolderJournal, Journal, Settings
from graftkit.reporting.compressions import compression_html, compression_verdict, front_rows
from graftkit.request import Request
from graftkit.training import Recipe, Teacher
from graftkit.training.scales import scales

SAMPLES = Path(__file__).parents[2] / "sample_models"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.first(x))))


def rows(count: int = 240) -> Data:
    inputs = torch.randn(count, 6, generator=torch.Generator().manual_seed(3))
    labels = (inputs[:, :3] + 0.3 * inputs[:, 3:]).argmax(1)
    parts = [TensorDataset(inputs[i::3], labels[i::3]) for i in range(3)]
    return Data(parts[0], parts[1], parts[2], "classes", 3, "made")


def lab(**recipe: float) -> Lab:
    settings = Settings(epochs=3, batch_size=16, recipe=Recipe(learning_rate=1e-2, **recipe))
    how = {"dynamic": "batch", "output": None}
    loss, metric = training.find_loss("cross_entropy"), training.find_metric("accuracy")
    return Lab(rows(), loss, metric, settings, how, Observer(), Journal())


def network(where: Lab):
    torch.manual_seed(0)
    module = Net()
    found, _ = pruning.widths(module, where.data.example())
    return where.network(LoadedModel(module, {}, "net"), found)


# ── targets ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "given", "amount"),
    [
        ("parameters=16430", 41_000, 16_430),
        ("parameters=40%", 41_000, 16_400),
        ("macs=1.5M", 4e6, 1.5e6),
        ("size=60KB", 1e6, 60e3),
        ("latency=200us", 500, 200),
        ("memory=1MB", 5e6, 1e6),
    ],
)
def test_targets_are_read(text: str, given: float, amount: float) -> None:
    assert parse_target(text).of(given) == pytest.approx(amount)


@pytest.mark.parametrize("text", ["", "parameters", "parameters=", "parameters=-3", "parameters=nan", "macs=3us",
                                  "parameters=0%", "parameters=120%", "parameters=+10%", "params=3"])  # fmt: skip
def test_targets_that_are_none(text: str) -> None:
    with pytest.raises(PlanError) as error:
        parse_target(text)
    assert "\n" not in str(error.value)


@given(st.floats(0.001, 1))
def test_shares_are_read_with_and_without_percent(share: float) -> None:
    assert kept(f"{100 * share!r}%", "--keep") == pytest.approx(share)
    assert kept(repr(share), "--keep") == share


# ── learning ─────────────────────────────────────────────────────────────────────────────────────


def test_a_teacher_that_is_oneself_adds_nothing_but_its_share() -> None:
    given = network(lab())
    x, y = given.model.traced.inputs[0], torch.tensor([0, 1])
    model = given.model.eval()
    own = functional.cross_entropy(model(x), y)
    mixed = Teacher(model, share=0.25).mixed(own, (x,), model(x), y)
    torch.testing.assert_close(mixed, 0.75 * own)


def test_what_a_teacher_says_is_kl_at_its_temperature() -> None:
    given = network(lab())
    x = torch.randn(5, 6)
    model = given.model.eval()
    output = torch.randn(5, 3)
    teacher = Teacher(model, share=1.0, temperature=3.0)
    wanted = (model(x) / 3).softmax(1)
    by_hand = 9 * (wanted * (wanted.log() - (output / 3).log_softmax(1))).sum(1).mean()
    none, labels = torch.zeros(()), torch.zeros(5, dtype=torch.long)
    torch.testing.assert_close(teacher.mixed(none, (x,), output, labels), by_hand)
    for says, wanted in (
        ("values", functional.mse_loss(output, model(x))),
        ("yes", functional.binary_cross_entropy_with_logits(output, model(x).sigmoid())),
    ):
        read = Teacher(model, share=1.0, says=says)  # type: ignore[arg-type]
        torch.testing.assert_close(read.mixed(none, (x,), output, labels), wanted)


def test_how_a_teacher_is_read_follows_from_the_loss() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 7)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.embed(ids))

    ids = torch.arange(10).reshape(2, 5) % 7
    words = gk.graft(gk.trace(Words(), ids))
    read = Teacher.of(words, 1.0, "cross_entropy", (ids, ids))
    assert (read.says, read.scores_at) == ("classes", -1)
    other = torch.randn(2, 5, 7)
    wanted = (words(ids) / 2).softmax(-1)
    by_hand = 4 * (wanted * (wanted.log() - (other / 2).log_softmax(-1))).sum(-1).mean()
    torch.testing.assert_close(read.mixed(torch.zeros(()), (ids,), other, ids), by_hand)
    padded = ids.clone()
    padded[:, 3:] = -100  # where no label counts, no answer does
    apart = (wanted * (wanted.log() - (other / 2).log_softmax(-1))).sum(-1)
    torch.testing.assert_close(read.mixed(torch.zeros(()), (ids,), other, padded), 4 * apart[:, :3].mean())
    assert float(read.mixed(torch.zeros(()), (ids,), other, torch.full_like(ids, -100))) == 0
    plain = network(lab()).model
    x, y = torch.randn(4, 6), torch.tensor([0, 1, 2, 0])
    assert Teacher.of(plain, 0.5, "cross_entropy", (x, y)).scores_at == 1
    assert Teacher.of(plain, 0.5, "bce", (x, y)).says == "yes"
    assert Teacher.of(plain, 0.5, "mse", (x, y)).says == "values"


def test_one_learns_from_a_teacher_where_labels_say_nothing() -> None:
    where = lab()
    teacher = where.trained(network(where), "teacher", "given", (30,), 0)
    assert teacher.measured.validation > 0.8
    shuffled = TensorDataset(where.data.train.tensors[0], torch.zeros(80, dtype=torch.long))  # type: ignore[union-attr]
    where.data = replace(where.data, train=shuffled)
    torch.manual_seed(5)
    pupil = where.network(LoadedModel(Net(), {}, "net"), ())
    alone = where.trained(pupil, "alone", "pupil", (30,), 0).measured.validation
    where.teacher = Teacher(teacher.model, share=1.0)
    torch.manual_seed(5)
    pupil = where.network(LoadedModel(Net(), {}, "net"), ())
    assert where.trained(pupil, "taught", "pupil", (30,), 0).measured.validation > alone + 0.2


def test_sparsity_draws_scales_to_zero() -> None:
    kept = {}
    for sparsity in (0.0, 0.1):
        where = lab(sparsity=sparsity)
        own = where.trained(network(where), "sparse", "net", (20,), 0)
        kept[sparsity] = float(own.module.norm.weight.detach().abs().sum())
        assert [scale is own.module.norm.weight for scale in scales(own.model)] == [True]
    assert kept[0.1] < 0.6 * kept[0.0]


class Asks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(2, 2))

    def reset_parameters(self, std: float) -> None:
        nn.init.normal_(self.weight, std=std)


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_fresh_weights_are_those_of_new_layers() -> None:
    class Own(Net):
        def __init__(self) -> None:
            super().__init__()
            self.offset = nn.Parameter(torch.full((3,), 7.0) + torch.arange(3))

    torch.manual_seed(0)
    module = Own()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module.norm.running_mean += 5
    module.add_module("asks", Asks())
    module.add_module("normed", torch.nn.utils.weight_norm(nn.Linear(2, 2)))
    torch.manual_seed(1)
    left = training.fresh(module)
    assert left == ["offset", "asks.weight", "normed.weight_g", "normed.weight_v"]
    assert not torch.equal(module.first.weight, before["first.weight"])
    assert torch.equal(module.norm.running_mean, torch.zeros(12))
    assert 3 < float(module.offset.detach().mean()) < 13 and not torch.equal(module.offset, before["offset"])


# ── shrinking ────────────────────────────────────────────────────────────────────────────────────


def test_the_given_network_stays_and_the_smaller_one_is_its_own() -> None:
    where = lab()
    given = network(where)
    before = given.model.snapshot()
    target, cost = parse_target("parameters=60%"), parse_target("parameters=60%").cost
    small = shrunk(where, given, cost, target.counted, 80, pruning.IMPORTANCES.find("first-order"), "a", 0)
    assert cost.given(small.model) <= 80 and small.module is not given.module
    where.trained(small, "small", "small", (2,), 0)
    assert all(torch.equal(before[name], tensor) for name, tensor in given.model.snapshot().items())
    live = dict(small.module.named_parameters())
    assert all(small.model.base.get_parameter(name) is tensor for name, tensor in live.items())


def test_a_target_beyond_reach_is_told_before_anything_is_trained() -> None:
    where = lab()
    given, target = network(where), parse_target("parameters=60%")
    with pytest.raises(PruningError, match="is the smallest that pruning reaches"):
        shrunk(where, given, target.cost, target.counted, 3, pruning.IMPORTANCES.find("magnitude"), "a", 0)


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    request = Request(SourceRequest("x.pt"), "digits", tmp_path / "run")
    with pytest.raises(RuntimeMissingError, match=r"graftkit\[compress\]"):
        compress(Asked(request), Observer())
    assert not (tmp_path / "run").exists()


def test_a_cut_and_a_cost_are_those_of_the_first_time(tmp_path: Path) -> None:
    """What rows and clocks decide is not asked of them another time."""
    where = lab()
    where.journal = FolderJournal(tmp_path / "progress", lambda line: pytest.fail(line))
    given, target = network(where), parse_target("parameters=60%")
    first = shrunk(where, given, target.cost, "parameters", 80, pruning.IMPORTANCES.find("first-order"), "step", 0)
    where.data = replace(where.data, train=TensorDataset(*(t.flip(0) for t in where.data.train.tensors)))  # type: ignore[union-attr]
    with torch.no_grad():
        first.module.head.bias += 1  # what is done to it later is not remembered
    again = shrunk(where, given, target.cost, "parameters", 80, pruning.IMPORTANCES.find("magnitude"), "step", 0)
    assert again.widths == first.widths
    for name, tensor in again.module.state_dict().items():
        offset = 1.0 if name == "head.bias" else 0.0
        assert torch.equal(tensor + offset, first.module.state_dict()[name])
    assert [remembering.number(where.journal, "cost", lambda n=n: n) for n in (3.5, 7.0)] == [3.5, 3.5]


class Narrow(nn.Module):
    """The second layer's units are dear, so worth for price alone would leave next to none of them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 10), nn.Linear(10, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))))


def narrow(where: Lab) -> Network:
    torch.manual_seed(0)
    module = Narrow()
    found, _ = pruning.widths(module, where.data.example())
    return where.trained(where.network(LoadedModel(module, {}, "narrow"), found), "given", "given", (10,), 0)


def test_a_cut_is_spread_as_a_short_training_decides() -> None:
    where, cost = lab(), COSTS["parameters"]()
    given, first_order = narrow(where), pruning.IMPORTANCES.find("first-order")
    goal = 0.3 * given.measured.parameters
    stages: list[str] = []
    where.observer = Observer(on_stage=stages.append)
    alone = shrunk(where, given, cost, "parameters", goal, first_order, "a", 0)
    even = shrunk(where, given, cost, "parameters", goal, first_order, "a", 0, pruning.Way(least=0.45))
    chosen = spread(where, given, cost, "parameters", goal, first_order, "x", "step", 0)
    assert [len(w.units) for w in alone.widths] != [len(w.units) for w in even.widths]
    assert any("ways to spread that over the layers" in text for text in stages)
    assert chosen.measured.parameters <= goal and chosen.epochs == given.epochs
    assert torch.equal(chosen.module.head.bias, given.module.head.bias)  # what a trial learned is thrown away
    again = spread(where, given, cost, "parameters", goal, first_order, "x", "step", 0)
    assert again.widths == chosen.widths
    tried = {}
    for name, one in {"alone": alone, "even": even, "chosen": chosen}.items():
        where.trained(one, name, "trial", (1,), 0)
        tried[name] = where.loss(one.model)
    assert tried["chosen"] <= min(tried.values()) + 1e-6, tried


def test_where_rounded_widths_are_too_dear_each_layer_keeps_a_little_less() -> None:
    def cut(way: pruning.Way) -> pruning.Way:
        if way.least > 0.6:
            raise PruningError("too dear")
        return way

    worth, even = pruning.Way(least=0.25, priced=False), pruning.Way(even=True)
    assert list(_others(0.7, cut)) == [worth, pruning.Way(least=0.7**1.5), even]
    assert list(_others(0.5, cut)) == [worth, pruning.Way(least=0.5), even]


def test_less_than_a_quarter_is_cut_by_worth_too() -> None:
    where, cost = lab(), COSTS["parameters"]()
    given, first_order = narrow(where), pruning.IMPORTANCES.find("first-order")
    ways = pruning.Way(least=0.25), pruning.Way(least=0.25, priced=False)
    goal = 0.1 * given.measured.parameters
    cuts = [shrunk(where, given, cost, "parameters", goal, first_order, "a", 0, way) for way in ways]
    assert all(cut.measured.parameters <= goal for cut in cuts)


def test_each_way_to_cut_is_remembered_by_itself(tmp_path: Path) -> None:
    cost, first_order = COSTS["parameters"](), pruning.IMPORTANCES.find("first-order")
    ways = (
        pruning.Way(least=0.25),
        pruning.Way(least=0.25, priced=False),
        pruning.Way(least=0.45),
        pruning.Way(even=True),
    )
    where = lab()
    given = narrow(where)
    goal = 0.3 * given.measured.parameters

    def cuts(journal: Journal) -> list[tuple[int, ...]]:
        where.journal = journal
        made = [shrunk(where, given, cost, "parameters", goal, first_order, "a", 0, way) for way in ways]
        return [tuple(len(width.units) for width in one.widths) for one in made]

    plain = cuts(Journal())
    assert len(set(plain)) > 1
    folder = FolderJournal(tmp_path / "progress", lambda line: pytest.fail(line))
    assert cuts(folder) == plain and cuts(folder) == plain


def test_nothing_is_spread_where_nothing_goes_or_a_clock_counts() -> None:
    where = lab()
    given, first_order = narrow(where), pruning.IMPORTANCES.find("first-order")
    stages: list[str] = []
    where.observer = Observer(on_stage=stages.append)
    cost = COSTS["parameters"]()
    whole = spread(where, given, cost, "parameters", cost.given(given.model), first_order, "x", "all", 0)
    assert whole.measured.parameters == given.measured.parameters

    class Clock(type(cost)):  # type: ignore[misc]
        name = "latency"

    spread(where, given, Clock(), "parameters", 0.5 * given.measured.parameters, first_order, "x", "clock", 0)
    assert not any("ways to spread" in text for text in stages)


def test_both_of_a_contest_cost_and_learn_alike() -> None:
    where = lab()
    where.settings = replace(where.settings, epochs=4, cycles=1, margin=0.0)
    given = where.trained(network(where), "given", "given", (10,), 0)
    amount = given.measured.parameters
    met = contest(where, given, COSTS["parameters"](), "parameters", pruning.IMPORTANCES.find("first-order"), "x", 0)
    assert met.record is not None and met.pruned.measured.parameters == amount and met.pruned.epochs == 18
    assert met.record.channels >= 0
    if met.grafted is not None:
        assert met.grafted.measured.parameters <= amount and met.grafted.epochs == 18


def test_the_smallest_within_a_loss_is_the_best_of_those_alike() -> None:
    where = lab()
    given = network(where)
    asked = Asked(Request(SourceRequest("x.pt"), "digits", Path("run")), "parameters=100%", max_loss=5.0)
    descent = Descent(where, asked, parse_target(asked.target), given, 1000.0)

    def reached(share: float, validation: float) -> Reached:
        own = replace(given, measured=replace(given.measured, validation=given.measured.validation + validation))
        return Reached(size(share, 0.0), own, None, None, 0)

    found = [reached(0.5, 0.0), reached(0.2, -0.04), reached(0.2, -0.01), reached(0.1, -0.2)]
    assert descent.best_within(found) == 2
    with pytest.raises(PruningError, match=r"the nearest had 100 parameters and lost 20.00"):
        descent.best_within(found[3:])


def test_what_cannot_be_met_leaves_no_folder_when_it_went_on_either(tmp_path: Path) -> None:
    quick = Settings(epochs=1, batch_size=16, recipe=Recipe(learning_rate=1e-9), cycles=1)
    request = Request(SourceRequest(str(SAMPLES / "cnn.pt")), "digits", tmp_path / "run", settings=quick)
    asked = Asked(request, "parameters=100%", max_loss=0.0, sparsity=0.0, dendrites=False, scratch=False)
    stages: list[str] = []

    def stop(stage: str) -> None:
        stages.append(stage)
        if sum(stage.startswith("pruning to") for stage in stages) == 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        compress(asked, Observer(on_stage=stop))
    assert (tmp_path / "run" / "checkpoint").is_dir()
    with pytest.raises(PruningError, match="no smaller model within 0 points was found"):
        resume(tmp_path / "run", Observer())
    assert not list(tmp_path.iterdir())


# ── what is told ─────────────────────────────────────────────────────────────────────────────────


def record(validation: float, parameters: int, name: str = "pruned") -> NetworkRecord:
    return NetworkRecord(name, validation, validation - 0.01, parameters, 10 * parameters, epochs=4)


def size(share: float, validation: float, **more) -> SizeRecord:
    return SizeRecord(share, 1000 * share, record(validation, round(1000 * share)), **more)


def report(sizes: list[SizeRecord], seeds: list[int], **more) -> CompressionReport:
    model = surgery.empty(gk.trace(Net(), torch.randn(2, 6)))
    found = gk.inspect(model)
    assert isinstance(found, Inspection)
    given = record(0.97, 1000, "given")
    fields = {"shipped": 0, "knee": None, "layers": (), "kept": {}, "parity": {"onnxruntime": 1e-7}, "settings": {}}
    return CompressionReport("net", "accuracy", "parameters", "parameters", given, tuple(sizes), tuple(seeds),
                             inspection=found, **{**fields, **more})  # fmt: skip


def test_the_knee_is_where_the_curve_bends() -> None:
    scores = [0.97, 0.97, 0.968, 0.967, 0.965, 0.96, 0.8, 0.6, 0.5, 0.3]
    assert knee([size(share, score) for share, score in zip(FRONT, scores, strict=True)]) == 5
    assert FRONT[0] == 1 and FRONT[-1] == pytest.approx(0.05) and len(FRONT) == 10
    assert knee([size(1.0, 0.9)]) == 0


def test_the_verdict_says_what_dendrites_did() -> None:
    won = size(0.4, 0.95, grafted=record(0.97, 395, "pruned + dendrites"), chosen="grafted",
               contest=ContestRecord(0.02, 0.01, 3, 0.02, 0.005))  # fmt: skip
    lost = size(0.4, 0.95, contest=ContestRecord(0.002, 0.01, 3))
    unsure = size(0.4, 0.95, grafted=record(0.951, 395), contest=ContestRecord(0.02, 0.01, 3, 0.001, 0.005))
    nothing = size(0.4, 0.95, contest=ContestRecord(None, 0.01, 0))
    words = [" ".join(compression_verdict(report([one], [0]))) for one in (won, lost, unsure, nothing)]
    assert "from 1,000 to 395 parameters (39.5%)" in words[0] and "they gain +2.00 ± 0.50 points" in words[0]
    assert "take away 20% of the loss" in words[1] and "which is not sure" in words[2]
    assert "none was surely worth anything" in words[3]
    assert all("One seed is a hint" in text for text in words)


def test_several_seeds_have_a_spread_and_the_page_is_whole() -> None:
    sizes = [size(share, score) for share, score in ((1.0, 0.96), (0.4, 0.95), (1.0, 0.98), (0.4, 0.91))]
    told = report(sizes, [0, 0, 1, 1], knee=1, shipped=1)
    table = front_rows(told)
    assert [row[0] for row in table] == ["100.0%", "40.0%  <- knee"] and table[0][1] == "97.00 ± 1.41%"
    page = compression_html(told)
    assert (
        page.count("<svg") == 3
        and page.rstrip().endswith("</html>")
        and "http" not in page.replace("http://www.w3.org", "")
    )
    assert "One seed" not in page
    assert json.loads(json.dumps(told.to_json()))["knee"] == 1


# ── the folder as a model ────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compression's folder, as far as a source reads it, made by hand of a file of torch.nn classes."""
    folder = tmp_path_factory.mktemp("pruned")
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3))
    torch.save(module, folder / "given.pt")
    small = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    run = folder / "run"
    (run / "checkpoint").mkdir(parents=True)
    sha256 = gk.load(folder / "given.pt").provenance["sha256"]
    facts = {"source": str(folder / "given.pt"), "weights": None, "arch": None, "arch_args": {}, "allow": [],
             "part": None, "sha256": sha256}  # fmt: skip
    (run / "source.json").write_text(json.dumps(facts))
    (run / "plan.json").write_text(json.dumps({"grafts": []}))
    (run / "pruned.json").write_text(json.dumps(pruning.shapes_of(module, small).to_json()))
    state = {f"base.{name}": tensor for name, tensor in small.state_dict().items()}
    (run / "checkpoint" / "model.safetensors").write_bytes(safetensors.torch.save(state))
    (run / "checkpoint" / "state.json").write_text('{"aliases": {}}')
    torch.save(small, folder / "wanted.pt")
    return folder


def test_it_is_the_pruned_model(pruned: Path) -> None:
    loaded = gk.load(pruned / "run")
    wanted = gk.load(pruned / "wanted.pt").model
    x = torch.randn(3, 6)
    assert torch.equal(loaded.model(x), wanted(x)) and loaded.name == "run"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pruned.json", "{}"),
        ("pruned.json", "not json"),
        ("pruned.json", '{"tensors": {"0.weight": [4, 9]}, "numbers": {}}'),
        ("pruned.json", '{"tensors": {}, "numbers": {}}'),  # then the weights do not fit
        ("source.json", "[]"),
        ("source.json", '{"source": "elsewhere.pt"}'),
        ("plan.json", '{"grafts": [1]}'),
        ("checkpoint/state.json", '{"aliases": {"base.x": "base.nowhere"}}'),
        ("checkpoint/model.safetensors", "broken"),
    ],
)
def test_a_folder_that_was_tampered_with_is_one_line(pruned: Path, tmp_path: Path, name: str, content: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(pruned / "run", run)
    (run / name).write_text(content)
    with pytest.raises(SourceError) as error:
        gk.load(run)
    assert "\n" not in str(error.value) and str(run) in str(error.value)


def test_weights_that_are_lacking_are_named(pruned: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(pruned / "run", run)
    file = run / "checkpoint" / "model.safetensors"
    state = safetensors.torch.load(file.read_bytes())
    del state["base.0.weight"]
    file.write_bytes(safetensors.torch.save(state))
    with pytest.raises(SourceError, match=r"lacks weights of its model: 0.weight"):
        gk.load(run)


def test_a_model_that_changed_since_is_refused(pruned: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(pruned / "run", run)
    facts = json.loads((run / "source.json").read_text())
    torch.save(nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3)), tmp_path / "other.pt")
    (run / "source.json").write_text(json.dumps({**facts, "source": str(tmp_path / "other.pt")}))
    with pytest.raises(SourceError, match="has changed since"):
        gk.load(run)


def test_options_of_other_formats_are_refused(pruned: Path) -> None:
    with pytest.raises(SourceError, match="says itself what it was made from"):
        gk.load(pruned / "run", arch="x:y")


def test_memory_is_measured_of_a_whole_model_and_no_dendrite_is_tried() -> None:
    where = lab()
    given, target = network(where), parse_target("memory=50%")
    assert 0 <= target.cost.given(given.model) < 1e9 and target.counted == "macs"
    request = Request(SourceRequest("x.pt"), "digits", Path("run"))
    for text, competes in (("memory=50%", False), ("size=50%", True)):
        descent = Descent(where, Asked(request, text), parse_target(text), given, 1.0)
        assert descent.competes is competes
