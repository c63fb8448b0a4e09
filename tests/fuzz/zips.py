"""Ways to break a zip archive: its members, and headers that lie about them."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from random import Random

from .broken import any_bytes
from .case import Break, Place

_BOMB = 300 * 2**20
_ABSURD = (0, 1, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)


@dataclass(frozen=True)
class Member:
    """One member; `lies` overrides what the headers say: in both, or as "local ..." or "central ..." in one."""

    name: bytes
    content: bytes
    lies: dict[str, int] = field(default_factory=dict)

    def says(self, where: str, what: str, truth: int) -> int:
        return self.lies.get(f"{where} {what}", self.lies.get(what, truth))


def members(archive: bytes) -> list[Member]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return [Member(info.filename.encode(), opened.read(info)) for info in opened.infolist()]


def written(parts: list[Member], *, end: dict[str, int] | None = None, comment: bytes = b"") -> bytes:
    """An archive with members stored as they are; `end` overrides what the last record says."""
    body, central = b"", b""
    for part in parts:
        offset = len(body)
        body += b"PK\3\4" + _header(part, "local") + part.name + part.content
        central += b"PK\1\2" + struct.pack("<H", 20) + _header(part, "central") + struct.pack("<HHHL", 0, 0, 0, 0)
        central += struct.pack("<L", part.says("central", "offset", offset)) + part.name
    said = {"disk": 0, "start": 0, "here": len(parts), "all": len(parts), "size": len(central), "offset": len(body)}
    said |= end or {}
    return body + central + b"PK\5\6" + struct.pack("<4H2LH", *said.values(), len(comment)) + comment


def _header(part: Member, where: str) -> bytes:
    facts = (
        part.says(where, "flags", 0),
        part.says(where, "method", 0),
        0,
        0x21,
        part.says(where, "crc", zlib.crc32(part.content)),
        part.says(where, "packed", len(part.content)),
        part.says(where, "size", len(part.content)),
    )
    return struct.pack("<5H3L2H", 20, *facts, part.says(where, "name", len(part.name)), 0)


def replaced(archive: bytes, ending: str, change: Callable[[bytes], bytes]) -> bytes:
    """The archive with one member's content changed, and all headers true."""
    return written(
        [
            replace(part, content=change(part.content)) if part.name.decode().endswith(ending) else part
            for part in members(archive)
        ]
    )


@cache
def _bomb() -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(_BOMB // 2**20)) + packer.flush()


def damaged_member(content: bytes, rng: Random, place: Place) -> bytes:
    """Broken bytes in a member, whose check sum fits: readers get past the archive."""
    parts = members(content)
    at = rng.randrange(len(parts))
    parts[at] = replace(parts[at], content=any_bytes(parts[at].content, rng, place))
    return written(parts)


def renamed_member(content: bytes, rng: Random, place: Place) -> bytes:
    parts = members(content)
    at = rng.randrange(len(parts))
    parts[at] = replace(parts[at], name=_name(parts[at].name, rng))
    return written(parts)


def _name(name: bytes, rng: Random) -> bytes:
    folder, _, last = name.rpartition(b"/")
    options = (
        b"../" * 9 + b"etc/passwd",
        b"/etc/passwd",
        b"..\\" + last,
        b"\xff\xfe\x00" + last,
        folder + b"/\xc3(" + last,
        last,
        folder + b"/" + folder + b"/" + last,
        b"deep/" * 500 + last,
        name + b"/",
        name[:-1],
        name + b"\0.txt",
        name.upper(),
        b"",
        b"a" * 60_000,
        folder + b"/code/__torch__/evil.py",
        folder + b"/constants.pkl",
        folder + b"/data.pkl",
        folder + b"/archive_format",
        folder + b"/\x1b[2J\nx",
    )
    return rng.choice(options)


def doubled_member(content: bytes, rng: Random, place: Place) -> bytes:
    """Two members of one name: readers may disagree about which counts."""
    parts = members(content)
    part = rng.choice(parts)
    other = replace(part, content=any_bytes(part.content, rng, place))
    parts.insert(rng.choice((0, len(parts))), other)
    return written(parts)


def shuffled_members(content: bytes, rng: Random, place: Place) -> bytes:
    parts = members(content)
    rng.shuffle(parts)
    return written(parts[: rng.choice((len(parts), len(parts) - 1, len(parts) // 2))])


def swapped_members(content: bytes, rng: Random, place: Place) -> bytes:
    parts = members(content)
    first, second = rng.randrange(len(parts)), rng.randrange(len(parts))
    one, other = parts[first], parts[second]
    parts[first], parts[second] = replace(one, content=other.content), replace(other, content=one.content)
    return written(parts)


def more_members(content: bytes, rng: Random, place: Place) -> bytes:
    parts = members(content)
    for _ in range(rng.choice((1, 3, 5000))):
        name = _name(rng.choice(parts).name, rng)
        parts.append(Member(name[:200] + str(len(parts)).encode(), b"x"))
    return written(parts)


def lying_headers(content: bytes, rng: Random, place: Place) -> bytes:
    parts = members(content)
    for _ in range(rng.choice((1, 1, 3))):
        at = rng.randrange(len(parts))
        what = rng.choice(("crc", "packed", "size", "flags", "method", "name", "offset"))
        where = rng.choice(("", "local ", "central "))
        most = 0xFFFF if what in ("flags", "method", "name") else 0xFFFFFFFF
        told = rng.choice((*_ABSURD, rng.randrange(len(content) * 2), len(parts[at].content) + 1)) & most
        parts[at] = replace(parts[at], lies={**parts[at].lies, where + what: told})
    return written(parts)


def lying_end(content: bytes, rng: Random, place: Place) -> bytes:
    parts = members(content)
    what = rng.choice(("disk", "start", "here", "all", "size", "offset"))
    told = rng.choice((*_ABSURD, len(parts) + 1)) & (0xFFFFFFFF if what in ("size", "offset") else 0xFFFF)
    return written(parts, end={what: told}, comment=rng.choice((b"", b"PK\5\6" + bytes(18))))


def bomb(content: bytes, rng: Random, place: Place) -> bytes:
    """A member that unpacks to a thousand times the file, and may say that it does not."""
    parts = members(content)
    at = rng.randrange(len(parts))
    said = rng.choice((_BOMB, len(parts[at].content), 0))
    parts[at] = replace(parts[at], content=_bomb(), lies={"method": 8, "size": said, "crc": rng.randrange(2**32)})
    return written(parts)


def packed_members(content: bytes, rng: Random, place: Place) -> bytes:
    """Compressed, as torch never does; or called so and not."""
    parts = []
    for part in members(content):
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        packed = packer.compress(part.content) + packer.flush()
        lies = {"method": 8, "size": len(part.content), "crc": zlib.crc32(part.content)}
        content_now = packed if rng.random() < 0.8 else any_bytes(packed, rng, place)
        parts.append(replace(part, content=content_now, lies=lies))
    return written(parts)


def between_others(content: bytes, rng: Random, place: Place) -> bytes:
    """Something before or after the archive, or an archive in an archive."""
    options = (rng.randbytes(100) + content, content + rng.randbytes(100), content + content)
    return rng.choice((*options, written([Member(b"net/data.pkl", content)]), b"PK\3\4" + content))


ZIPS: tuple[Break, ...] = (
    *(damaged_member,) * 4,
    *(renamed_member,) * 2,
    doubled_member,
    shuffled_members,
    swapped_members,
    more_members,
    *(lying_headers,) * 3,
    lying_end,
    bomb,
    packed_members,
    between_others,
)
