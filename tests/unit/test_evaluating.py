"""What a run's networks do with few samples and corrupted inputs: shares, scales, errors, and folders of any kind."""

from __future__ import annotations

import io
import itertools
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import graftkit as gk
from graftkit import api, pruning, surgery, training
from graftkit.augmenting import augment
from graftkit.compressing import Asked as ToCompress
from graftkit.compressing import compress
from graftkit.contracts import Data, LoadedModel, Observer, Rows, SourceRequest
from graftkit.core.errors import DataError, RunError, TraceError
from graftkit.core.evaluations import (
    CorruptedRecord,
    EvaluationReport,
    FewRecord,
    Gain,
    StrengthRecord,
    paired,
)
from graftkit.evaluating import Asked, evaluate, parse_shares
from graftkit.evaluating.beginning import draw, frozen
from graftkit.evaluating.corrupted import corrupted
from graftkit.evaluating.ends import ends_of
from graftkit.evaluating.networks import Network, opened
from graftkit.evaluating.shares import shared, spread_out
from graftkit.fitting import Settings, difference_error
from graftkit.plan import GraftPlan
from graftkit.reporting.evaluations import evaluation_table, evaluation_words
from graftkit.request import Request
from graftkit.run_folder import RunFolder
from graftkit.training import Recipe, accuracy


def made(rows: int = 300, classes: int = 3) -> Data:
    """Classes that are of unequal size, from eight numbers."""
    inputs = torch.randn(rows, 8, generator=torch.Generator().manual_seed(1))
    labels = ((inputs[:, :classes] + torch.tensor([0.0, 0.3, 0.8][:classes])).argmax(1)).long()
    train, validation, test = (TensorDataset(inputs[i::3], labels[i::3]) for i in range(3))
    return Data(train, validation, test, "classes", classes, "made")


def network(module: nn.Module, rows: Data, name: str = "given") -> Network:
    model = surgery.empty(api.trace(LoadedModel(module, {}, "net"), rows.example()))
    return Network(name, model, model.plan, model.snapshot())


# ── shares ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def inputs_of(rows: Rows) -> set[tuple[float, ...]]:
    return {tuple(row.tolist()) for inputs, _ in training.batches(rows, 64) for row in inputs}


@given(seed=st.integers(0, 50))
def test_a_smaller_share_lies_within_a_larger_one_and_has_its_part_of_each_class(seed: int) -> None:
    data = made()
    found = [shared(data, share, seed=seed) for share in (0.1, 0.25, 0.5, 1.0)]
    own = [inputs_of(one.train) for one in found]
    assert [len(rows) for rows in own] == [10, 25, 50, 100]
    assert own[0] < own[1] < own[2] < own[3]
    assert all(one.validation is data.validation and one.test is data.test for one in found)
    whole = torch.bincount(data.train.tensors[1], minlength=3)  # type: ignore[attr-defined]
    part = torch.bincount(found[2].train.tensors[1], minlength=3)  # type: ignore[attr-defined]
    assert (part.double() - whole / 2).abs().max() <= 1.5


@given(labels=st.lists(st.integers(0, 40), min_size=1, max_size=120), seed=st.integers(0, 9))
def test_any_beginning_has_its_part_of_each_class(labels: list[int], seed: int) -> None:
    order = spread_out(np.array(labels), seed)
    assert sorted(order.tolist()) == list(range(len(labels)))
    for count in range(1, len(labels) + 1):
        share = count / len(labels)
        for label in set(labels):
            taken = sum(labels[row] == label for row in order[:count])
            assert abs(taken - share * labels.count(label)) <= 1.5


def test_many_classes_of_few_rows_can_be_shared() -> None:
    rows = TensorDataset(torch.randn(160, 8), torch.arange(160) % 40)
    data = replace(made(), train=rows, classes=40)
    sizes = [len(shared(data, share, seed=0).train) for share in (1.0, 0.5, 0.25, 0.1)]  # type: ignore[arg-type]
    assert sizes == [160, 80, 40, 16]


def test_another_seed_draws_other_rows() -> None:
    one, other = (inputs_of(shared(made(), 0.3, seed=seed).train) for seed in (0, 1))
    assert one != other and len(one) == len(other) == 30


def test_shares_of_values_need_no_classes() -> None:
    data = made()
    values = TensorDataset(data.train.tensors[0], torch.randn(100, 2))  # type: ignore[attr-defined]
    found = shared(replace(data, train=values, labels="values", classes=None), 0.2, seed=0)
    assert len(found.train) == 20  # type: ignore[arg-type]


def test_what_no_share_can_be_taken_of() -> None:
    data = made()
    with pytest.raises(DataError, match=r"by a loader, of which no share can be taken; .*--only corruptions"):
        shared(replace(data, train=DataLoader(data.train, 8)), 0.5, seed=0)
    with pytest.raises(DataError, match=r"1% of 100 training rows is 1; give larger --shares"):
        shared(data, 0.01, seed=0)


@pytest.mark.parametrize(
    ("text", "shares"), [("10%,50%,100%", (0.1, 0.5, 1)), ("50%, 10%", (0.1, 0.5)), ("5%,5%", (0.05,))]
)
def test_shares_are_read(text: str, shares: Sequence[float]) -> None:
    assert parse_shares(text) == pytest.approx(shares)


@pytest.mark.parametrize("text", ["", "10", "0.5", "110%", "0%", "x%", "10%,,50%"])
def test_other_shares_are_refused(text: str) -> None:
    with pytest.raises(gk.GraftkitError, match="--shares"):
        parse_shares(text)


# ── corrupted inputs ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_networks_see_the_same_rows_and_errors_are_of_pairs() -> None:
    data = made()
    torch.manual_seed(0)
    first, second = nn.Linear(8, 3), nn.Linear(8, 3)
    networks = [network(first, data), network(second, data, "grafted"), network(first, data, "twin")]
    ends = ends_of(networks[0], data.test, None, None)
    assert [kind.name for kind in ends.corruptions()] == ["noise", "gain"]
    run = lambda own, seed: corrupted(own, data.test, "test", accuracy, ends, Observer(), seed=seed)  # noqa: E731
    found = run(networks, 0)
    assert found.corruptions == ("noise", "gain") and len(found.strengths) == 10 and found.rows == 100
    assert found == run(networks, 0) and found.strengths != run(networks, 1).strengths
    assert all(record.scores["given"] == record.scores["twin"] for record in found.strengths)
    assert all(gain == Gain(0.0, 0.0, 50) for gain in found.gains["given"].values())
    answers = [training.answers(one.awake(), data.test, torch.device("cpu")) for one in (networks[2], networks[1])]
    clean = found.gains["grafted"]["clean"]
    assert clean.value == pytest.approx(accuracy(*answers[0]) - accuracy(*answers[1]))
    assert clean.error == pytest.approx(difference_error(accuracy, *answers), rel=0.3)
    mean = found.mean()
    assert found.gains["grafted"]["all"].value == pytest.approx(mean["twin"] - mean["grafted"])
    assert found.mean("gain")["given"] != found.mean("noise")["given"]


def test_noise_costs_a_network_that_knows_its_data() -> None:
    data = made(900)
    exact = nn.Linear(8, 3)
    with torch.no_grad():
        exact.weight.copy_(torch.eye(3, 8))
        exact.bias.copy_(torch.tensor([0.0, 0.3, 0.8]))
    own = network(exact, data)
    found = corrupted([own], data.test, "test", accuracy, ends_of(own, data.test, None, None), Observer(), seed=0)
    scores = [record.scores["given"] for record in found.strengths if record.corruption == "noise"]
    assert found.clean["given"] == 1 and found.gains == {}
    assert all(a >= b for a, b in itertools.pairwise(scores)) and scores[-1] < 0.75


@pytest.mark.parametrize(
    ("shape", "form", "time", "kinds"),
    [
        ((1, 8, 8), None, None, 5),
        ((4, 20), None, None, 3),
        ((8,), None, None, 2),
        ((1, 8, 8), "series", None, 3),
        ((4, 20), "image", None, 5),
        ((4, 20), "series", 1, 3),
    ],
)
def test_forms(shape: tuple[int, ...], form: str | None, time: int | None, kinds: int) -> None:
    rows = TensorDataset(torch.randn(6, *shape), torch.arange(6) % 2)
    data = Data(rows, rows, None, "classes", 2, "made")
    own = network(nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 2)), data)
    ends = ends_of(own, rows, form, time)  # type: ignore[arg-type]
    assert len(ends.corruptions()) == kinds
    assert ends.scales[0].time == (time or 1 + max(range(len(shape)), key=lambda dim: (shape[dim], dim)))
    found = corrupted([own], rows, "validation", accuracy, ends, Observer(), seed=0)
    assert len(found.strengths) == 5 * kinds and found.rows == 6


def test_the_scale_of_images_is_that_of_each_channel() -> None:
    inputs = torch.rand(40, 2, 5, 4) * torch.tensor([1.0, 10.0]).view(1, 2, 1, 1)
    rows = TensorDataset(inputs, torch.arange(40) % 2)
    data = Data(rows, rows, None, "classes", 2, "made")
    scale = ends_of(network(nn.Sequential(nn.Flatten(), nn.Linear(40, 2)), data), rows, None, None).scales[0]
    for channel in range(2):
        own = inputs[:, channel]
        told = [float(getattr(scale, name)[0, channel]) for name in ("low", "high", "mean")]
        assert told == pytest.approx([float(own.min()), float(own.max()), float(own.mean())], rel=1e-5)
    assert torch.allclose(scale.spread.flatten(), inputs.std((0, 2, 3), correction=0), rtol=1e-4)


def test_noise_is_of_the_size_of_each_feature() -> None:
    inputs = torch.randn(400, 3, 20) * torch.tensor([1.0, 1000.0, 0.0]).view(1, 3, 1)
    rows = TensorDataset(inputs, torch.arange(400) % 2)
    data = Data(rows, rows, None, "classes", 2, "made")
    ends = ends_of(network(nn.Sequential(nn.Flatten(), nn.Linear(60, 2)), data), rows, None, None)
    kind = next(kind for kind in ends.corruptions() if kind.name == "noise")
    (found,) = ends.corrupted([inputs], kind, 20.0, torch.Generator().manual_seed(0))
    assert (found - inputs).std((0, 2)).tolist() == pytest.approx([0.1, 100.0, 0.0], rel=0.05)


class Words(nn.Module):
    """Reads whole numbers, and numbers beside them if it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(9, 4), nn.Linear(4, 2)

    def forward(self, ids: Tensor, weights: Tensor | None = None) -> Tensor:
        found = self.table(ids)
        return self.head((found if weights is None else found * weights.unsqueeze(-1)).mean(1))


def worded(*, weighted: bool, weights: Tensor = torch.linspace(0.1, 1, 5)) -> Data:  # noqa: B008
    ids = torch.randint(0, 9, (12, 5))
    inputs = [{"ids": row, **({"weights": weights} if weighted else {})} for row in ids]
    rows: Rows = [(given, torch.tensor(i % 2)) for i, given in enumerate(inputs)]  # type: ignore[assignment]
    return Data(rows, rows, None, "classes", 2, "made")


def test_whole_numbers_stay_and_other_inputs_beside_them_do_not() -> None:
    data = worded(weighted=True)
    ends = ends_of(network(Words(), data), data.validation, None, None)
    batch = next(iter(training.batches(data.validation, 4)))[0]
    given = [batch["ids"], batch["weights"]]
    kind = ends.corruptions()[0]
    ids, weights = ends.corrupted(given, kind, kind.levels[0], torch.Generator().manual_seed(0))
    assert ids is given[0] and torch.equal(weights, given[1])  # they are the same in every row: there is no spread
    gained = ends.corrupted(given, ends.corruptions()[1], 6.0, torch.Generator().manual_seed(0))
    assert not torch.equal(gained[1], given[1])
    masked = worded(weighted=True, weights=torch.tensor([1.0, 1, 1, 0, 0]))
    with pytest.raises(DataError, match="nothing to corrupt"):  # zeros and ones beside words are a mask
        ends_of(network(Words(), masked), masked.validation, None, None)
    words = worded(weighted=False)
    with pytest.raises(DataError, match=r"no input is an image, a series or a row of numbers .*ids: int64.*--only few"):
        ends_of(network(Words(), words), words.validation, None, None)


@pytest.mark.parametrize(("time", "says"), [(2, "from 1 to 1"), (7, "from 1 to 1")])
def test_a_time_axis_that_is_not_there(time: int, says: str) -> None:
    with pytest.raises(DataError, match=says):
        ends_of(network(nn.Linear(8, 3), made()), made().test, "series", time)


def test_rows_that_cannot_be_an_image() -> None:
    with pytest.raises(DataError, match="no input is an image"):
        ends_of(network(nn.Linear(8, 3), made()), made().test, "image", None)


def test_rows_in_another_order_each_time_are_refused() -> None:
    data = made()
    shuffled = DataLoader(data.test, 16, shuffle=True)
    networks = [network(nn.Linear(8, 3), data), network(nn.Linear(8, 3), data, "grafted")]
    ends = ends_of(networks[0], shuffled, None, None)
    with pytest.raises(DataError, match="another order each time; give a loader that does not shuffle"):
        corrupted(networks, shuffled, "test", accuracy, ends, Observer(), seed=0)


# ── how sure ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_seeds_tell_by_their_number() -> None:
    assert not paired([0.9, 0.9], [0.8, 0.8]).sure  # two never tell
    assert paired([0.9, 0.91, 0.92], [0.8, 0.81, 0.82]).sure
    three, many = paired([0.03, 0.01, 0.02], [0, 0, 0]), paired([0.03, 0.01, 0.02] * 4, [0] * 12)
    assert three.value == pytest.approx(0.02) and three.error == pytest.approx(0.01 / 3**0.5)
    assert not three.sure and many.sure  # 3.5 standard errors; t asks for 4.3 of three
    assert paired([0.4], [0.1]).error is None and not paired([0.4], [0.1]).sure


# ── whole runs ───────────────────────────────────────────────────────────────────────────────────────────────────────

DATA = """
import torch
from torch.utils.data import TensorDataset

def rows():
    inputs = torch.randn(240, 8, generator=torch.Generator().manual_seed(1))
    labels = (inputs[:, :3] + torch.tensor([0.0, 0.3, 0.8])).argmax(1)
    return {name: TensorDataset(inputs[i::3], labels[i::3]) for i, name in enumerate(("train", "validation", "test"))}
"""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluating")
    (folder / "rows.py").write_text(DATA)
    torch.manual_seed(0)
    torch.save(nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)), folder / "net.pt")
    frozen = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    frozen[0].requires_grad_(False)
    torch.save(frozen, folder / "partly.pt")
    return folder


@pytest.fixture(scope="module")
def run(workshop: Path) -> Path:
    return made_run(workshop, "run")


def made_run(workshop: Path, name: str, model: str = "net.pt", **how: object) -> Path:
    settings = Settings(epochs=3, cycles=1, batch_size=16, recipe=Recipe(learning_rate=1e-2))
    request = Request(
        SourceRequest(str(workshop / model)),
        data=f"{workshop / 'rows.py'}:rows",
        out=workshop / name,
        settings=replace(settings, **how.pop("settings", {})),  # type: ignore[arg-type]
        **how,  # type: ignore[arg-type]
    )
    augment(request, Observer())
    return workshop / name


def copy_of(run: Path, tmp_path: Path) -> Path:
    shutil.copytree(run, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_run_keeps_the_weights_that_it_measured(run: Path) -> None:
    found = opened(run, Observer(), device=torch.device("cpu"), trust=False, allow=())
    told = json.loads((run / "metrics.json").read_text())
    assert [one.name for one in found.networks] == ["given", "control", "grafted"]
    for one, key in zip(found.networks, ("baseline", "control", "best_grafted"), strict=True):
        score = training.evaluate(one.awake(), found.data.test, accuracy, torch.device("cpu"))  # type: ignore[arg-type]
        assert score == pytest.approx(told[key]["test"]), key
        assert one.model.parameter_count() == told[key]["parameters"]


def test_a_run_is_evaluated_and_what_is_asked_for_later_is_added(run: Path, tmp_path: Path) -> None:
    own = copy_of(run, tmp_path)
    first = evaluate(Asked(own, ("corruptions",)), Observer())
    assert first.few == () and first.corrupted is not None and tuple(first.corrupted.clean) == tuple(first.parameters)
    second = evaluate(Asked(own, ("few",), shares=(0.2, 1.0), seeds=2), Observer())
    assert second.corrupted == first.corrupted and second.start == "fresh"
    assert [(r.share, r.rows, r.seed, r.epochs) for r in second.few] == [
        (0.2, 16, 0, 15), (1.0, 80, 0, 3), (0.2, 16, 1, 15), (1.0, 80, 1, 3),
    ]  # fmt: skip
    assert all(tuple(record.test) == ("given", "control", "grafted") for record in second.few)
    read = EvaluationReport.from_json(json.loads((own / "evaluation.json").read_text()))
    assert read == replace(second, settings=read.settings) and not RunFolder(own).evaluating.exists()
    assert (own / "evaluation.svg").read_text().startswith("<svg")
    assert sum("With 20% of the training rows" in line for line in evaluation_words(read)) == 2
    assert api.inspect(own).name  # the folder is still a run's


def test_few_samples_begin_from_fresh_weights_and_the_seed_decides(run: Path, tmp_path: Path) -> None:
    asked = Asked(copy_of(run, tmp_path), ("few",), shares=(1.0,), seeds=1)
    first, again = evaluate(asked, Observer()), evaluate(asked, Observer())
    other = evaluate(replace(asked, seed=5), Observer())
    given = evaluate(replace(asked, start="given"), Observer())
    assert first.few == again.few and first.few[0].validation != other.few[0].validation
    assert given.start == "given" and given.few[0].epochs == 0
    assert given.few[0].test["given"] == json.loads((run / "metrics.json").read_text())["baseline"]["test"]


def test_one_that_was_stopped_goes_on_and_ends_alike(run: Path, tmp_path: Path) -> None:
    asked = Asked(copy_of(run, tmp_path), ("few",), shares=(0.5, 1.0), seeds=2)
    whole = evaluate(asked, Observer())
    seen: list[str] = []

    def stop(text: str) -> None:
        seen.append(text)
        if "seed 1" in text:
            raise KeyboardInterrupt

    with pytest.raises(gk.GraftkitError, match=r"stopped by the user; `graftkit evaluate .*` goes on from here"):
        evaluate(asked, Observer(on_stage=stop))
    assert RunFolder(asked.run).evaluating.is_dir()
    told: list[str] = []
    again = evaluate(asked, Observer(on_stage=told.append))
    assert again.few == whole.few and sum("learning" in line for line in told) == 2
    with pytest.raises(gk.GraftkitError, match="stopped"):
        evaluate(asked, Observer(on_stage=stop))
    told.clear()
    evaluate(replace(asked, epochs=2), Observer(on_stage=told.append))  # another question: begun anew
    assert sum("learning" in line for line in told) == 4


def test_dendrites_that_learned_alone_are_given_the_trained_weights(workshop: Path) -> None:
    own = made_run(workshop, "frozen_base", rule="gradient:freeze=true")
    found = evaluate(Asked(own, ("few",), shares=(0.5, 1.0), seeds=1), Observer())
    assert found.start == "given" and len({record.test["given"] for record in found.few}) == 1


def test_what_is_frozen_stays_while_the_rest_is_drawn_anew() -> None:
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    module(torch.randn(50, 8) + 3)
    for layer in module[:2]:
        layer.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    model = surgery.empty(api.trace(LoadedModel(module, {}, "net"), torch.randn(4, 8)))
    assert draw(model, 0) == []
    after = module.state_dict()
    same = {name for name, tensor in before.items() if torch.equal(tensor, after[name])}
    assert same == {name for name in before if name[0] in "01"} | {"3.weight", "3.bias"} - {"3.running_mean"}
    assert set(frozen(module)) == {name for name in before if name[0] in "01"}
    assert float(after["3.running_mean"].abs().sum()) == 0


def test_few_samples_do_not_begin_from_what_was_given(workshop: Path) -> None:
    """A model that knows its data is not what a share of them is said to have taught."""
    data = made(240)
    module = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    with torch.no_grad():
        module[0].weight.copy_(torch.eye(6, 8))
        module[0].bias.copy_(torch.tensor([5.0, 5.3, 5.8, 0, 0, 0]))
        module[2].weight.copy_(torch.eye(3, 6))
        module[2].bias.zero_()
    assert training.evaluate(network(module, data).awake(), data.test, accuracy, torch.device("cpu")) > 0.99  # type: ignore[arg-type]
    torch.save(module, workshop / "knows.pt")
    own = made_run(workshop, "knows", "knows.pt", settings={"recipe": Recipe(learning_rate=1e-5)})
    found = evaluate(Asked(own, ("few",), shares=(0.5,), seeds=2, epochs=1), Observer())
    assert all(score < 0.8 for record in found.few for score in record.test.values()), found.few


def test_a_run_without_control_says_so(workshop: Path) -> None:
    own = made_run(workshop, "alone", settings={"control": False})
    notes: list[str] = []
    found = evaluate(Asked(own, ("corruptions",)), Observer(on_warning=notes.append))
    assert found.corrupted is not None and tuple(found.corrupted.clean) == ("given", "grafted")
    assert "no control is measured: the run had none" in notes and tuple(notes) == found.notes
    few = evaluate(Asked(own, ("few",), shares=(1.0,), seeds=1), Observer())
    assert tuple(few.few[0].test) == ("given", "control", "grafted")  # there a control is trained anyway


def test_a_folder_of_an_earlier_version_says_what_it_lacks(run: Path, tmp_path: Path) -> None:
    own = copy_of(run, tmp_path)
    for name in ("control.json", "control.safetensors"):
        (own / "checkpoint" / name).unlink()
    notes: list[str] = []
    evaluate(Asked(own, ("corruptions",)), Observer(on_warning=notes.append))
    assert any("an earlier version did not keep its weights" in line for line in notes)


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("metrics.json", None, "has not ended; `graftkit augment --resume"),
        ("request.json", None, "holds no run that could go on"),
        ("request.json", "{}", "does not say how it was begun"),
        ("checkpoint/control.json", "[]", "not a graft plan"),
        ("checkpoint/control.json", "{", "cannot be read"),
        ("checkpoint/control.safetensors", "x", "cannot be read"),
        ("checkpoint/model.safetensors", "x", "cannot be read"),
    ],
)
def test_a_folder_that_was_tampered_with(run: Path, tmp_path: Path, file: str, content: str | None, says: str) -> None:
    own = copy_of(run, tmp_path)
    if content is None:
        (own / file).unlink()
    else:
        (own / file).write_text(content)
    with pytest.raises(gk.GraftkitError, match=says) as caught:
        evaluate(Asked(own), Observer())
    assert "\n" not in str(caught.value) and not (own / "evaluation.json").exists()


def test_weights_that_do_not_fit_their_plan(run: Path, tmp_path: Path) -> None:
    own = copy_of(run, tmp_path)
    told = json.loads((own / "checkpoint/control.json").read_text())
    plan = json.loads((own / "plan.json").read_text())
    if not plan["grafts"]:
        plan = json.loads((own / "checkpoint/grafted.json").read_text())["plan"]
    (own / "checkpoint/control.json").write_text(json.dumps({**told, "plan": plan}))
    with pytest.raises(RunError, match="the weights of control do not fit its plan"):
        evaluate(Asked(own), Observer())


def test_a_graph_has_no_fresh_weights(workshop: Path, tmp_path: Path) -> None:
    module = torch.load(workshop / "net.pt", weights_only=False).eval()
    rows = torch.export.Dim("rows")
    torch.export.save(
        torch.export.export(module, (torch.randn(4, 8),), dynamic_shapes=({0: rows},)), workshop / "p.pt2"
    )
    own = made_run(workshop, "graph", "p.pt2")
    with pytest.raises(TraceError, match=r"does not say how its weights began.*--start given.*--only corruptions"):
        evaluate(Asked(own), Observer())
    assert not (own / "evaluation.json").exists()
    found = evaluate(Asked(own, seeds=1, shares=(1.0,), start="given"), Observer())
    assert found.few and found.corrupted is not None


def test_what_is_no_number_is_null_in_json_and_a_dash_for_people() -> None:
    record = FewRecord(0.1, 10, 0, 30, 80, {"given": 0.5, "control": math.nan}, {})
    gains = {"given": {"clean": Gain(math.nan, None, 50), "noise": Gain(0.1, None, 50)}}
    strengths = tuple(StrengthRecord("noise", n, 1.0, {"given": 0.1, "control": math.nan}) for n in range(1, 6))
    scores = CorruptedRecord("test", 80, {"given": 0.5, "control": math.nan}, strengths, gains)
    report = EvaluationReport("net", "r2", {"given": 3, "control": 3}, scores, few=(record,))
    text = json.dumps(report.to_json(), allow_nan=False)
    read = EvaluationReport.from_json(json.loads(text))
    assert json.dumps(read.to_json()) == text and math.isnan(read.few[0].validation["control"])
    assert read.corrupted is not None and read.corrupted.gains["given"]["noise"] == Gain(0.1, None, 50)
    shown = "\n".join(lines_of(report))
    assert "nan" not in shown.lower() and "not surely better or worse" in "".join(evaluation_words(report))


def lines_of(report: EvaluationReport) -> list[str]:
    console = Console(width=160, file=io.StringIO())
    console.print(evaluation_table(report))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_a_seed_that_grafted_nothing_is_left_out_of_the_mean() -> None:
    whole = {"given": 0.9, "control": 0.92, "grafted": 0.95}
    records = [FewRecord(0.5, 10, seed, 3, 100, {}, dict(whole)) for seed in range(3)]
    records = [replace(r, validation=r.test) for r in records]
    lacking = {"given": 0.9, "control": 0.92}
    records[1] = replace(records[1], validation=lacking, test=lacking)
    report = EvaluationReport("net", "accuracy", {"given": 3, "control": 3, "grafted": 4}, few=tuple(records))
    assert report.scores(0.5, "grafted") == [0.95, 0.95] and report.seeds(0.5) == 3
    gain = report.gain(0.5, "grafted", "control")
    assert gain is not None and gain.pairs == 2 and gain.error == 0.01  # one row of a hundred, at least
    assert any("(of 2)" in line for line in lines_of(report))
    assert not paired([0.91, 0.92, 0.93], [0.90, 0.91, 0.92], 0.01).sure


def test_a_metric_without_bounds_has_no_mean_over_corruptions() -> None:
    data = made()
    values = TensorDataset(data.test.tensors[0], torch.randn(100, 3))  # type: ignore[union-attr]
    networks = [network(nn.Linear(8, 3), data), network(nn.Linear(8, 3), data, "grafted")]
    ends = ends_of(networks[0], values, None, None)
    found = corrupted(networks, values, "test", training.find_metric("r2"), ends, Observer(), seed=0)
    assert set(found.gains["given"]) == {"clean", "noise", "gain"}
    report = EvaluationReport("net", "r2", {"given": 27, "grafted": 27}, found)
    assert list(evaluation_words(report)) == [] and not any("mean of all" in line for line in lines_of(report))


def test_outputs_that_are_no_numbers_are_told() -> None:
    class Log(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.log(x))

    rows = TensorDataset(torch.rand(60, 8) + 0.05, torch.arange(60) % 3)
    data = Data(rows, rows, rows, "classes", 3, "made")
    notes: list[str] = []
    own = network(Log(), data)
    found = corrupted([own], rows, "test", accuracy, ends_of(own, rows, None, None),
                      Observer(on_warning=notes.append), seed=0)  # fmt: skip
    assert notes == ["given gives outputs that are no numbers, so no score: noise"]
    assert math.isfinite(found.mean("gain")["given"]) and math.isnan(found.mean("noise")["given"])


def test_corruptions_are_written_before_few_samples_are_learned(run: Path, tmp_path: Path) -> None:
    own = copy_of(run, tmp_path)

    def stop(text: str) -> None:
        if text.startswith("learning from"):
            raise KeyboardInterrupt

    with pytest.raises(gk.GraftkitError, match="stopped"):
        evaluate(Asked(own, seeds=1, shares=(1.0,)), Observer(on_stage=stop))
    told = json.loads((own / "evaluation.json").read_text())
    assert told["corrupted"]["clean"] and told["few"] == [] and set(told["settings"]) == {"corruptions"}


def test_what_was_learned_before_a_break_outlives_other_questions(run: Path, tmp_path: Path) -> None:
    own = copy_of(run, tmp_path)
    seen: list[str] = []

    def stop(text: str) -> None:
        seen.append(text)
        if "100% of the rows" in text:
            raise KeyboardInterrupt

    asked = Asked(own, ("few",), shares=(0.5, 1.0), seeds=1)
    with pytest.raises(gk.GraftkitError, match="stopped"):
        evaluate(asked, Observer(on_stage=stop))
    assert not (RunFolder(own).evaluating / "arms" / "few-0.5-0").exists()  # a share that ended keeps its record alone
    evaluate(Asked(own, ("corruptions",)), Observer())
    told: list[str] = []
    evaluate(replace(asked, shares=(0.25, 0.5, 1.0), seeds=2), Observer(on_stage=told.append))
    assert sum("learning" in line for line in told) == 5
    with pytest.raises(gk.GraftkitError, match="stopped"):
        evaluate(asked, Observer(on_stage=stop))
    (RunFolder(own).evaluating / "asked.json").write_text("{")
    notes: list[str] = []
    evaluate(asked, Observer(on_warning=notes.append))
    assert any("begins anew" in line for line in notes)


def test_weights_that_were_drawn_are_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "drawing.py").write_text(
        "from torch import nn\n\ndef build():\n    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))\n"
    )
    (tmp_path / "rows.py").write_text(DATA)
    monkeypatch.chdir(tmp_path)
    request = Request(SourceRequest("drawing:build"), f"{tmp_path / 'rows.py'}:rows", tmp_path / "run",
                      settings=Settings(epochs=1, cycles=1, seed=4))  # fmt: skip
    augment(request, Observer())
    told = json.loads((tmp_path / "run/metrics.json").read_text())["baseline"]["test"]
    torch.manual_seed(99)
    found = evaluate(Asked(tmp_path / "run", ("corruptions",)), Observer())
    assert found.corrupted is not None and found.corrupted.clean["given"] == pytest.approx(told)


def test_of_a_compression_each_network_has_its_own_shape(workshop: Path) -> None:
    settings = Settings(epochs=1, cycles=1, batch_size=16)
    request = Request(SourceRequest(str(workshop / "net.pt")), f"{workshop / 'rows.py'}:rows", workshop / "small",
                      settings=settings)  # fmt: skip
    compress(ToCompress(request, "parameters=70%", steps=1, dendrites=False), Observer())
    notes: list[str] = []
    found = evaluate(Asked(workshop / "small", seeds=1, shares=(0.5, 1.0)), Observer(on_warning=notes.append))
    assert list(found.parameters) == ["given", "same shape from scratch", "pruned"]
    assert found.parameters["pruned"] == found.parameters["same shape from scratch"] < found.parameters["given"]
    assert found.trained == ("shape of given", "shape of pruned") and not any("control" in line for line in notes)
    told = json.loads((workshop / "small/metrics.json").read_text())["sizes"][0]
    assert found.corrupted is not None
    assert found.corrupted.clean["same shape from scratch"] == pytest.approx(told["scratch"]["test"])
    assert [r.epochs for r in found.few] == [2 * told["pruned"]["epochs"], told["pruned"]["epochs"]]
    # where dendrites ship they are on fewer channels than the plain network has, from scratch, too
    whole, other = gk.load(workshop / "net.pt").model, nn.Sequential(nn.Linear(8, 2), nn.ReLU(), nn.Linear(2, 3))
    assert isinstance(whole, nn.Module)
    state = {f"base.{name}": tensor for name, tensor in other.state_dict().items()}
    RunFolder(workshop / "small").write_arm("control", GraftPlan(), state, pruning.shapes_of(whole, other).to_json())
    again = evaluate(Asked(workshop / "small", ("corruptions",)), Observer())
    assert again.parameters["same shape from scratch"] == 27
