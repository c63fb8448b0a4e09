"""Says whether a pickle calls nothing but what rebuilds tensors and containers, of sizes that its file can fill.

Every allowed name does what it says, and still some allocate as much as they are told: layers made by their class,
byte arrays of a length, tensors larger than their storage, sets of a tensor's rows. `torch.save` calls none of these.
It makes a layer empty and fills in its state, and it calls few functions, with arguments of one form each. So the
pickle is followed here opcode by opcode, as torch's restricted unpickler follows it, with stand-ins for objects; what
that unpickler does not know ends the walk, because it ends the loading as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from graftkit.core.errors import SourceError, shown
from graftkit.sources.pickle_opcodes import TooManyError, opcodes, python3_name
from graftkit.sources.pickle_rules import LAYERS, RULES, Made, Mapped, Named, RefusedError, Room, Rows, storage_of

_LONGEST_NAME = 300
_DEEPEST = 1000  # of tuples within each other: hashing one calls itself for each
_MOST_LAYERS = 10_000


def check_calls(pickled: Any, where: str, held: int, free: Iterable[str] = ()) -> None:
    """Raise SourceError for the first call that no file of torch.save makes.

    `pickled` is bytes, or a file that is read to the pickle's end; `held` is how many bytes the whole file holds;
    `free` are names that the user allowed, or that stand for nothing, which may be called with anything.
    """
    _follow(_Machine(Room(held), frozenset(free)), pickled, where)


def check_script_tensors(pickled: bytes, where: str, records: Mapping[str, int]) -> None:
    """Raise SourceError where a tensor of a TorchScript archive is not within its storage, or that not in its record.

    Torch's reader in C++ believes what the pickle says of sizes, and would show whatever lies behind the record in
    memory. `records` are the bytes of each, by the key of a storage.
    """
    _follow(_ScriptMachine(Room(sum(records.values()), records), frozenset()), pickled, where)


def _follow(machine: _Machine, pickled: Any, where: str) -> None:
    try:
        for name, argument in opcodes(pickled):
            step = _STEPS.get(name)
            if step is None:
                return machine.stop()
            step(machine, argument)
    except TooManyError as error:
        raise SourceError(f"{where} {error}") from error
    except RefusedError as error:
        raise SourceError(f"{where} {error}, which torch never does for a model; do not use this file") from error
    except Exception as error:  # pickletools meets foreign bytes here, and raises whatever they provoke
        raise SourceError(f"{where} is damaged; copy or download it again") from error
    return None


class _Tuple(tuple[Any, ...]):
    """A tuple that knows how deep it goes."""

    depth: int


@dataclass(eq=False)
class _Machine:
    """The unpickler's stack, the stacks below its marks, and its memo, all holding stand-ins."""

    room: Room
    free: frozenset[str]
    stack: list[Any] = field(default_factory=list)
    below: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def stop(self) -> None:
        """At an opcode that no step is for: torch's restricted unpickler stops there, too."""

    def push(self, value: Any) -> None:
        """Something that takes nothing from the stack."""
        self.stack.append(value)

    def above_mark(self) -> list[Any]:
        """Everything since the last mark, which goes as well."""
        found, self.stack = self.stack, self.below.pop()
        return found

    def mark(self, _: Any) -> None:
        """Begin a stack above this one."""
        self.below.append(self.stack)
        self.stack = []

    def name(self, argument: str) -> None:
        """A class or function by its name, which may be too long for torch to complain of in reasonable time."""
        if len(argument) > _LONGEST_NAME:
            raise RefusedError("names something longer than any class")
        self.push(Named(python3_name(*argument.split(" ", 1))))

    def bundle(self, count: int | None) -> None:
        """The topmost things, or all above the mark, as a tuple."""
        found = _Tuple(self.above_mark() if count is None else self.take(count))
        found.depth = 1 + max((value.depth for value in found if isinstance(value, _Tuple)), default=0)
        if found.depth > _DEEPEST:
            raise RefusedError("nests tuples deeper than any model")
        self.push(found)

    def take(self, count: int) -> list[Any]:
        """The topmost things."""
        at = len(self.stack) - count
        if at < 0:
            raise IndexError("the stack does not hold as much")
        taken, self.stack[at:] = self.stack[at:], []
        return taken

    def put(self, index: int) -> None:
        """Remember what is on top."""
        self.memo[index] = self.stack[-1]

    def fetch(self, index: int) -> None:
        """What was remembered."""
        self.push(self.memo[index])

    def set_items(self, count: int | None) -> None:
        """Keys and values into what lies below them."""
        found = self.above_mark() if count is None else self.take(count)
        into = self.stack[-1]
        if isinstance(into, Mapped):
            into.items.update((key, value) for key, value in zip(found[::2], found[1::2], strict=True) if _text(key))

    def append(self, count: int | None) -> None:
        """What lies on a list, into it."""
        found = self.above_mark() if count is None else self.take(count)
        if isinstance(self.stack[-1], Rows):
            self.stack[-1].members += found

    def call(self, _: Any) -> None:
        """A name with a tuple of arguments."""
        function, arguments = self.take(2)
        if isinstance(function, Named) and function.name in LAYERS:
            raise RefusedError(f"makes a layer anew ({function.name})")
        self.push(self.made(function, arguments))

    def make(self, _: Any) -> None:
        """A class with the arguments of its `__new__`; a layer's takes none."""
        kind, arguments = self.take(2)
        if isinstance(kind, Named) and kind.name in LAYERS:
            if arguments != ():
                raise RefusedError(f"makes a layer anew ({kind.name})")
            self.push(Made(kind.name))
        else:
            self.push(self.made(kind, arguments))

    def made(self, function: Any, arguments: Any) -> Any:
        """What a call gives. Raises RefusedError where torch.save makes no such call."""
        if not isinstance(function, Named) or not isinstance(arguments, tuple):
            raise RefusedError("calls something with what is no list of arguments")
        if function.name in self.free:
            return Made(function.name)
        if function.name == "torch._tensor._rebuild_from_type_v2":
            arguments = (*arguments, None, None, None)  # what there is too little of is refused below
            return self.made(arguments[0], arguments[2])  # it calls the first with the third
        rule = RULES.get(function.name)
        found = None if rule is None else rule(self.room, arguments)
        if found is None:
            raise RefusedError(f"calls {shown(function.name)} with arguments of its own")
        return found

    def build(self, _: Any) -> None:
        """A state into an object: layers and mappings take a plain dict, parameters what torch 0.3 wrote."""
        (state,) = self.take(1)
        kind = self.stack[-1].name if isinstance(self.stack[-1], Made) else ""
        if kind in self.free:
            return
        if kind == "torch.nn.parameter.Parameter" and isinstance(state, tuple) and len(state) in (3, 5):
            return
        if kind not in LAYERS and kind != "collections.OrderedDict":
            raise RefusedError("gives a state to something that has none")
        if not isinstance(state, Mapped) or not _few_layers(state):
            raise RefusedError(f"gives {kind} a state that it never has")

    def persistent(self, _: Any) -> None:
        """A storage, by the tuple that says which and how large."""
        (told,) = self.take(1)
        found: Any = storage_of(told, self.room)
        if found is None and isinstance(told, tuple) and told[:1] == ("module",):
            found = Made("a layer's source")  # torch stops here, and says that the form is an old one
        if found is None:
            raise RefusedError("names a storage larger than what it holds")
        self.push(found)


class _ScriptMachine(_Machine):
    """The same for TorchScript's reader, which makes objects of the archive's own classes, and calls no others."""

    def stop(self) -> None:
        """That reader knows more opcodes; torch.jit.save writes none of them."""
        raise RefusedError("has an opcode that takes things apart")

    def made(self, function: Any, arguments: Any) -> Any:
        """Tensors as everywhere; whatever else is made holds them."""
        if not isinstance(function, Named):
            raise RefusedError("calls something by a number")
        if function.name in RULES and function.name != "collections.OrderedDict":
            return super().made(function, arguments)
        return Made(function.name)

    def build(self, _: Any) -> None:
        """Attributes into an object."""
        self.take(1)


def _text(key: Any) -> bool:
    return isinstance(key, str)


def _few_layers(state: Mapped) -> bool:
    """Recurrent layers count up to this number while they take their state."""
    told = state.items.get("num_layers", 0)
    return isinstance(told, int) and told <= _MOST_LAYERS


def _ignored(machine: _Machine, argument: Any) -> None:
    pass


def _pushing(make: Callable[[Any], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, argument: machine.push(make(argument))


_VALUES = "BININT BININT1 BININT2 BINFLOAT BINUNICODE SHORT_BINSTRING LONG1"
_Step = Callable[[_Machine, Any], None]
_STEPS: Mapping[str, _Step] = {
    **dict.fromkeys(_VALUES.split(), _Machine.push),
    **dict.fromkeys(("PROTO", "STOP"), _ignored),
    "NONE": _pushing(lambda _: None),
    "NEWTRUE": _pushing(lambda _: True),
    "NEWFALSE": _pushing(lambda _: False),
    "EMPTY_LIST": _pushing(lambda _: Rows()),
    "EMPTY_DICT": _pushing(lambda _: Mapped()),
    "EMPTY_SET": _pushing(lambda _: Made("builtins.set")),
    "EMPTY_TUPLE": lambda machine, _: machine.bundle(0),
    "TUPLE1": lambda machine, _: machine.bundle(1),
    "TUPLE2": lambda machine, _: machine.bundle(2),
    "TUPLE3": lambda machine, _: machine.bundle(3),
    "TUPLE": lambda machine, _: machine.bundle(None),
    "MARK": _Machine.mark,
    "GLOBAL": _Machine.name,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.make,
    "BUILD": lambda machine, argument: machine.build(argument),
    "BINPERSID": _Machine.persistent,
    "APPEND": lambda machine, _: machine.append(1),
    "APPENDS": lambda machine, _: machine.append(None),
    "SETITEM": lambda machine, _: machine.set_items(2),
    "SETITEMS": lambda machine, _: machine.set_items(None),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.fetch),
}
