"""Weights alone: state dicts, safetensors, Lightning checkpoints and shards, and how they are made to fit."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from graftkit.contracts import LoadedModel, SourceRequest
from graftkit.core.errors import SourceError
from graftkit.sources import load
from graftkit.sources.weights import read_weights

NETS = """
import torch
from torch import nn

def build(width=6, classes=3):
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, classes))

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.reads = nn.Linear(4, 4, bias=False)
        self.tells = nn.Linear(4, 4, bias=False)
        self.tells.weight = self.reads.weight

class Wrapped(nn.Module):
    def __init__(self, width, classes=3, rate=0.5):
        super().__init__()
        self.model = build(width, classes)

class Parallel(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        self.module = build(width)

class LightningModule(nn.Module):
    pass

class Lit(LightningModule):
    def __init__(self, **settings):
        super().__init__()
        self.model = build(settings["width"])

def anything(**settings):
    return build(**settings)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder with `weight_nets.py` in it."""
    (tmp_path / "weight_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "weight_nets", raising=False)
    yield tmp_path
    sys.modules.pop("weight_nets", None)


def trained(width: int = 6) -> nn.Sequential:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3))


def read(path: Path, arch: str | None = "weight_nets:build", **arguments: str) -> LoadedModel:
    return load(SourceRequest(str(path), arch=arch, arch_args=tuple(arguments.items())))


def refusal(path: Path, arch: str | None = "weight_nets:build", **arguments: str) -> str:
    with pytest.raises(SourceError) as caught:
        read(path, arch, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def same(model: Any, other: nn.Module) -> bool:
    found, wanted = model.state_dict(), other.state_dict()
    return found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)


# ── each format ──────────────────────────────────────────────────────────────────────────────────


def checkpoint(state: Any, **more: Any) -> dict[str, Any]:
    """As a Lightning trainer writes it."""
    return {
        "epoch": 3,
        "global_step": 40,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]}],
        "lr_schedulers": [],
        **more,
    }


@pytest.mark.parametrize("form", ["state_dict", "safetensors", "lightning"])
@pytest.mark.parametrize("width", [6, 9])
def test_each_format_fills_the_architecture(folder: Path, form: str, width: int) -> None:
    net, path = trained(width), folder / "net.weights"
    if form == "safetensors":
        save_file(net.state_dict(), path)
    else:
        torch.save(checkpoint(net.state_dict()) if form == "lightning" else net.state_dict(), path)
    loaded = read(path, width=str(width))
    assert same(loaded.model, net)
    assert loaded.name == "net"
    assert loaded.warnings == ()
    assert loaded.provenance == {
        "path": str(path),
        "format": form,
        "arch": "weight_nets:build",
        "arch_args": {"width": str(width)},
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "trust": False,
    }


@pytest.mark.parametrize("form", ["state_dict", "safetensors", "lightning"])
def test_a_file_without_an_architecture_says_how_to_name_one(folder: Path, form: str) -> None:
    path, state = folder / "net.pt", trained().state_dict()
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save(checkpoint(state) if form == "lightning" else state, path)
    message = refusal(path, None)
    words = {"state_dict": "a state dict", "safetensors": "a safetensors file", "lightning": "a Lightning checkpoint"}
    assert f"is {words[form]}, which holds weights but no architecture" in message
    assert "--arch package.module:factory" in message and "--weights" in message


def test_a_state_dict_of_before_torch_1_6_is_read_when_it_is_said_to_be_one(folder: Path) -> None:
    torch.save(trained().state_dict(), folder / "net.pt", _use_new_zipfile_serialization=False)
    assert same(read(folder / "net.pt").model, trained())
    assert "before torch 1.6" in refusal(folder / "net.pt", None)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net"])
def test_weights_are_found_in_a_training_checkpoint(folder: Path, key: str) -> None:
    state = {"epoch": 3, "optimizer": {"state": {}, "param_groups": []}, key: trained().state_dict(), "best": 0.5}
    torch.save(state, folder / "net.pt")
    loaded = read(folder / "net.pt")
    assert same(loaded.model, trained())
    assert loaded.warnings == (
        f"the weights are those under {key!r} in {folder / 'net.pt'}, which holds epoch, optimizer, {key} and best",
    )


def test_the_only_state_dict_is_taken_under_any_name_and_the_usual_one_of_two(folder: Path) -> None:
    wanted, other = trained().state_dict(), {key: value + 1 for key, value in trained().state_dict().items()}
    torch.save({"epoch": 1, "student": wanted}, folder / "one.pt")
    torch.save({"ema": other, "model": wanted}, folder / "two.pt")
    torch.save({"student": wanted, "teacher": other}, folder / "either.pt")
    assert same(read(folder / "one.pt").model, trained())
    assert same(read(folder / "two.pt").model, trained())
    assert "holds a dict of student, teacher, not a state dict" in refusal(folder / "either.pt")


def test_no_trust_is_needed_for_what_lies_beside_the_weights(folder: Path) -> None:
    """Settings of any class are passed over without importing them."""
    (folder / "settings_of_mine.py").write_text("class Settings(dict):\n    pass\n\nclass Mode:\n    pass\n")
    sys.path.insert(0, str(folder))
    try:
        import settings_of_mine
    finally:
        sys.path.remove(str(folder))
    beside = {
        "args": argparse.Namespace(width=6),
        "settings": settings_of_mine.Settings(deep={"width": 6}),
        "mode": settings_of_mine.Mode(),
        "counts": defaultdict(int, a=1),
        "best": torch.ones(2).numpy()[0],
        "where": folder,
    }
    torch.save({"model": trained().state_dict(), **beside}, folder / "net.pt")
    del sys.modules["settings_of_mine"]
    loaded = read(folder / "net.pt")
    assert same(loaded.model, trained())
    assert "settings_of_mine" not in sys.modules
    assert "and their classes not imported: argparse.Namespace" in loaded.warnings[-1]


class Slotted:
    __slots__ = ("width",)


def test_objects_with_slots_are_passed_over_too(folder: Path) -> None:
    beside = Slotted()
    beside.width = 6
    torch.save({"model": trained().state_dict(), "args": beside}, folder / "net.pt")
    assert same(read(folder / "net.pt").model, trained())


def test_shards_are_read_from_beside_their_index(folder: Path) -> None:
    state = trained().state_dict()
    halves = {"a.safetensors": list(state)[:3], "b.safetensors": list(state)[3:]}
    for name, keys in halves.items():
        save_file({key: state[key] for key in keys}, folder / name)
    index = {"metadata": {}, "weight_map": {key: name for name, keys in halves.items() for key in keys}}
    path = folder / "net.safetensors.index.json"
    path.write_text(json.dumps(index))
    loaded = read(path)
    assert same(loaded.model, trained())
    assert (loaded.name, loaded.provenance["format"]) == ("net", "sharded")
    before = loaded.provenance["sha256"]
    save_file({key: state[key] + 1 for key in halves["b.safetensors"]}, folder / "b.safetensors")
    assert read(path).provenance["sha256"] != before


# ── names that wrappers changed ──────────────────────────────────────────────────────────────────


def prefixed(prefix: str, state: Any) -> dict[str, Any]:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: prefixed("module.", state), "without the module. that all of them begin with"),
        (lambda state: prefixed("_orig_mod.", state), "without _orig_mod., which a wrapper had put there"),
        (lambda state: {k.replace("0.", "0._orig_mod."): v for k, v in state.items()}, "without _orig_mod."),
        (lambda state: prefixed("net.", state), "without the net. that"),
    ],
)
def test_the_names_that_wrappers_add_are_taken_off_and_that_is_said(folder: Path, change: Any, said: str) -> None:
    torch.save(change(trained().state_dict()), folder / "net.pt")
    loaded = read(folder / "net.pt")
    assert same(loaded.model, trained())
    assert len(loaded.warnings) == 1 and said in loaded.warnings[0]


def test_two_wrappers_are_taken_off_one_after_the_other(folder: Path) -> None:
    torch.save({"state_dict": prefixed("module._orig_mod.", trained().state_dict())}, folder / "net.pt")
    loaded = read(folder / "net.pt")
    assert same(loaded.model, trained())
    assert len(loaded.warnings) == 3


def test_a_prefix_that_the_architecture_has_stays(folder: Path) -> None:
    torch.save(prefixed("model.", trained().state_dict()), folder / "net.pt")
    loaded = read(folder / "net.pt", "weight_nets:Wrapped", width="6")
    assert same(loaded.model.model, trained())
    assert loaded.warnings == ()
    torch.save(prefixed("module.", trained(5).state_dict()), folder / "net.pt")
    assert "other shapes for module.0.bias" in refusal(folder / "net.pt", "weight_nets:Parallel")


def test_a_wrapper_is_taken_off_for_the_message_too(folder: Path) -> None:
    state = trained().state_dict()
    del state["3.bias"]
    torch.save(prefixed("module.", state), folder / "net.pt")
    assert refusal(folder / "net.pt").endswith("does not fit weight_nets:build: it lacks 3.bias")


# ── Lightning ────────────────────────────────────────────────────────────────────────────────────


def test_the_network_inside_a_lightning_module_is_taken(folder: Path) -> None:
    state = prefixed("model.", trained().state_dict()) | {"loss.weight": torch.ones(3)}
    torch.save(checkpoint(state), folder / "net.ckpt")
    loaded = read(folder / "net.ckpt")
    assert same(loaded.model, trained())
    assert loaded.warnings == (f"of {folder / 'net.ckpt'}, what begins with model. was taken, without loss.weight",)


def test_a_plain_state_dict_may_hold_nothing_else(folder: Path) -> None:
    torch.save(prefixed("model.", trained().state_dict()) | {"loss.weight": torch.ones(3)}, folder / "net.pt")
    assert "unexpected loss.weight, model.0.bias" in refusal(folder / "net.pt")


@pytest.mark.parametrize("arch", ["weight_nets:Wrapped", "weight_nets:Lit"])
def test_hyper_parameters_supply_what_was_not_given(folder: Path, arch: str) -> None:
    state = prefixed("model.", trained(9).state_dict())
    saved = {"width": 9, "rate": 0.25, "device": torch.device("cpu"), "deep": {"list": [1, (2, None)]}}
    torch.save(checkpoint(state, hyper_parameters=saved), folder / "net.ckpt")
    loaded = read(folder / "net.ckpt", arch)
    assert same(loaded.model.model, trained(9))
    assert loaded.warnings[0].startswith(f"the checkpoint says what {arch} was made with: width=9")
    assert "device" not in loaded.warnings[0]


def test_what_was_given_comes_before_the_hyper_parameters(folder: Path) -> None:
    torch.save(checkpoint(trained(9).state_dict(), hyper_parameters={"width": 5, "classes": 3}), folder / "net.ckpt")
    loaded = read(folder / "net.ckpt", width="9")
    assert same(loaded.model, trained(9))
    assert loaded.warnings == ("the checkpoint says what weight_nets:build was made with: classes=3",)


def test_a_function_that_takes_anything_gets_nothing_of_a_checkpoint(folder: Path) -> None:
    torch.save(checkpoint(trained().state_dict(), hyper_parameters={"width": 6, "learning_rate": 1}), folder / "n.ckpt")
    assert same(read(folder / "n.ckpt", "weight_nets:anything").model, trained())


def test_hyper_parameters_of_any_class_are_passed_over(folder: Path) -> None:
    torch.save(checkpoint(trained().state_dict(), hyper_parameters=argparse.Namespace(width=9)), folder / "net.ckpt")
    assert same(read(folder / "net.ckpt").model, trained())


@pytest.mark.parametrize("state", [None, 3, {"a": 1}])
def test_a_lightning_checkpoint_without_weights_is_told(folder: Path, state: Any) -> None:
    saved = checkpoint(state)
    if state is None:
        del saved["state_dict"]
    torch.save(saved, folder / "net.ckpt")
    assert "state_dict" in refusal(folder / "net.ckpt")


# ── what has to fit ──────────────────────────────────────────────────────────────────────────────


def test_a_weight_that_is_tied_may_be_saved_once(folder: Path) -> None:
    save_file({"reads.weight": torch.eye(4)}, folder / "net.safetensors")
    model = read(folder / "net.safetensors", "weight_nets:Tied").model
    assert model.tells.weight is model.reads.weight
    assert torch.equal(model.reads.weight, torch.eye(4))


def test_tied_weights_that_differ_in_the_file_are_refused(folder: Path) -> None:
    torch.save({"reads.weight": torch.eye(4), "tells.weight": torch.ones(4, 4)}, folder / "net.pt")
    said = "different numbers for what the architecture ties: reads.weight and tells.weight"
    assert said in refusal(folder / "net.pt", "weight_nets:Tied")
    torch.save({"reads.weight": torch.eye(4), "tells.weight": torch.eye(4)}, folder / "net.pt")
    assert torch.equal(read(folder / "net.pt", "weight_nets:Tied").model.tells.weight, torch.eye(4))


def test_counters_that_old_files_lack_are_not_missed(folder: Path) -> None:
    state = {key: value for key, value in trained().state_dict().items() if "num_batches" not in key}
    save_file(state, folder / "net.safetensors")
    assert same(read(folder / "net.safetensors").model, trained())


def test_half_precision_becomes_that_of_the_architecture(folder: Path) -> None:
    net = trained().half()
    save_file(net.state_dict(), folder / "net.safetensors")
    assert same(read(folder / "net.safetensors").model, net.float())


@pytest.mark.parametrize(
    ("kind", "said"),
    [(torch.int8, "0.weight (int8 instead of float32)"), (torch.complex64, "0.weight (complex64 instead of float32)")],
)
def test_numbers_of_another_kind_are_not_converted(folder: Path, kind: torch.dtype, said: str) -> None:
    state = trained().state_dict()
    state["0.weight"] = torch.ones(6, 4, dtype=kind)
    torch.save(state, folder / "net.pt")
    assert said in refusal(folder / "net.pt")


def test_an_extra_state_of_a_module_is_passed_over(folder: Path) -> None:
    torch.save(OrderedDict(trained().state_dict(), **{"0._extra_state": {"scale": 3}}), folder / "net.pt")
    assert same(read(folder / "net.pt").model, trained())


def test_an_architecture_does_not_have_the_argument(folder: Path) -> None:
    torch.save(trained().state_dict(), folder / "net.pt")
    message = refusal(folder / "net.pt", widht="6")
    assert "has no argument 'widht'; it takes width, classes. Did you mean width?" in message


def test_weights_in_a_list_are_none(tmp_path: Path) -> None:
    torch.save([torch.ones(2)], tmp_path / "net.pt")
    with pytest.raises(SourceError, match="holds a list, not a state dict"):
        read_weights(tmp_path / "net.pt")
