"""What the tests of hostile files share: pickles written opcode by opcode, and an archive around them."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def short(value: str) -> bytes:
    return b"\x8c" + bytes([len(value.encode())]) + value.encode()


def call(module: str, name: str, argument: str) -> bytes:
    """GLOBAL, one argument, REDUCE."""
    return f"c{module}\n{name}\n".encode() + text(argument) + b"\x85R"


def stacked(*opcodes: bytes) -> bytes:
    """A protocol 4 pickle; `opcodes` leave module and name on the stack."""
    return b"\x80\x04" + b"".join(opcodes) + b"\x93" + text("touch MARK") + b"\x85R."


def model_file(path: Path, pickled: bytes) -> Path:
    """An archive as torch.save writes it, around any pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {"data.pkl": pickled, "byteorder": b"little", "version": b"3\n"}.items():
            archive.writestr(f"net/{name}", content)
    return path


HOSTILE = {
    "os.system": b"\x80\x02" + call("os", "system", "touch MARK") + b".",
    "posix.system": b"\x80\x02" + call("posix", "system", "touch MARK") + b".",
    "subprocess.check_output": b"\x80\x02" + call("subprocess", "check_output", "MARK") + b".",
    "builtins.eval": b"\x80\x02" + call("builtins", "eval", "open('MARK', 'w')") + b".",
    "builtins.exec": b"\x80\x02" + call("__builtin__", "execfile", "MARK") + b".",
    "builtins.getattr": b"\x80\x02cbuiltins\ngetattr\nctorch\nSize\n" + text("__class__") + b"\x86R.",
    "functools.partial": b"\x80\x02cfunctools\npartial\ncos\nsystem\n\x85R.",
    "torch.nn.evil": b"\x80\x02" + call("torch.nn", "evil", "MARK") + b".",
    "torch.nn.modules.module.os": b"\x80\x02" + call("torch.nn.modules.module", "os", "MARK") + b".",
    "torch.nn.modules.linear.Linear.x": b"\x80\x02" + call("torch.nn.modules.linear", "Linear.x", "MARK") + b".",
    "torch.serialization.os.system": b"\x80\x02" + call("torch.serialization", "os.system", "touch MARK") + b".",
    "torch.hub.load": b"\x80\x02" + call("torch.hub", "load", "MARK") + b".",
    "torch.load": b"\x80\x02" + call("torch", "load", "MARK") + b".",
    "torch._tensor._rebuild_from_type_v2": (
        b"\x80\x02" + call("torch._tensor", "_rebuild_from_type_v2", "MARK") + b"."
    ),
    # nested: as an element, as a key, as the state of an allowed class, and before a good ending
    "os.popen": (
        b"\x80\x02ctorch.nn.modules.linear\nIdentity\n)\x81}" + text("x") + call("os", "popen", "touch MARK") + b"sb."
    ),
    "os.remove": b"\x80\x02" + call("os", "remove", "MARK") + b"0ctorch.nn.modules.linear\nIdentity\n)\x81.",
    "os.mkdir": b"\x80\x02(" + call("os", "mkdir", "MARK") + b"l.",
    # INST: module and name in one opcode of protocol 0
    "os.rename": b"\x80\x02(" + text("touch MARK") + b"ios\nrename\n.",
    # STACK_GLOBAL: plain; from the memo; memoised over something harmless; with other things between
    "os.abort": stacked(short("os"), short("abort")),
    "os.execv": stacked(short("os") + b"\x94", short("execv") + b"\x94", b"00", b"h\x00", b"h\x01"),
    "os.kill": stacked(short("torch") + b"q\x07", short("os") + b"q\x070", b"0h\x07", short("kill")),
}  # fmt: skip


def longer(pickled: bytes, marker: Path) -> bytes:
    """Put the marker's path into the one text argument, with its length."""
    for command in (b"touch m@rk", b"open('m@rk', 'w')", b"m@rk"):
        old = b"X" + struct.pack("<I", len(command)) + command
        pickled = pickled.replace(old, text(command.decode().replace("m@rk", str(marker))))
    return pickled


class Evil:
    """Makes the marker when unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()
