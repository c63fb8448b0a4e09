"""onnxruntime-web: its page's server, a browser that dies, and one whose process was killed."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from graftkit.core.errors import MismatchError, RuntimeMissingError
from graftkit.runtimes import RUNTIMES
from graftkit.runtimes.page import Page


def double() -> bytes:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n", 2)) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", ports[:1], ports[1:])
    opset = [helper.make_opsetid("", 20)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString())


X = {"x": np.array([[1, 2]], np.float32)}


def there(name: str) -> None:
    try:
        RUNTIMES[name].version()
    except RuntimeMissingError as error:
        assert not os.environ.get("GRAFTKIT_ALL_RUNTIMES"), error
        pytest.skip(str(error))


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist/ort.mjs").write_text("export {}")
    (tmp_path / "secret.mjs").write_text("no")
    server = Page(tmp_path)
    yield server
    server.close()


def status(address: str, content: bytes | None = None) -> int:
    try:
        with urllib.request.urlopen(address, content, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_page_is_served_below_its_secret_alone(page: Page) -> None:
    base = page.address.removesuffix("page.html")
    root = f"http://127.0.0.1:{page.server_port}"
    for name in ("page.html", "page.mjs", "frames.mjs", "answering.mjs", "ort/ort.mjs"):
        assert status(base + name) == 200
        assert status(f"{root}/{name}") == status(f"{root}/guess/{name}") == 404
    for name in ("ort/../secret.mjs", "ort/..%2Fsecret.mjs", "serving.py", "../page.py", "", "ort/none.mjs"):
        assert status(base + name) == 404
    page.questions.put(b"asked")
    with urllib.request.urlopen(base + "question", timeout=20) as answer:
        assert answer.read() == b"asked"
    assert (status(base + "answer", b"told"), page.answers.get(timeout=5)) == (204, b"told")
    assert status(base + "question", b"told") == status(f"{root}/guess/answer", b"told") == 404
    page.questions.put(None)
    assert status(base + "question") == 410


def test_a_browser_that_dies_is_told() -> None:
    there("browser")
    session = RUNTIMES["browser"].open(double())
    np.testing.assert_array_equal(session(X)[0], [[2, 4]])
    process = session.channel.process  # type: ignore[attr-defined]
    os.killpg(process.pid, signal.SIGKILL)
    with pytest.raises(MismatchError, match=r"^browser fails on x \[1, 2\]: the browser ended"):
        session(X)
    session.close()
    with pytest.raises(MismatchError, match="the session is closed"):
        session(X)


@pytest.mark.parametrize("name", ["node", "browser"])
def test_nothing_is_left_of_a_session_or_of_a_killed_process(name: str) -> None:
    there(name)
    session = RUNTIMES[name].open(double())
    process = session.channel.process  # type: ignore[attr-defined]
    del session
    gc.collect()
    assert process.poll() is not None and not living(process.pid)

    script = (
        f"import sys; sys.path[:0] = {[str(Path(__file__).parent)]!r}\n"
        "from test_web import RUNTIMES, double\n"
        f"session = RUNTIMES[{name!r}].open(double()); print(session.channel.process.pid, flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        group = int(parent.stdout.readline())
        assert living(group)
        parent.kill()
    end = time.monotonic() + 20
    while living(group) and time.monotonic() < end:
        time.sleep(0.1)
    assert not living(group)


def living(group: int) -> bool:
    """Whether a process of this group still runs."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, found = entry.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(found) == group and state != "Z":
            return True
    return False


def test_a_folder_that_is_no_package_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAFTKIT_ONNXRUNTIME_WEB", str(tmp_path))
    with pytest.raises(RuntimeMissingError, match=r"no folder of onnxruntime-web|node is not installed"):
        RUNTIMES["node"].version()
    monkeypatch.delenv("GRAFTKIT_ONNXRUNTIME_WEB")
    with pytest.raises(RuntimeMissingError, match=r"npm install onnxruntime-web|node is not installed"):
        RUNTIMES["node"].open(double())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeMissingError, match="node is not installed"):
        RUNTIMES["node"].version()
    with pytest.raises(RuntimeMissingError, match="install chromium"):
        RUNTIMES["browser"].version()
