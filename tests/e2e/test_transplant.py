"""`graftkit transplant` as a user has it: a run of `augment`, and a product's ONNX file of the model it was given."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from e2e_tools import Finished, run_cli
from onnx import helper, numpy_helper


@pytest.fixture(scope="module")
def deployed(workshop: Path) -> Path:
    """`weak.pt` as a product has it: bytes go in, the class comes out."""
    model = torch.load(workshop / "weak.pt", weights_only=False).eval()
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (torch.zeros(1, 1, 8, 8),), content, dynamo=False, opset_version=17,
                          input_names=["unit"], output_names=["scores"], dynamic_axes={"unit": {0: "n"}})  # fmt: skip
    made = onnx.load_model_from_string(content.getvalue())
    made.graph.node.insert(0, helper.make_node("Cast", ["photo"], ["floats"], name="pre/Cast", to=1))
    made.graph.node.insert(1, helper.make_node("Div", ["floats", "sixteen"], ["unit"], name="pre/Div"))
    made.graph.node.append(helper.make_node("ArgMax", ["scores"], ["digit"], name="post/ArgMax", axis=1, keepdims=0))
    made.graph.initializer.append(numpy_helper.from_array(np.float32(16), "sixteen"))
    made.graph.input[0].CopyFrom(helper.make_tensor_value_info("photo", onnx.TensorProto.UINT8, ["n", 1, 8, 8]))
    made.graph.output[0].CopyFrom(helper.make_tensor_value_info("digit", onnx.TensorProto.INT64, ["n"]))
    made.metadata_props.add(key="product", value="scales, model 7")
    onnx.save(made, workshop / "deployed.onnx")
    return workshop / "deployed.onnx"


def good(done: Finished) -> Finished:
    assert done.returncode == 0 and "Traceback" not in done.stderr, done
    return done


def digits(path: Path, photos: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"photo": photos})
    return found


@pytest.mark.runs("weak")
def test_a_product_file_receives_what_a_run_trained(runs, workshop, deployed):
    assert runs["weak"].returncode == 0, runs["weak"]
    words = ("transplant", "deployed.onnx", "weak", "-o", "moved.onnx", "--trust")
    done = good(run_cli(*words, "--json", cwd=workshop))
    told = json.loads(done.stdout)
    assert (told["path"], told["proved"], told["matched"]) == ("moved.onnx", "sites", 3)
    assert told["parity"] < 1e-4 and told["added"] > 0 and told["updated"]
    assert all(f"- {stage}" in done.stderr for stage in ("reading the run", "transplanting", "verifying"))
    photos = np.random.default_rng(0).integers(0, 17, (200, 1, 8, 8), dtype=np.uint8)
    run = onnxruntime.InferenceSession(workshop / "weak/model.onnx", providers=["CPUExecutionProvider"])
    (scores,) = run.run(None, {run.get_inputs()[0].name: (photos / np.float32(16)).astype(np.float32)})
    assert (digits(workshop / "moved.onnx", photos) == scores.argmax(1)).mean() > 0.99
    assert not (digits(deployed, photos) == scores.argmax(1)).all()
    (own,) = onnx.load(workshop / "moved.onnx").metadata_props
    assert (own.key, own.value) == ("product", "scales, model 7")
    before = (workshop / "moved.onnx").read_bytes()
    again = run_cli(*words, cwd=workshop)
    assert again.returncode == 1 and "exists already; pass --force" in again.last, again
    assert (workshop / "moved.onnx").read_bytes() == before
    forced = good(run_cli(*words, "--force", cwd=workshop))
    assert forced.stdout.startswith("Written: moved.onnx (3 layers matched, ")


@pytest.mark.runs("weak")
def test_a_file_of_another_model_is_refused_in_one_line(runs, workshop, deployed):
    assert runs["weak"].returncode == 0, runs["weak"]
    other = onnx.load(deployed)
    weight = next(tensor for tensor in other.graph.initializer if list(tensor.dims) == [16, 256])
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.01), weight.name))
    onnx.save(other, workshop / "other.onnx")
    done = run_cli("transplant", "other.onnx", "weak", "-o", "never.onnx", "--trust", cwd=workshop)
    assert (done.returncode, done.stdout) == (1, ""), done
    assert done.last.startswith("graftkit: other.onnx has no layer with the weights of '4'"), done
    assert not list(workshop.glob("*never*"))
