"""Ways to break TorchScript: its source text, and what its pickles hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

from .case import Break, Place
from .pickles import PICKLES, inside
from .zips import Member, members, replaced, written

_LINES = """
torch.save(x, "MARK")
torch.save([x], "MARK")
y = torch.from_file("SECRET", False, 9)
y = ops.aten.from_file("SECRET", False, 9)
y = torch . from_file("SECRET", False, 9)
ops.aten.save(x, "MARK")
y = ops.prim.load("SECRET")
y = ops.mine.run(x)
y = ops.aten.zeros([9999999, 9999999])
y = torch.zeros([999999999999, 99])
y = torch.rand([99999, 99999])
y = __torch__.torch.classes.quantized.Conv2dPackedParamsBase
y = torch.classes.load_library("SECRET")
y = unchecked_cast(Tensor, x)
y = annotate(List[int], [1] * 99999999)
y = self.forward(x, )
y = 9 ** 9 ** 9 ** 9
y = 99999999999999999999999999999999
y = 1e999
y = [[[[[[[[x]]]]]]]]
y = "\\x00"
y = "\\xff\\u2028"
while True: pass
while True:\n      x = torch.add(x, x)
for _ in range(9223372036854775807):\n      x = torch.add(x, x)
if True:\n      return x\n    else:\n      return 3
import os
__import__("os").system("touch MARK")
y = lambda: x
def inner(x: Tensor) -> Tensor:\n      return x
ops.prim.RaiseException("a\\nb", "c")
assert False, "x"
print(x)
y = torch.jit.load("SECRET")
y = self.__class__
y = fork(self.forward, x)
y = prim.rangelist(9223372036854775807)
y = torch.split(x, 1)[99999999]
del x
_0, _1, = x
y = uninitialized(Tensor)
y = getattr(self, "conv")
y = CONSTANTS.c99
y = 0x
y = (
y = CONSTANTS.c0
return
"""
_BODIES = """
  def __setstate__(self, state: Tensor) -> NoneType:\n    torch.save(state, "MARK")\n    return None
  def __getstate__(self) -> Tensor:\n    return self.head.weight
  def __init__(self) -> NoneType:\n    torch.save([1], "MARK")\n    return None
  def again(self, x: Tensor) -> Tensor:\n    return (self).again(x, )
  x : Tensor = torch.from_file("SECRET", False, 9)
  conv : __torch__.torch.classes.xnnpack.LinearOpContext
  __parameters__ = ["head", "gone", "a\\nb"]
  __buffers__ = [3]
  __annotations__["x"] = Tensor
  forward : Tensor
  other : Any
  other : __torch__.not_there.Class
"""


def _texts(block: str, place: Place) -> list[str]:
    lines = (line.replace("\\n", "\n") for line in block.strip("\n").splitlines())
    return [line.replace("MARK", str(place.marker)).replace("SECRET", str(place.secret)) for line in lines]


def _of_text(change: Callable[[str, Random, Place], str]) -> Break:
    """The same change for one of the archive's texts."""

    def changed(content: bytes, rng: Random, place: Place) -> bytes:
        names = [part.name.decode() for part in members(content) if part.name.endswith(b".py")]
        name = rng.choice(names)
        return replaced(content, name, lambda old: change(old.decode(), rng, place).encode("utf-8", "surrogateescape"))

    changed.__name__ = change.__name__.lstrip("_")
    return changed


def _another_line(text: str, rng: Random, place: Place) -> str:
    """A statement at the start, the end or the middle of a method."""
    lines = text.split("\n")
    at = rng.choice([at for at, line in enumerate(lines) if line.startswith("    ")] or [len(lines)])
    return "\n".join([*lines[:at], f"    {rng.choice(_texts(_LINES, place))}", *lines[at:]])


def _another_member(text: str, rng: Random, place: Place) -> str:
    """A method or an attribute of a class."""
    lines = text.split("\n")
    at = rng.choice([at for at, line in enumerate(lines) if line.startswith("  ") and line[2:3] != " "] or [len(lines)])
    return "\n".join([*lines[:at], rng.choice(_texts(_BODIES, place)), *lines[at:]])


def _other_words(text: str, rng: Random, place: Place) -> str:
    """Names and numbers exchanged."""
    words = re.findall(r"\w+", text)
    others = (
        "99999999999",
        "-1",
        "self",
        "Tensor",
        "int",
        "None",
        "torch",
        "List",
        "0",
        "True",
        "annotate",
        "Any",
        "x",
    )
    for _ in range(rng.choice((1, 2, 5))):
        found = list(re.finditer(r"\w+", text))
        spot = rng.choice(found)
        text = text[: spot.start()] + rng.choice((rng.choice(words), rng.choice(others))) + text[spot.end() :]
    return text


def _other_lines(text: str, rng: Random, place: Place) -> str:
    lines = text.split("\n")
    for _ in range(rng.choice((1, 2))):
        at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        match rng.choice(("drop", "double", "swap", "indent")):
            case "drop" if len(lines) > 1:
                del lines[at]
            case "double":
                lines[at:at] = [lines[other]] * rng.choice((1, 3))
            case "swap":
                lines[at], lines[other] = lines[other], lines[at]
            case _:
                lines[at] = rng.choice(("  ", "\t", "")) + lines[at].strip()
    return "\n".join(lines)


def _deep_text(text: str, rng: Random, place: Place) -> str:
    times = rng.choice((50, 140, 400, 3000, 100_000))
    blocks = "".join(f"{'  ' * (depth + 2)}if True:\n" for depth in range(min(times, 95)))
    ways = (
        f"    y = {'(' * times}x{')' * times}",
        f"    y = {'[' * times}1{']' * times}",
        f"    y = {'-' * times}1",
        f"    y = x{'.a' * times}",
        f"    y = 1{' + 1' * times}",
        f"    y = {'torch.relu(' * times}x{')' * times}",
        blocks + "  " * (min(times, 95) + 2) + "y = 1",
        f"    y : {'List[' * times}int{']' * times} = 3",
        "    # " + "x" * times * 10,
    )
    lines = text.split("\n")
    at = rng.choice([at for at, line in enumerate(lines) if line.startswith("    ")] or [len(lines)])
    return "\n".join([*lines[:at], rng.choice(ways), *lines[at:]])


def _growing(text: str, rng: Random, place: Place) -> str:
    """Methods that each call the one before twice: a short text, and an endless graph."""
    levels = rng.choice((8, 30, 200))
    made = ["  def f0(self: Any, x: Tensor) -> Tensor:\n    return torch.relu(x)"]
    made += [
        f"  def f{at}(self: Any, x: Tensor) -> Tensor:\n    y = (self).f{at - 1}(x, )\n    return (self).f{at - 1}(y, )"
        for at in range(1, levels)
    ]
    called = text.replace("    return ", f"    z = (self).f{levels - 1}(x, )\n    return ", 1)
    owner = re.search(r"^class (\w+)", text, re.MULTILINE)
    return called + "\n" + "\n".join(made).replace("self: Any", f"self: {owner.group(1) if owner else 'Any'}") + "\n"


def _signs(text: str, rng: Random, place: Place) -> str:
    at = rng.randrange(len(text) + 1)
    return (
        text[:at]
        + rng.choice(("\0", "\x1b[2J", "\u2028", "\ufeff", "\x0c", "\r", "\\\n", '"""', "#", ";", "\udcff"))
        + text[at:]
    )


def other_members(content: bytes, rng: Random, place: Place) -> bytes:
    """Members that an archive of another kind, or of an evil kind, brings."""
    parts = members(content)
    root = parts[0].name.split(b"/")[0]
    names = (
        "model.json",
        "bytecode.pkl",
        "code/os.py",
        "code/__torch__.py",
        "extra/x",
        "data/99",
        "attributes.pkl",
        ".data/x",
    )
    body = rng.choice(_texts(_BODIES, place)).encode()
    parts.append(
        Member(
            root + b"/" + rng.choice(names).encode(), rng.choice((body, b"class A(Module):\n" + body, parts[0].content))
        )
    )
    return written(parts)


_TEXTS = (
    *(_another_line,) * 4,
    *(_another_member,) * 2,
    *(_other_words,) * 3,
    *(_other_lines,) * 2,
    _deep_text,
    _growing,
    _signs,
)
SCRIPTS: tuple[Break, ...] = (
    *map(_of_text, _TEXTS),
    *inside("data.pkl", PICKLES[::2]),
    *inside("constants.pkl", PICKLES[1::4]),
    other_members,
)
