"""Where the whole cannot be traced: the largest part that can, and a word on what stays outside."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from graftkit import api as gk
from graftkit import tracing
from graftkit.contracts import LoadedModel
from graftkit.core.errors import CaptureError, SourceError, TraceError
from graftkit.sources.part import part_of
from graftkit.tracing.core import outside


class Backbone(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem, self.block = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, image: Tensor, *, scale: float = 1.0) -> dict[str, Tensor]:
        x = self.stem(image).relu() * scale
        return {"fine": x, "coarse": self.norm(self.block(x))}


class Detector(nn.Module):
    """Its end goes through a list of Python numbers, one box at a time, as detectors do."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.backbone, self.boxes = Backbone(width), nn.Linear(width, 4)

    def forward(self, image: Tensor) -> list[Tensor]:
        found = self.boxes(self.backbone(image, scale=2.0)["coarse"].mean((2, 3)))
        best = [row for row in found if float(row.detach().sum()) > 0] or [found[0]]
        return [torch.stack(sorted(best, key=lambda row: float(row.detach()[0])))]


def images(rows: int = 2) -> Tensor:
    return torch.randn(rows, 3, 8, 8)


@pytest.fixture
def detector() -> Detector:
    torch.manual_seed(0)
    return Detector()


def test_the_whole_is_refused_where_no_part_was_asked_for(detector: Detector) -> None:
    with pytest.raises(TraceError) as told:
        gk.trace(detector, images())
    assert "\n" not in str(told.value) and "test_core_part.py, line" in str(told.value)


def test_the_largest_part_that_can_be_traced(detector: Detector) -> None:
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    detector.train()
    detector.backbone.norm.eval()
    traced = gk.trace(detector, images(), parts=True)
    assert traced.source is detector.backbone and traced.name.endswith("backbone")
    assert traced.signature.input_names == ("image",)
    assert set(traced.signature.output_names) == {"fine", "coarse"}
    assert [site.key for site in traced.sites][:1] == ["stem"]
    share = sum(p.numel() for p in detector.backbone.parameters()) / sum(p.numel() for p in detector.parameters())
    assert f"only backbone is traced, {share:.0%} of the weights" in traced.notes[0]
    assert "test_core_part.py, line" in traced.notes[0]  # what stands in the way of the whole
    assert traced.notes[1] == "outside stay boxes (1 Linear and Conv)"
    assert all(torch.equal(before[name], value) for name, value in detector.state_dict().items())
    assert detector.training and not detector.backbone.norm.training
    assert not any(part._forward_pre_hooks for part in detector.modules())


def test_a_part_is_called_as_the_whole_calls_it(detector: Detector) -> None:
    """Its keyword arguments, flags included, are those that the whole gave."""
    traced = gk.trace(detector, images(), parts=True)
    x = images(5)
    detector.eval()
    expected = detector.backbone(x, scale=2.0)
    for name, value in zip(traced.signature.output_names, traced.eval_graph(x), strict=True):
        torch.testing.assert_close(value, expected[name])
    assert traced.eval_graph(images(3))[0].shape == (3, 8, 8, 8)


def test_what_is_grafted_on_a_part_works_in_the_whole(detector: Detector) -> None:
    """Parameters are shared: the whole has what the part has learned."""
    traced = gk.trace(detector, images(), parts=True, output=None)
    model = gk.graft(traced).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    weight = detector.backbone.stem.weight.detach().clone()
    model(images(4)).square().mean().backward()
    optimizer.step()
    assert not torch.equal(detector.backbone.stem.weight, weight)


def test_a_model_that_can_be_traced_is_never_cut() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    traced = gk.trace(module, torch.randn(2, 4), parts=True)
    assert traced.source is module and traced.notes == () and len(traced.sites) == 2


def test_a_misspelt_output_is_no_reason_for_parts() -> None:
    with pytest.raises(TraceError, match=r"no output 'course'; it gives fine, coarse"):
        gk.trace(Backbone(), images(), output="course", parts=True)


def test_parts_that_hold_little_are_not_worth_it() -> None:
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.body = nn.Linear(4, 2), nn.Linear(2, 200)
            self.rest = nn.Parameter(torch.zeros(200, 200))

        def forward(self, x: Tensor) -> Tensor:
            h = self.body(self.stem(x)) @ self.rest
            return torch.tensor([[float(v) for v in row] for row in h.tolist()])

    with pytest.raises(TraceError, match="Small cannot be traced"):
        gk.trace(Small(), torch.randn(2, 4), parts=True)


def test_a_part_that_is_called_several_times_is_no_core() -> None:
    """What one of its calls takes is not what the others do."""

    class Repeats(Detector):
        def forward(self, image: Tensor) -> list[Tensor]:
            self.backbone(image)
            return super().forward(image)

    with pytest.raises(TraceError):
        tracing.trace_module(Repeats(), images(), name="net", parts=True)


def test_what_is_outside() -> None:
    module = nn.ModuleDict(
        {"a": nn.Linear(1, 1), "b": nn.ModuleDict({"c": nn.Linear(1, 1), "d": nn.ConvTranspose1d(1, 1, 1)})}
    )
    assert outside(module, "b.c") == ("a (1 Linear and Conv)", "b.d (1 Linear and Conv)")
    assert outside(module, "a") == ("b (2 Linear and Conv)",)
    assert outside(nn.Sequential(nn.ReLU()), "0") == ("no other parts",)


def test_one_graph_has_no_parts_to_take(tmp_path: Path) -> None:
    program = torch.export.export(nn.Sequential(nn.Linear(4, 4)), (torch.randn(2, 4),))
    torch.export.save(program, tmp_path / "net.pt2")
    with pytest.raises(SourceError, match="net is one graph, not a module of modules; --part goes with those"):
        gk.load(tmp_path / "net.pt2", part="0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(nn.Sequential(nn.Linear(4, 4))).save(str(tmp_path / "script.pt"))
    with pytest.raises(SourceError, match="script is one graph"):
        gk.load(tmp_path / "script.pt", part="0")


class Named(nn.Module):
    """One part under two names, and a list."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.layers = nn.Linear(4, 4), nn.ModuleList([nn.Linear(4, 4)])
        self.again = self.body


def test_which_parts_can_be_taken() -> None:
    loaded = LoadedModel(Named(), {}, "named")
    assert part_of(loaded, "again").model is part_of(loaded, "body").model is loaded.model.body
    assert part_of(loaded, "layers.0").name == "named.layers.0"
    with pytest.raises(
        SourceError, match=r"named.layers holds parts, and is never called itself; name one of layers.0"
    ):
        part_of(loaded, "layers")


def test_a_part_is_suggested_only_where_it_may_help() -> None:
    """Not where the model fails by itself, or lacks the output."""
    with pytest.raises(CaptureError):
        gk.trace(Detector(), images())
    for module, output in ((Backbone(), "course"), (nn.Linear(3, 3), None)):
        with pytest.raises(TraceError) as told:
            gk.trace(module, images(), output=output)
        assert not isinstance(told.value, CaptureError)
