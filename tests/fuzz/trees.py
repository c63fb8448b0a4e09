"""Ways to break JSON: other values at some places, with code and absurd sizes among them."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from .case import Place

_CODE = (
    "__import__('os').system('touch MARK')",
    "exec(\"open('MARK', 'w')\")",
    "Symbol('s0', **__import__('os').system('touch MARK'))",
    "s0 + (lambda: __import__('os').system('touch MARK'))()",
    "().__class__.__bases__[0].__subclasses__()",
    "Max(s0, open('MARK','w'))",
    "x): __import__('os').system('touch MARK')  #",
    "x\n    __import__('os').system('touch MARK')",
    "x'] or __import__('os').system('touch MARK') or L['x",
    "x\"; __import__('os').system('touch MARK'); \"",
    "L['x'].size()[0] <= __import__('os').system('touch MARK')",
    "f=__import__('os').system('touch MARK')",
    "Pow(9, Pow(9, Pow(9, 9)))",
    "9**9**9**9",
    "s0" + " + s0" * 3000,
    "(" * 90 + "s0" + ")" * 90,
    "Max(" * 300 + "s0" + ")" * 300,
    "Mod(s0, 0)",
    "FloorDiv(s0, 0)",
    "PythonMod(7, s0 - s0)",
    "Symbol('s0', integer=True, positive=False)",
    "Integer(9" + "9" * 4000 + ")",
    "oo",
    "zoo",
    "Float('1e9999')",
    "1e400",
    "torch.ops.aten.from_file.default",
    "torch.ops.aten.linear.default.__class__",
    "torch.ops.higher_order.call_torchbind",
    "torch.ops.higher_order.triton_kernel_wrapper_functional",
    "torch.hub.load",
    "torch.load",
    "os.system",
    "builtins.eval",
    "_operator.attrgetter",
    "_operator.methodcaller",
    "torch.sym_float.__globals__",
    "torch.ops.aten.zeros.default",
    "torch.ops.aten.sub.Tensor",
    "models.Net",
    "../../../../etc/passwd",
    "SECRET",
    "weight_0/../../../SECRET",
    '[1, {"type": "os.system", "context": null, "children_spec": []}]',
    '[1, {"type": "builtins.dict", "context": "[\\"a\\"]", "children_spec": []}]',
    '[1, {"type": "collections.namedtuple", "context": "\\"os.system\\"", "children_spec": []}]',
    "\x1b[2J",
    "a\nb",
    "",
    "x" * 10_000,  # torch looks at names in quadratic time where it compiles guards, which graftkit never asks for
    "\u2028",
    "\ud800",
    "self",
    "def",
    "None",
    "__init__",
    "torch",
    "x x",
    "0",
)
_NUMBERS = (
    -1,
    0,
    1,
    2,
    7,
    255,
    2**31 - 1,
    2**31,
    2**40,
    2**62,
    2**63 - 1,
    2**63,
    2**64,
    10**30,
    1e308,
    -2.5,
    float("nan"),
)
_DEEPEST = 850
_OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [None], {"a": 1}, {"": {}}, "s0", 3, {"as_none": True})


def codes(place: Place) -> list[str]:
    """Texts that would do harm, or take forever, where they are executed."""
    return [text.replace("MARK", str(place.marker)).replace("SECRET", str(place.secret)) for text in _CODE]


def changed_tree(tree: Any, rng: Random, place: Place) -> Any:
    """A copy with one to four places changed."""
    tree = json.loads(json.dumps(tree))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places = _places(tree)
        if not places:
            return tree
        wanted = rng.choice((str, str, str, int, int, object))  # texts first: they become code
        before = json.dumps(tree)
        holder, key = rng.choice([each for each in places if isinstance(each[0][each[1]], wanted)] or places)
        _change(holder, key, places, rng, place)
        if _depth(tree) > _DEEPEST:  # nests within nests, which json would not write
            tree = json.loads(before)
    return tree


def _change(holder: Any, key: Any, places: list[tuple[Any, Any]], rng: Random, place: Place) -> None:
    value = holder[key]
    other, at = rng.choice(places)
    how = rng.random()
    if how < 0.1:
        del holder[key]
    elif how < 0.2:
        holder[key] = json.loads(json.dumps(other[at]))
    elif how < 0.3:
        holder[key] = rng.choice(_OTHERS)
    elif how < 0.36 and isinstance(holder, dict):
        holder[rng.choice(codes(place))] = holder.pop(key)
    elif how < 0.4 and isinstance(value, list) and value:
        holder[key] = value * rng.choice((2, 50))
    elif how < 0.43:
        holder[key] = _nested(rng.choice((30, 300, 700)))
    elif isinstance(value, str) and how > 0.9:
        holder[key] = _altered(value, rng)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        holder[key] = rng.choice(_NUMBERS)
    else:
        holder[key] = rng.choice(codes(place))


def _altered(text: str, rng: Random) -> str:
    at = rng.randrange(len(text) + 1)
    return (
        text[:at]
        + rng.choice(("'", '"', "(", ")", "\\", "\n", "#", ".", "_", "9", " ", "\0"))
        + text[at + rng.randrange(2) :]
    )


def _nested(depth: int) -> Any:
    found: Any = []
    for _ in range(depth):
        found = [found]
    return found


def _depth(tree: Any) -> int:
    """How many lists and dicts lie within one another."""
    deepest, todo = 0, [(tree, 1)]
    while todo:
        holder, depth = todo.pop()
        values = [*holder.values()] if isinstance(holder, dict) else holder if isinstance(holder, list) else []
        deepest = max(deepest, depth if isinstance(holder, dict | list) else 0)
        todo += [(value, depth + 1) for value in values]
    return deepest


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every place in the tree, as what holds it and the key or index there."""
    found: list[tuple[Any, Any]] = []
    todo = [tree]
    while todo:
        holder = todo.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ()
        found += [(holder, key) for key in keys]
        todo += [holder[key] for key in keys]
    return found
