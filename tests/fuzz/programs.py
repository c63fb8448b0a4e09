"""Ways to break an exported program (.pt2): its JSON, and the pickles in it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from random import Random
from typing import Any

import torch

from .case import Break, Place
from .opcodes import DOORS, call, named, pickled, text
from .pickles import PICKLES
from .trees import changed_tree, codes
from .zips import Member, members, replaced, written

_TELLING = (
    "expr_str",
    "guards_code",
    "target",
    "in_spec",
    "out_spec",
    "name",
    "as_name",
    "path_name",
    "forward_arg_names",
)


def other_json(content: bytes, rng: Random, place: Place) -> bytes:
    """Anything, at some places of a member."""
    return _json(content, rng, lambda tree: changed_tree(tree, rng, place))


def code_in_json(content: bytes, rng: Random, place: Place) -> bytes:
    """Code at a place whose text torch compiles, looks up or pastes."""

    def change(tree: Any) -> Any:
        held = [(holder, key) for holder, key in _under(tree) if key in _TELLING]
        if held:
            holder, key = rng.choice(held)
            holder[key] = _in_the_shape_of(holder[key], rng.choice(codes(place)))
        return tree

    return _json(content, rng, change)


def deep_json(content: bytes, rng: Random, place: Place) -> bytes:
    depth = rng.choice((500, 2000, 100_000))
    text_ = rng.choice((b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth, b"[" * depth))
    return replaced(content, ".json", lambda _: text_)


def code_in_pickle(content: bytes, rng: Random, place: Place) -> bytes:
    """A hostile pickle where sample inputs or opaque constants are."""
    inner = rng.choice(PICKLES)(_data_pickle(), rng, place)
    evil = written([Member(b"x/data.pkl", inner), Member(b"x/version", b"3\n"), Member(b"x/byteorder", b"little")])
    parts = [part for part in members(content) if not part.name.endswith(b"sample_inputs/model.pt")]
    root = parts[0].name.split(b"/")[0]
    names = (
        b"/data/sample_inputs/model.pt",
        b"/data/constants/custom_obj_0.pt",
        b"/data/weights/weight_0",
        b"/extra/x.pt",
    )
    raw = rng.choice((evil, evil, inner))
    return written([*parts, Member(root + rng.choice(names), raw)])


def code_in_pickled_inputs(content: bytes, rng: Random, place: Place) -> bytes:
    evil = pickled(call(named(rng.choice(DOORS), rng), text(f"touch {place.marker}", rng), rng), rng)
    return replaced(content, ".pt", lambda _: evil)


def more_code(content: bytes, rng: Random, place: Place) -> bytes:
    """A member of the kind that compiled programs bring."""
    parts = members(content)
    root = parts[0].name.split(b"/")[0]
    names = (b"data/aotinductor/model/x.so", b"data/aotinductor/model/x.cpp", b"models/evil.py", b"models/../../x.json")
    parts.append(
        Member(root + b"/" + rng.choice((*names, b"models/second.json", b"extra/x", b"code/x.py")), parts[0].content)
    )
    return written(parts)


def _data_pickle() -> bytes:
    buffer = io.BytesIO()
    torch.save(((torch.zeros(2, 2),), {}), buffer)
    return next(part.content for part in members(buffer.getvalue()) if part.name.endswith(b"data.pkl"))


def _json(content: bytes, rng: Random, change: Callable[[Any], Any]) -> bytes:
    names = [part.name.decode() for part in members(content) if part.name.endswith(b".json")]
    name = rng.choice(_weighted(names))
    return replaced(content, name, lambda old: json.dumps(change(json.loads(old))).encode())


def _weighted(names: list[str]) -> list[str]:
    """The graph is the largest and the most telling."""
    return names + [name for name in names if "/models/" in name] * 4


def _under(tree: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    todo = [tree]
    while todo:
        holder = todo.pop()
        if isinstance(holder, dict):
            found += [(holder, key) for key in holder]
            todo += holder.values()
        elif isinstance(holder, list):
            todo += holder
    return found


def _in_the_shape_of(old: Any, new: str) -> Any:
    return [new, *old[1:]] if isinstance(old, list) else new


PROGRAMS: tuple[Break, ...] = (
    *(other_json,) * 3,
    *(code_in_json,) * 3,
    deep_json,
    *(code_in_pickle,) * 2,
    code_in_pickled_inputs,
    more_code,
)
