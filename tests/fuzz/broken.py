"""Ways to break any file: its bytes, whatever they mean."""

from __future__ import annotations

from random import Random

from .case import Break, Place

_TELLING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)


def truncate(content: bytes, rng: Random, place: Place) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def flip_bits(content: bytes, rng: Random, place: Place) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 2, 8, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def splice(content: bytes, rng: Random, place: Place) -> bytes:
    """A stretch of the file over, or into, another place of it."""
    start, end = _stretch(content, rng)
    at = rng.randrange(len(content) + 1)
    over = at + (end - start if rng.random() < 0.5 else 0)
    return content[:at] + content[start:end] + content[over:]


def random_stretch(content: bytes, rng: Random, place: Place) -> bytes:
    start, end = _stretch(content, rng)
    return content[:start] + rng.randbytes(end - start) + content[end:]


def zero_stretch(content: bytes, rng: Random, place: Place) -> bytes:
    start, end = _stretch(content, rng)
    return content[:start] + bytes(end - start) + content[end:]


def repeat_stretch(content: bytes, rng: Random, place: Place) -> bytes:
    start, end = _stretch(content, rng)
    return content[:end] + content[start:end] * rng.choice((1, 3, 50)) + content[end:]


def drop_stretch(content: bytes, rng: Random, place: Place) -> bytes:
    start, end = _stretch(content, rng)
    return content[:start] + content[end:]


def telling_number(content: bytes, rng: Random, place: Place) -> bytes:
    """Some places hold a number that is the largest, the smallest, or one beyond."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 4))):
        size = rng.choice((1, 2, 4, 8))
        at = rng.randrange(max(1, len(changed) - size))
        changed[at : at + size] = (rng.choice(_TELLING) & (256**size - 1)).to_bytes(size, rng.choice(("little", "big")))
    return bytes(changed)


def keep_the_start(content: bytes, rng: Random, place: Place) -> bytes:
    """What a format is told by, and noise."""
    return content[: rng.choice((4, 8, 16, 64))] + rng.randbytes(rng.randrange(4096))


def noise(content: bytes, rng: Random, place: Place) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 16, 512, 5000)))


BYTES: tuple[Break, ...] = (
    truncate,
    flip_bits,
    flip_bits,
    splice,
    random_stretch,
    zero_stretch,
    repeat_stretch,
    drop_stretch,
    telling_number,
    keep_the_start,
    noise,
)


def _stretch(content: bytes, rng: Random) -> tuple[int, int]:
    start = rng.randrange(len(content) + 1)
    return start, min(len(content), start + rng.choice((1, 4, 16, 100, 1000)))


def any_bytes(content: bytes, rng: Random, place: Place) -> bytes:
    """One of these ways."""
    return rng.choice(BYTES)(content, rng, place) if content else rng.randbytes(8)
