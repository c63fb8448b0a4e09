"""Pickles written opcode by opcode: the words that hostile ones are made of."""

from __future__ import annotations

import pickletools
import struct
from random import Random

# What runs code, fetches, or reaches files, when it is called with a text.
_DOORS = """
os.system posix.system os.popen os.remove os.execv nt.system subprocess.Popen subprocess.check_output builtins.eval
builtins.exec __builtin__.eval __builtin__.execfile builtins.getattr builtins.__import__ builtins.open io.open
functools.partial functools.reduce operator.attrgetter operator.methodcaller importlib.import_module runpy.run_path
pickle.loads _pickle.loads marshal.loads shutil.rmtree socket.create_connection urllib.request.urlopen webbrowser.open
ctypes.CDLL pty.spawn timeit.timeit bdb.Bdb.run code.InteractiveInterpreter.runcode types.CodeType types.FunctionType
multiprocessing.util.spawnv_passfds asyncio.run pathlib.Path.unlink pathlib.Path torch.load torch.hub.load
torch.hub.load_state_dict_from_url torch.storage._load_from_bytes torch.utils._import_dotted_name
torch._utils._import_dotted_name torch._dynamo.utils.import_submodule torch._inductor.codecache.PyCodeCache.load
torch.serialization.os.system torch.serialization.load torch.fx.graph_module._forward_from_src
torch.fx.graph_module.reduce_graph_module torch.fx._symbolic_trace.symbolic_trace torch._tensor._rebuild_from_type_v2
torch._utils._rebuild_wrapper_subclass torch.ops.load_library torch.classes.load_library torch.jit.load
torch.package.PackageImporter torch.distributed.rpc.rpc_sync torch.multiprocessing.spawn torch.nn.modules.module.Module
torch.nn.modules.module.os.system torch.nn.modules.linear.Linear.__init__ torch.nn.modules.container.operator.attrgetter
torch.from_file torch.UntypedStorage.from_file torch.nn.modules.lazy.LazyModuleMixin torch.nn.DataParallel numpy.load
numpy.testing._private.utils.runstring numpy.f2py.crackfortran.myeval sympy.sympify sympy.core.sympify.sympify
graftkit.sources.pickle_safety.load_in_full cloudpickle.loads dill.loads joblib.load pandas.read_pickle yaml.load
pip.main setuptools.setup distutils.spawn.spawn antigravity.webbrowser lib2to3.pgen2.pgen.eval idlelib.pyshell.exec
collections.OrderedDict.__class__ torch.Size.__class__ __main__.main models.Net __torch__.evil.Net
"""
DOORS = tuple(_DOORS.split())


def text(value: str, rng: Random | None = None) -> bytes:
    """A string, written in one of the ways there are."""
    raw = value.encode()
    ways = [b"X" + struct.pack("<I", len(raw)) + raw]
    if len(raw) < 256:
        ways.append(b"\x8c" + bytes([len(raw)]) + raw)
    if value.isascii() and value.isprintable() and "\\" not in value:
        ways += [b"V" + raw + b"\n", b"S" + repr(value).encode() + b"\n", b"\x8d" + struct.pack("<Q", len(raw)) + raw]
    return rng.choice(ways) if rng else ways[0]


def number(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def named(name: str, rng: Random) -> bytes:
    """A global, in one of the ways a pickle can name it."""
    module, _, last = name.rpartition(".")
    if rng.random() < 0.2 and "." in module:  # a name with dots, looked up in its parent
        module, _, middle = module.rpartition(".")
        last = f"{middle}.{last}"
    ways = (
        f"c{module}\n{last}\n".encode(),
        f"c{module}\n{last}\n".encode(),
        text(module, rng) + text(last, rng) + b"\x93",
        text(module, rng) + b"\x94" + text(last, rng) + b"\x9400h\x00h\x01\x93",
    )
    return rng.choice(ways)


def call(function: bytes, arguments: bytes, rng: Random) -> bytes:
    """A call; `arguments` is what lies between the mark and the tuple's end."""
    return rng.choice((function + b"(" + arguments + b"tR", function + b"(" + arguments + b"t\x81"))


def within(value: bytes, rng: Random) -> bytes:
    """The value somewhere in a thing that looks harmless."""
    layer = b"ctorch.nn.modules.linear\nIdentity\n)\x81"
    ways = (
        b"]" + value + b"a",
        b"}" + text("state") + value + b"s",
        b"}" + value + b"Ns",
        b"(" + value + b"K\x01t",
        layer + b"}" + text("training") + value + b"sb",
        layer + value + b"b",
        value + b"0" + layer,
        b"ccollections\nOrderedDict\n(" + value + b"tR",
        b"ctorch.nn.modules.linear\nLinear\n(" + value + b"K\x02tR",
        b"ctorch._utils\n_rebuild_parameter\n(" + value + b"\x88NtR",
        b"(" + text("storage") + value + b"tQ",
        value + b"Q",
        b"\x8f(" + value + b"\x90",
        value + b"2\x86",
        value + b"q\x070h\x07",
    )
    return rng.choice(ways)


def pickled(body: bytes, rng: Random) -> bytes:
    protocol = rng.choice(
        (b"\x80\x02", b"\x80\x02", b"\x80\x02", b"\x80\x04", b"\x80\x05", b"", b"\x80\x00", b"\x80\xff")
    )
    return protocol + body + b"."


def cut(content: bytes) -> list[bytes]:
    """The opcodes of a pickle, each with its argument."""
    places = [place for _, _, place in pickletools.genops(content)]
    return [content[start:end] for start, end in zip(places, [*places[1:], len(content)], strict=True)]
