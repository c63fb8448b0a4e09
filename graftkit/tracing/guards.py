"""Finds sizes for which does not hold what torch.export took for granted when it followed a branch of the code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType

_UP_TO = 64  # numbers that are tried for each size; a branch on a larger one shows where sizes are multiplied
_TIMES = (2, 3, 4, 8)
_MOST = 6  # sets of sizes: each costs a run of the model


@dataclass(frozen=True)
class _Shape:
    """What a guard may ask a tensor for."""

    sizes: tuple[int, ...]

    def size(self) -> tuple[int, ...]:
        return self.sizes


@dataclass(frozen=True)
class Sizes:
    """The inputs' dimensions by input name, numbers where fixed and names where free, and what the example had."""

    shapes: Mapping[str, tuple[int | str, ...]]
    now: Mapping[str, int]

    def at(self, numbers: Mapping[str, int]) -> dict[str, _Shape]:
        """The inputs with other numbers for some names."""
        known = {**self.now, **numbers}
        return {
            name: _Shape(tuple(known.get(dim, 0) if isinstance(dim, str) else dim for dim in dims))
            for name, dims in self.shapes.items()
        }


def breaking(guards: Sequence[str], sizes: Sizes, *, rows: str) -> list[dict[str, int]]:
    """Sets of sizes that break guards which hold for the example, as few as break all that can be broken.

    Args:
        guards: conditions as torch.export writes them, `(L['x'].size()[2] % 11) != 0`.
        sizes: of the inputs.
        rows: the name of the batch, which is not varied together with others.
    """
    example = sizes.at({})
    left = [code for code in map(_compiled, guards) if code is not None and _holds(code, example)]
    found: list[dict[str, int]] = []
    for numbers in _candidates(sizes.now, rows):
        shapes = sizes.at(numbers)
        held = [code for code in left if _holds(code, shapes)]
        if len(held) < len(left):
            found.append(numbers)
            left = held
        if not left or len(found) == _MOST:
            break
    return found


def _candidates(now: Mapping[str, int], rows: str) -> Iterator[dict[str, int]]:
    for name, number in now.items():
        yield from ({name: other} for other in (*range(2, _UP_TO), *(number * times for times in _TIMES)))
    others = [name for name in now if name != rows]
    yield from ({name: now[name] * times for name in others} for times in _TIMES)
    yield from (dict.fromkeys(others, other) for other in range(2, _UP_TO))


def _compiled(guard: str) -> CodeType | None:
    try:
        return compile(guard, "<guard>", "eval")
    except SyntaxError:
        return None


def _holds(code: CodeType, shapes: Mapping[str, _Shape]) -> bool:
    """Whether a guard holds; one that asks for more than sizes counts as held."""
    try:
        return bool(eval(code, {"__builtins__": {}}, {"L": shapes}))
    except Exception:  # of torch's own functions, or of other properties of a tensor
        return True
