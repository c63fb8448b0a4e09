"""Ways to make a pickle hostile: what it calls, how large, how deep; and opcodes out of order."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from random import Random

from graftkit.sources.allowed_globals import ALLOWED_GLOBALS

from .broken import any_bytes
from .case import Break, Place
from .opcodes import DOORS, call, cut, named, number, pickled, text, within
from .zips import replaced

# What torch's restricted unpickler knows of itself, besides the names that graftkit allows.
_TORCHS_OWN = """
builtins.bytearray _codecs.encode collections.Counter torch.Tensor torch.FloatTensor torch.sparse.FloatTensor
torch._utils._rebuild_qtensor torch._utils._rebuild_sparse_tensor torch._utils._rebuild_nested_tensor
torch._utils._rebuild_wrapper_subclass torch._utils._rebuild_meta_tensor_no_storage torch._utils._rebuild_tensor_v3
torch._utils._rebuild_device_tensor_from_numpy torch._tensor._rebuild_from_type_v2 torch.serialization._get_layout
"""
_CALLED = (*sorted(ALLOWED_GLOBALS), *_TORCHS_OWN.split() * 5)
# Ten million rows of one number, which cost nothing until somebody takes them apart.
_ROWS = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu")
    + b"K\x01tQK\x00" + number(10**7) + b"\x85K\x00\x85\x89NtR"
)  # fmt: skip
_SIZES = (-1, 0, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, 2**63, 2**80, 30_000)


def runs_code(content: bytes, rng: Random, place: Place) -> bytes:
    """A call of something that runs commands, within something that looks like a model."""
    command = f"touch {place.marker}"
    python = f"__import__('os').system('touch {place.marker}')"
    value = call(named(rng.choice(DOORS), rng), text(rng.choice((command, python, str(place.secret))), rng), rng)
    for _ in range(rng.randrange(4)):
        value = within(value, rng)
    return pickled(value, rng)


def runs_code_by_inst(content: bytes, rng: Random, place: Place) -> bytes:
    module, _, name = rng.choice(DOORS).rpartition(".")
    return pickled(b"(" + text(f"touch {place.marker}") + f"i{module}\n{name}\n".encode(), rng)


def climbs(content: bytes, rng: Random, place: Place) -> bytes:
    """From an allowed class by attributes to what runs code, or a name that is put together on the way."""
    chain = rng.choice(("__class__", "__init__.__globals__", "__subclasses__", "forward.__globals__", "__reduce__"))
    start = rng.choice(sorted(ALLOWED_GLOBALS))
    module, _, name = start.rpartition(".")
    ways = (
        text(module) + text(f"{name}.{chain}") + b"\x93)R",
        b"cbuiltins\ngetattr\n" + named(start, rng) + text(chain) + b"\x86R",
        text("o") + b"K\x01" + text("s") + b"\x93)R",
        b"h\x00h\x01\x93)R",
        b"\x82\x01)R",
        b"(" + text("os") + b"t" + text("system") + b"\x93)R",
        b"N" + text("system") + b"\x93)R",
    )
    return pickled(rng.choice(ways), rng)


def absurd_call(content: bytes, rng: Random, place: Place) -> bytes:
    """An allowed name, called with sizes that no machine has, or with things of another type."""
    junk = (
        b"N",
        b"]",
        b"}",
        b")",
        text("x"),
        b"\x88",
        b"G\x7f\xf0" + bytes(6),
        b"ctorch\nfloat32\n",
        b"ctorch\nSize\n",
        _ROWS,
        b"](" + _ROWS + b"e",
    )
    arguments = [
        number(rng.choice(_SIZES)) if rng.random() < 0.6 else rng.choice(junk) for _ in range(rng.randrange(5))
    ]
    function = named(rng.choice(_CALLED), rng)
    if rng.random() < 0.2:  # its arguments are no tuple
        return pickled(function + _ROWS + rng.choice((b"R", b"\x81")), rng)
    return pickled(call(function, b"".join(arguments), rng), rng)


def absurd_layer(content: bytes, rng: Random, place: Place) -> bytes:
    """A layer made anew, which no model file does, and of gigabytes."""
    name = rng.choice(("linear.Linear", "sparse.Embedding", "rnn.LSTM", "conv.Conv2d", "transformer.Transformer"))
    module, _, last = f"torch.nn.modules.{name}".rpartition(".")
    sizes = number(20_000 if rng.random() < 0.5 else rng.choice(_SIZES)) * rng.choice((2, 2, 3))
    return b"\x80\x02" + f"c{module}\n{last}\n(".encode() + sizes + rng.choice((b"tR.", b"tR.", b"t\x81."))


def absurd_tensor(content: bytes, rng: Random, place: Place) -> bytes:
    """A tensor that is larger than its storage, or a storage that is larger than the file."""
    size, stride, held = (number(rng.choice((*_SIZES, 1, 4))) for _ in range(3))
    kind = rng.choice(("FloatStorage", "LongStorage", "BoolStorage", "Size"))
    storage = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text("0") + text("cpu") + held + b"tQ"
    shape = b"(" + size * rng.choice((1, 2)) + b"t(" + stride * rng.choice((1, 2)) + b"t"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(rng.choice((0, 1, *_SIZES))) + shape
    tensor += b"\x89ccollections\nOrderedDict\n)RtR"
    return pickled(b"}" + text("head.weight") + tensor + b"s" if rng.random() < 0.7 else tensor, rng)


def odd_state(content: bytes, rng: Random, place: Place) -> bytes:
    """A layer whose state is not what its class expects, or that holds itself."""
    key = rng.choice(
        ("_modules", "_parameters", "_buffers", "__class__", "forward", "training", "_forward_hooks", "\n")
    )
    value = rng.choice((b"N", b"h\x01", b"]", text("x\ny"), b"}" + text("a\nb") + b"h\x01s", b"}K\x01h\x01s", b"K\x07"))
    if rng.random() < 0.3:  # a layer that counts while it takes its state
        kind, value = b"ctorch.nn.modules.rnn\nLSTM\n)\x81q\x01", number(rng.choice(_SIZES))
        state = b"}(" + text("_all_weights") + b"]]K\x01aa" + text("num_layers") + value + text("bidirectional")
        return pickled(kind + state + b"\x89" + text("bias") + b"\x89ub", rng)
    layer = b"ctorch.nn.modules.container\nSequential\n)\x81q\x01"
    return pickled(layer + b"}" + text(key) + value + b"sb", rng)


def deep(content: bytes, rng: Random, place: Place) -> bytes:
    """Things within things, a hundred thousand times, or as often as it takes."""
    times = rng.choice((100, 1500, 20_000, 200_000))
    layer = b"ctorch.nn.modules.container\nSequential\n)\x81}" + text("_modules") + b"}" + text("0")
    ways = (
        b"]" * times + b"a" * (times - 1),
        b"N" + b"\x85" * times,
        b"}N" + b"\x85" * times + b"Ns",
        b"(" * times + b"t" * times,
        (b"}" + text("a")) * times + b"N" + b"s" * times,
        layer * min(times, 20_000) + b"N" + b"ssb" * min(times, 20_000),
    )
    return pickled(rng.choice(ways), rng)


def shared(content: bytes, rng: Random, place: Place) -> bytes:
    """Ten lists that each hold the one before ten times over: small, until somebody walks it."""
    width, levels = rng.choice(((10, 12), (2, 60), (200, 6), (10, 3)))
    body = b"]q\x00"
    for _ in range(levels):
        body += b"0](" + b"h\x00" * width + b"eq\x00"
    held = b"}" + text(rng.choice(("hyper_parameters", "state_dict", "model"))) + body + b"s"
    if rng.random() < 0.6:
        held = b"}(" + text("pytorch-lightning_version") + text("2.0") + text("state_dict") + b"}"
        held += text("hyper_parameters") + b"}" + text("a") + body + b"su"
    return pickled(rng.choice((held, body)), rng)


def odd_keys(content: bytes, rng: Random, place: Place) -> bytes:
    """A dict whose names would break a line, a terminal or a path."""
    keys = (
        "a\nb",
        "\x1b[2J",
        "x" * 100_000,
        "../../etc/passwd",
        "",
        "a." * 2000,
        "\udcff".encode("utf-8", "replace").decode(),
    )
    values = (b"N", b"K\x01", b"}", b"]", text("v\nw"), b"G\x7f\xf8" + bytes(6))
    pairs = b"".join(text(rng.choice(keys)) + rng.choice(values) for _ in range(rng.randrange(1, 6)))
    pairs += rng.choice((b"", b"K\x01N", b"NN", b")N"))
    return pickled(b"}(" + pairs + b"u", rng)


def absurd_opcodes(content: bytes, rng: Random, place: Place) -> bytes:
    """Lengths, indices and depths of opcodes that no pickler writes."""
    ways = (
        b"\x8b" + struct.pack("<i", rng.choice((2**31 - 1, -1, 8))) + bytes(8),
        b"\x8b" + struct.pack("<i", 2_000_000) + b"\x7f" * 2_000_000,
        b"L" + b"9" * rng.choice((100, 5000, 100_000)) + b"L\n",
        b"I" + b"9" * 100_000 + b"\n",
        b"\x8d" + struct.pack("<Q", rng.choice((2**63 - 1, 2**64 - 1, 2**40))) + b"x",
        b"\x8e" + struct.pack("<Q", 2**63 - 1) + b"x",
        b"\x95" + struct.pack("<Q", rng.choice((2**63 - 1, 2**64 - 1, 0))) + b"N",
        b"X" + struct.pack("<I", 2**32 - 1) + b"x",
        b"Nr" + struct.pack("<I", rng.choice((2**31, 2**32 - 1))),
        b"Np" + b"9" * rng.choice((10, 30)) + b"\n",
        b"N" + b"2" * 500_000,
        b"(" * 500_000,
        b"]" + b"K\x01a" * 200_000,
        b"j" + struct.pack("<I", 2**32 - 1),
        b"g-1\n",
        b"0" * 10,
        b"F1e999999999\n",
        b"c" + b"a" * 100_000 + b"\nb\n)R",
        b"c\n\n)R",
        b"P../../etc/passwd\n",
        b"\x97\x98",
    )
    return pickled(rng.choice(ways), rng)


def shuffled_opcodes(content: bytes, rng: Random, place: Place) -> bytes:
    opcodes = cut(content)
    for _ in range(rng.choice((1, 1, 3, 20))):
        at, other = rng.randrange(len(opcodes)), rng.randrange(len(opcodes))
        change = rng.choice(("drop", "double", "swap", "take", "put"))
        match change:
            case "drop" if len(opcodes) > 2:
                del opcodes[at]
            case "double":
                opcodes.insert(at, opcodes[at])
            case "swap":
                opcodes[at], opcodes[other] = opcodes[other], opcodes[at]
            case "take":
                opcodes[at] = opcodes[other]
            case _:
                opcodes.insert(
                    at, rng.choice((b"0", b"(", b"t", b"R", b"\x81", b"b", b"Q", b"2", b"N", b"u", b"e", b"s"))
                )
    return b"".join(opcodes)


def absurd_numbers(content: bytes, rng: Random, place: Place) -> bytes:
    """One of the numbers, sizes, strides and counts, is another."""
    opcodes = cut(content)
    places = [at for at, opcode in enumerate(opcodes) if opcode[:1] in b"KMJ\x8a"]
    for at in rng.sample(places, min(len(places), rng.choice((1, 2)))):
        opcodes[at] = number(rng.choice(_SIZES))
    return b"".join(opcodes)


def damaged(content: bytes, rng: Random, place: Place) -> bytes:
    return any_bytes(content, rng, place)


PICKLES: Sequence[Break] = (
    *(runs_code,) * 4,
    runs_code_by_inst,
    climbs,
    *(absurd_call,) * 2,
    absurd_layer,
    absurd_tensor,
    odd_state,
    deep,
    shared,
    odd_keys,
    absurd_opcodes,
    *(shuffled_opcodes,) * 2,
    absurd_numbers,
    damaged,
)


def inside(member: str, breaks: Sequence[Break]) -> tuple[Break, ...]:
    """The same ways, for the pickle in an archive."""
    return tuple(_inside(member, each) for each in breaks)


def _inside(member: str, change: Break) -> Break:
    def changed(content: bytes, rng: Random, place: Place) -> bytes:
        return replaced(content, member, _of(change, rng, place))

    changed.__name__ = change.__name__
    return changed


def _of(change: Break, rng: Random, place: Place) -> Callable[[bytes], bytes]:
    return lambda content: change(content, rng, place)
