"""Serves the browser's page on this machine: files there, questions there, answers back."""

from __future__ import annotations

import queue
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

WORKERS = Path(__file__).with_name("workers")
_FILES = {"page.html": "text/html", "page.mjs": "text/javascript", "answering.mjs": "text/javascript",
          "frames.mjs": "text/javascript"}  # fmt: skip
_KINDS = {".mjs": "text/javascript", ".wasm": "application/wasm"}
_POLL = 20.0  # seconds that a page waits for a question before it asks again


class Page(ThreadingHTTPServer):
    """A server for one page, whose address holds a secret: no other page in a browser can ask it anything.

    Args:
        package: onnxruntime-web's folder.

    Attributes:
        questions, answers: frames; None among the questions means that the session is closed.
    """

    daemon_threads = True

    def __init__(self, package: Path):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.dist = package / "dist"
        self.secret = secrets.token_urlsafe(16)
        self.questions: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{self.secret}/page.html"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away while it is answered is no news."""

    def close(self) -> None:
        self.questions.put(None)
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Page
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        match self._asked():
            case ["question"]:
                self._question()
            case ["ort", name] if Path(name).suffix in _KINDS and Path(name).name == name:
                self._file(self.server.dist / name, _KINDS[Path(name).suffix])
            case [name] if name in _FILES:
                self._file(WORKERS / name, _FILES[name])
            case _:
                self._send(404)

    def do_POST(self) -> None:
        if self._asked() != ["answer"]:
            self._send(404)
            return
        self.server.answers.put(self.rfile.read(int(self.headers["Content-Length"])))
        self._send(204)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""

    def _asked(self) -> list[str] | None:
        """The path's parts below the secret, None without it."""
        _, secret, *parts = [*self.path.split("?")[0].split("/"), ""]
        return parts[:-1] if secrets.compare_digest(secret, self.server.secret) else None

    def _question(self) -> None:
        try:
            question = self.server.questions.get(timeout=_POLL)
        except queue.Empty:
            self._send(204)
            return
        self._send(410) if question is None else self._send(200, question, "application/octet-stream")

    def _file(self, path: Path, kind: str) -> None:
        self._send(200, path.read_bytes(), kind) if path.is_file() else self._send(404)

    def _send(self, status: int, content: bytes = b"", kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")  # without these two a page has one thread
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.end_headers()
        self.wfile.write(content)
