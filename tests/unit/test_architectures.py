"""Architectures by name: their arguments, `package.module:factory`, `timm:NAME` and `hf:FOLDER`."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from graftkit.contracts import LoadedModel, SourceRequest
from graftkit.core.errors import GraftkitError, RuntimeMissingError, SourceError
from graftkit.sources import anchored, load
from graftkit.sources.architectures import ARCHITECTURES
from graftkit.sources.arguments import read_arguments, read_value


def read(spec: str, weights: Path | None = None, *, trust: bool = False, **arguments: str) -> LoadedModel:
    return load(SourceRequest(spec, weights, trust, arch_args=tuple(arguments.items())))


def refusal(
    spec: str, weights: Path | None = None, *, kind: type[GraftkitError] = SourceError, **arguments: str
) -> str:
    with pytest.raises(kind) as caught:
        read(spec, weights, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ── arguments ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10", 10),
        ("-3", -3),
        ("+3", 3),
        ("007", 7),
        ("0.5", 0.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("1e-3", 1e-3),
        ("true", True),
        ("False", False),
        ("none", None),
        ("null", None),
        (" 4 ", 4),
        ("gelu", "gelu"),
        ("nan", "nan"),
        ("1_000", "1_000"),
        ("3x3", "3x3"),
        ("a=b", "a=b"),
        ("", ""),
        ("'10'", "10"),
        ('"10"', "10"),
        ("'true'", "true"),
        ('"a\\nb"', "a\nb"),
        ("[3, 32]", [3, 32]),
        ('["a", null, [1.5]]', ["a", None, [1.5]]),
        ('{"a": 1}', {"a": 1}),
        ("[]", []),
    ],
)
def test_a_text_stands_for_a_value(text: str, value: object) -> None:
    found = read_value(text)
    assert found == value and type(found) is type(value)


plain = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
tree = st.recursive(plain | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@given(tree)
def test_what_json_writes_is_read_back(value: Any) -> None:
    found = read_value(json.dumps(value))
    assert found == value and type(found) is type(value)


@given(st.text(alphabet=st.characters(exclude_characters="'\0")))
def test_a_text_in_quotes_is_that_text(text: str) -> None:
    assert read_value(f"'{text}'") == text
    assert read_value(json.dumps(text)) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_read_as_python_writes_it(value: float) -> None:
    found = read_value(repr(value))
    assert found == value and math.copysign(1, found) == math.copysign(1, value)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = read_value(text)
    except SourceError as error:
        assert "\n" not in str(error) or "\n" in text
        return
    assert found is None or isinstance(found, bool | int | float | str | list | dict)


@pytest.mark.parametrize("text", ["[1, 2", "{a: 1}", "[" * 100_000, "'a", '"a', "'a' 'b'", '"a" "b"', "'", '"'])
def test_brackets_and_quotes_have_to_close(text: str) -> None:
    with pytest.raises(SourceError, match="--arch-args width="):
        read_arguments([("width", text)])


@pytest.mark.parametrize("name", ["", "2d", "a-b", "a b"])
def test_an_argument_has_a_name(name: str) -> None:
    with pytest.raises(SourceError, match="no name of an argument"):
        read_arguments([(name, "1")])


def test_an_argument_is_given_once() -> None:
    assert read_arguments([("a", "1"), ("b", "x")]) == {"a": 1, "b": "x"}
    assert read_arguments([("a", 1), ("b", None)]) == {"a": 1, "b": None}
    with pytest.raises(SourceError, match="gives a twice"):
        read_arguments([("a", "1"), ("a", "1")])


# ── package.module:factory ───────────────────────────────────────────────────────────────────────

NETS = """
from torch import nn

def build(width, depth=1, *, bias=True):
    return nn.Sequential(*(nn.Linear(width, width, bias=bias) for _ in range(depth)))

made = build(2)
def anything(**options):
    return nn.Linear(options["width"], 1)
def leaves(width):
    raise SystemExit(width)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder with `arch_nets.py` in it."""
    (tmp_path / "arch_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "arch_nets", raising=False)
    yield tmp_path
    sys.modules.pop("arch_nets", None)


def test_a_factory_is_called_with_the_arguments(folder: Path) -> None:
    loaded = read("arch_nets:build", width="3", depth="2", bias="false")
    assert [tuple(p.shape) for p in loaded.model.parameters()] == [(3, 3), (3, 3)]
    assert loaded.provenance["arch_args"] == {"width": "3", "depth": "2", "bias": "false"}
    assert read("arch_nets:anything", width="3").model.in_features == 3
    assert read("torch.nn:Linear", in_features="3", out_features="2").model.out_features == 2


@pytest.mark.parametrize(
    ("spec", "arguments", "said"),
    [
        ("arch_nets:build", {"widht": "3"}, "no argument 'widht'; it takes width, depth, bias. Did you mean width"),
        ("arch_nets:build", {"width": "wide"}, "TypeError"),
        ("arch_nets:build", {}, "it is called without arguments (--arch-args name=value gives more)"),
        ("arch_nets:made", {"width": "3"}, "is a module already, which takes no --arch-args"),
        ("arch_nets:leaves", {"width": "3"}, "SystemExit: 3; it is called with width"),
        ("torch.nn:Identity", {"width": "[1"}, "has to be JSON"),
    ],
)
def test_arguments_that_do_not_fit_are_told(folder: Path, spec: str, arguments: dict[str, str], said: str) -> None:
    assert said in refusal(spec, **arguments)


@pytest.mark.parametrize("spec", ["os:system", "subprocess:check_output", "builtins:exec", "torch.hub:load", "runpy:x"])
def test_a_function_that_runs_any_code_is_no_architecture(tmp_path: Path, spec: str) -> None:
    marker = tmp_path / "marker"
    assert "runs any code, and no architecture" in refusal(spec, command=f"touch {marker}", args=f"touch {marker}")
    assert not marker.exists()


def test_paths_in_a_name_are_made_absolute(folder: Path) -> None:
    (folder / "net.pt").touch()
    (folder / "bert").mkdir()
    assert anchored("net.pt") == str(folder / "net.pt")
    assert anchored("hf:bert") == f"hf:{folder / 'bert'}"
    for spec in ("hf:nowhere", "timm:resnet18", "arch_nets:build", "nowhere.pt"):
        assert anchored(spec) == spec


def test_the_table_knows_its_names() -> None:
    assert list(ARCHITECTURES) == [kind.name for kind in ARCHITECTURES.values()]


# ── packages that stand in for the real ones, so that this runs without them ─────────────────────

FAKE_TIMM = """
from torch import nn
__version__ = "1.0"
def is_model(name): return name in list_models()
def list_models(): return ["resnet18", "vit_tiny"]
def create_model(name, pretrained=True, num_classes=4):
    assert pretrained is False
    return nn.Sequential(nn.Flatten(), nn.Linear(4, num_classes))
"""
FAKE_TRANSFORMERS = """
from torch import nn
from types import SimpleNamespace
__version__ = "5.0"

class Told:
    CRITICAL = 50
    level, bars, seen = 30, True, []
    def get_verbosity(self): return self.level
    def set_verbosity(self, level): self.level = level
    def is_progress_bar_enabled(self): return self.bars
    def enable_progress_bar(self): self.bars = True
    def disable_progress_bar(self): self.bars = False
utils = SimpleNamespace(logging=Told())

class PreTrainedModel(nn.Module):
    @classmethod
    def from_pretrained(cls, path, *, config, state_dict, output_loading_info, ignore_mismatched_sizes):
        import huggingface_hub.constants
        utils.logging.seen.append((utils.logging.level, utils.logging.bars, huggingface_hub.constants.HF_HUB_OFFLINE))
        assert path is None and output_loading_info
        model = cls(config)
        own = model.state_dict()
        other = {(k, v.shape, own[k].shape) for k, v in state_dict.items() if k in own and v.shape != own[k].shape}
        if not other:
            model.load_state_dict(state_dict, strict=False)
        return model.eval(), {
            "missing_keys": set(own) - set(state_dict),
            "unexpected_keys": set(state_dict) - set(own),
            "mismatched_keys": other,
        }

class TinyConfig:
    num_labels = 2
    def __init__(self, hidden=4, use_cache=True, **more):
        self.hidden, self.use_cache = hidden, use_cache
        vars(self).update(more)
    @classmethod
    def from_dict(cls, values): return cls(**values)

class TinyModel(PreTrainedModel):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.body = nn.Linear(4, config.hidden)
        self.norm = nn.LayerNorm(config.hidden)

class TinyForLabels(TinyModel):
    def __init__(self, config):
        super().__init__(config)
        self.head = nn.Linear(config.hidden, config.num_labels)

def pipeline(*args):
    raise AssertionError("called")
CONFIG_MAPPING = {"tiny": TinyConfig}
MODEL_MAPPING = {TinyConfig: TinyModel}
"""
PACKAGES = ("timm", "transformers", "huggingface_hub")


def forget() -> dict[str, Any]:
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in PACKAGES}


@pytest.fixture
def fakes(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Packages that answer as far as graftkit asks, in place of any that are installed."""
    where = tmp_path_factory.mktemp("packages")
    (where / "timm.py").write_text(FAKE_TIMM)
    (where / "transformers.py").write_text(FAKE_TRANSFORMERS)
    (where / "huggingface_hub").mkdir()
    (where / "huggingface_hub/__init__.py").touch()
    (where / "huggingface_hub/constants.py").write_text("HF_HUB_OFFLINE = False")
    monkeypatch.syspath_prepend(where)
    real = forget()
    yield where
    forget()
    sys.modules.update(real)


class Absent:
    """Finds none of these packages, installed or not."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.split(".")[0] in PACKAGES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    real = forget()
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    yield
    sys.modules.update(real)


# ── timm:NAME ────────────────────────────────────────────────────────────────────────────────────


def test_timm_makes_the_model_and_says_that_its_weights_are_random(fakes: Path) -> None:
    loaded = read("timm:resnet18.a1_in1k", num_classes="7")
    assert loaded.model[1].out_features == 7
    assert (loaded.name, loaded.provenance["format"]) == ("resnet18.a1_in1k", "timm")
    assert loaded.warnings == ("no --weights were given: timm:resnet18.a1_in1k has random weights",)


def test_timm_takes_weights_from_either_side(fakes: Path, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 7))
    path = tmp_path / "net.safetensors"
    save_file(net.state_dict(), path)
    one = read("timm:resnet18", path, num_classes="7")
    other = load(SourceRequest(str(path), arch="timm:resnet18", arch_args=(("num_classes", "7"),)))
    for loaded, form in ((one, "timm"), (other, "safetensors")):
        assert torch.equal(loaded.model[1].weight, net[1].weight)
        assert loaded.warnings == () and loaded.provenance["format"] == form
    assert one.provenance["sha256"] == other.provenance["sha256"] is not None


@pytest.mark.parametrize(
    ("spec", "arguments", "said"),
    [
        ("timm:resnet81", {}, "timm 1.0 has no resnet81. Did you mean resnet18?"),
        ("timm:", {}, "is no name of timm's"),
        ("timm:hf-hub:someone/net", {}, "is no name of timm's"),
        ("timm:local-dir:/tmp", {}, "is no name of timm's"),
        ("timm:resnet18", {"classes": "3"}, "unexpected keyword argument 'classes'"),
        ("timm:resnet18", {"pretrained": "true"}, "downloads nothing"),
        ("timm:resnet18", {"checkpoint_path": "x.pt"}, "downloads nothing"),
    ],
)
def test_what_timm_does_not_make_is_told(fakes: Path, spec: str, arguments: dict[str, str], said: str) -> None:
    assert said in refusal(spec, **arguments)


def test_a_package_that_is_not_installed_is_named_with_its_extra(absent: None, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "tiny"}')
    assert "pip install 'graftkit[timm]'" in refusal("timm:resnet18", kind=RuntimeMissingError)
    assert "pip install 'graftkit[hf]'" in refusal(f"hf:{tmp_path}", kind=RuntimeMissingError)


def test_a_package_that_is_broken_is_told(fakes: Path) -> None:
    (fakes / "timm.py").write_text("raise RuntimeError('operator does not exist\\nand more')")
    importlib.invalidate_caches()
    assert "timm cannot be imported here: RuntimeError: operator does not exist" in refusal("timm:resnet18")


# ── hf:FOLDER ────────────────────────────────────────────────────────────────────────────────────


def tiny(folder: Path, *, state: dict[str, torch.Tensor] | None = None, **config: Any) -> str:
    """A folder with a configuration of the stand-in, and weights."""
    folder.mkdir(exist_ok=True)
    values = {"model_type": "tiny", "architectures": ["TinyForLabels"], "hidden": 4, **config}
    (folder / "config.json").write_text(json.dumps(values))
    if state is not None:
        save_file(state, folder / "model.safetensors")
    return f"hf:{folder}"


def numbers(hidden: int = 4, labels: int | None = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    state = {"body.weight": torch.rand(hidden, 4), "body.bias": torch.rand(hidden)}
    state |= {"norm.weight": torch.ones(hidden), "norm.bias": torch.zeros(hidden)}
    head = {"head.weight": torch.rand(labels, hidden), "head.bias": torch.rand(labels)} if labels else {}
    return state | head


def test_a_folder_gives_class_sizes_and_numbers(fakes: Path, tmp_path: Path) -> None:
    spec = tiny(tmp_path / "bert", state=numbers(6), hidden=6, use_cache=True)
    loaded = read(spec)
    assert type(loaded.model).__name__ == "TinyForLabels"
    assert all(torch.equal(loaded.model.state_dict()[key], value) for key, value in numbers(6).items())
    assert loaded.model.config.use_cache is False
    assert (loaded.name, loaded.warnings, loaded.provenance["format"]) == ("bert", (), "hf")
    assert loaded.provenance["weights"] == str(tmp_path / "bert/model.safetensors")
    assert loaded.provenance["sha256"] is not None


def test_the_package_is_kept_quiet_and_from_the_network_and_then_let_go(fakes: Path, tmp_path: Path) -> None:
    read(tiny(tmp_path / "bert", state=numbers()))
    told = sys.modules["transformers"].utils.logging
    assert told.seen == [(50, False, True)]
    assert (told.level, told.bars) == (30, True)
    assert sys.modules["huggingface_hub.constants"].HF_HUB_OFFLINE is False


def test_weights_in_other_forms_are_read_from_the_folder(fakes: Path, tmp_path: Path) -> None:
    for name in ("bin", "shards"):
        spec = tiny(tmp_path / name)
        if name == "bin":
            torch.save(numbers(), tmp_path / name / "pytorch_model.bin")
        else:
            save_file(numbers(), tmp_path / name / "part-1.safetensors")
            index = {"weight_map": dict.fromkeys(numbers(), "part-1.safetensors")}
            (tmp_path / name / "model.safetensors.index.json").write_text(json.dumps(index))
        assert torch.equal(read(spec).model.head.weight, numbers()["head.weight"])


def test_a_folder_is_an_architecture_for_other_weights(fakes: Path, tmp_path: Path) -> None:
    spec, path = tiny(tmp_path / "bert", state=numbers()), tmp_path / "other.safetensors"
    other = {key: value + 1 for key, value in numbers().items()}
    save_file(other, path)
    for loaded in (read(spec, path), load(SourceRequest(str(path), arch=spec))):
        assert torch.equal(loaded.model.body.weight, other["body.weight"])
        assert loaded.warnings == ()


def test_arguments_take_the_place_of_the_configuration(fakes: Path, tmp_path: Path) -> None:
    spec = tiny(tmp_path / "bert", id2label={"0": "a"})
    other = tiny(tmp_path / "other", state=numbers())
    assert "it has other shapes for body.bias ([4] instead of [8])" in refusal(other, hidden="8")
    model = read(spec, hidden="8", num_labels="5").model
    assert tuple(model.head.weight.shape) == (5, 8)
    assert not hasattr(model.config, "id2label")
    assert "TinyConfig has no 'hiden'. Did you mean hidden" in refusal(spec, hiden="8")


def test_what_the_weights_lack_and_have_too_much_is_said(fakes: Path, tmp_path: Path) -> None:
    state = numbers(labels=None) | {"pooler": torch.zeros(1)}
    loaded = read(tiny(tmp_path / "bert", state=state))
    assert "lacks head.bias and head.weight, which" in loaded.warnings[0] and "random" in loaded.warnings[0]
    assert "has pooler, for which" in loaded.warnings[1]
    other = tiny(tmp_path / "other", state={"pooler": torch.zeros(1)})
    assert "does not fit" in refusal(other)


def test_a_folder_without_weights_is_random_and_that_is_said(fakes: Path, tmp_path: Path) -> None:
    loaded = read(tiny(tmp_path / "bert"))
    assert "the model has random ones" in loaded.warnings[0]
    assert loaded.provenance["sha256"] is None


@pytest.mark.parametrize(
    "names", [["pipeline"], ["Told"], ["Unheard"], ["nn"], [3], [], "TinyForLabels", None, ["os.system"]]
)
def test_a_class_that_is_no_model_of_the_package_gives_the_plain_one(fakes: Path, tmp_path: Path, names: Any) -> None:
    assert type(read(tiny(tmp_path / "bert", architectures=names)).model).__name__ == "TinyModel"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "tinny"}, "does not know model_type 'tinny'"),
        ({"model_type": "mine", "auto_map": {"AutoModel": "code.Net"}}, "pass --trust"),
        ({"model_type": None}, "does not know"),
        ({"model_type": ["tiny"]}, "cannot be made: TypeError"),
        ({"hidden": "wide"}, "cannot be made: TypeError"),
        ({"quantization_config": {"bits": 4}}, "quantized"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        ({"num_labels": 10**9}, "num_labels is 1000000000"),
        ({"encoder": {"n_layer": 10**6}}, "n_layer is 1000000"),
        ({"backbone": "/etc"}, "outside the folder"),
        ({"parts": [{"backbone": "../../other"}]}, "outside the folder"),
    ],
)
def test_a_configuration_that_does_not_work_is_told(
    fakes: Path, tmp_path: Path, config: dict[str, Any], said: str
) -> None:
    assert said in refusal(tiny(tmp_path / "bert", state=numbers(), **config))


def test_sizes_that_the_weights_do_not_have_are_refused_before_they_are_allocated(fakes: Path, tmp_path: Path) -> None:
    spec = tiny(tmp_path / "bert", state=numbers(), hidden=10**11)
    assert "describes 900,000,000,002 numbers, and the weights hold 38" in refusal(spec)
    assert "more than fit in memory" in refusal(tiny(tmp_path / "empty", hidden=10**13))


def test_what_would_fetch_or_run_is_taken_out_of_a_configuration(fakes: Path, tmp_path: Path) -> None:
    hostile = {
        "attn_implementation": "someone/kernels",
        "_attn_implementation": "someone/kernels",
        "auto_map": {"AutoModel": "code.Net"},
        "transformers_weights": "../../etc/passwd",
        "use_pretrained_backbone": True,
        "part": {"_name_or_path": "someone/net", "use_cache": True, "deep": [{"kernel_config": {}}]},
    }
    kept = vars(read(tiny(tmp_path / "bert", state=numbers(), **hostile)).model.config)
    assert not {"attn_implementation", "_attn_implementation", "auto_map", "transformers_weights"} & kept.keys()
    assert kept["use_pretrained_backbone"] is False
    assert kept["part"] == {"use_cache": False, "deep": [{}]}


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"3", b"\xff\xfe", b'{"a":' * 5000, b'{"a":' * 40 + b"1" + b"}" * 40]
)
def test_a_broken_configuration_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    message = refusal(f"hf:{tmp_path}")
    assert any(said in message for said in ("is damaged", "is no configuration", "deep"))


def test_a_folder_that_is_none_is_told(tmp_path: Path) -> None:
    assert "downloads nothing" in refusal("hf:bert-base-uncased")
    assert "has no config.json" in refusal(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text("{}")
    assert f"write hf:{tmp_path}" in refusal(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "holds an adapter" in refusal(f"hf:{tmp_path}")


# ── the real packages, where they are installed ──────────────────────────────────────────────────


@pytest.fixture(scope="session")
def operators() -> Iterator[object]:
    """What torchvision, which both packages import, lacks beside a torch that it was not built for."""
    library = None
    try:
        importlib.import_module("torchvision")
    except ImportError:
        pass
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    yield library


@pytest.mark.filterwarnings("ignore")
def test_the_real_timm(operators: object, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    spec, arguments = "timm:test_resnet.r160_in1k", {"num_classes": "5", "in_chans": "1"}
    net = read(spec, **arguments).model
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    again = read(spec, tmp_path / "net.safetensors", **arguments).model
    assert all(torch.equal(again.state_dict()[key], value) for key, value in net.state_dict().items())
    assert net.eval()(torch.zeros(2, 1, 32, 32)).shape == (2, 5)
    assert "Did you mean resnet18" in refusal("timm:resnet181")


@pytest.mark.filterwarnings("ignore")
def test_the_real_transformers(operators: object, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.BertConfig(vocab_size=30, num_labels=3, **sizes)
    net = transformers.BertForSequenceClassification(config).eval()
    net.save_pretrained(tmp_path)
    capfd.readouterr()
    loaded = read(f"hf:{tmp_path}")
    tokens = torch.arange(8).reshape(2, 4)
    assert torch.equal(loaded.model.eval()(tokens).logits, net(tokens).logits)
    assert loaded.model.config.use_cache is False
    assert (type(loaded.model), loaded.warnings) == (type(net), ())
    state = load_file(tmp_path / "model.safetensors")
    save_file({key: value for key, value in state.items() if "classifier" not in key}, tmp_path / "model.safetensors")
    assert "classifier.bias and classifier.weight, which" in read(f"hf:{tmp_path}").warnings[0]
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | {"architectures": ["pipeline"]}))
    assert type(read(f"hf:{tmp_path}").model) is transformers.BertModel
    assert "has other shapes for" in refusal(f"hf:{tmp_path}", hidden_size="8")
    assert "BertConfig has no 'hiden_size'. Did you mean hidden_size" in refusal(f"hf:{tmp_path}", hiden_size="8")
    assert capfd.readouterr() == ("", "")


CODE = """
from transformers import PretrainedConfig, PreTrainedModel
from torch import nn

open(MARKER, "w").close()

class OwnConfig(PretrainedConfig):
    model_type = "own_of_mine"
    def __init__(self, width=4, **more):
        self.width = width
        super().__init__(**more)

class OwnModel(PreTrainedModel):
    config_class = OwnConfig
    def __init__(self, config):
        super().__init__(config)
        self.linear = nn.Linear(4, config.width)
        self.post_init()
    def forward(self, x):
        return self.linear(x)
"""


@pytest.mark.filterwarnings("ignore")
def test_code_in_a_folder_runs_only_when_trusted(
    operators: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder, marker = tmp_path / "own", tmp_path / "marker"
    folder.mkdir()
    (folder / "own_code.py").write_text(CODE.replace("MARKER", repr(str(marker))))
    places = {"AutoConfig": "own_code.OwnConfig", "AutoModel": "own_code.OwnModel"}
    config = {"model_type": "own_of_mine", "architectures": ["OwnModel"], "auto_map": places, "width": 3}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"linear.weight": torch.ones(3, 4), "linear.bias": torch.ones(3)}, folder / "model.safetensors")
    assert "pass --trust" in refusal(f"hf:{folder}")
    assert not marker.exists()
    model = read(f"hf:{folder}", trust=True).model
    assert marker.exists()
    assert torch.equal(model(torch.ones(2, 4)), torch.full((2, 3), 5.0))
