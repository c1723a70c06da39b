"""Damage for documents: a seeded source of inputs that nobody would write, and somebody will send."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

TOKENS: tuple[bytes, ...] = (
    *(bytes([sign]) for sign in b"[]{},:;-?&*!|>'\"%@`#~=\\/\t\r\n \0\x1b"),
    b"9" * 5000,
    b"-1e999",
    b"NaN",
    b"Infinity",
    b".nan",
    b".inf",
    b"1" + b"0" * 400,
    b"0x" + b"f" * 6000,
    b"0b",
    b"-0",
    b"2024-99-99",
    b"190:20:30",
    b"&a ",
    b"*a",
    b"&a [*a, *a, *a, *a, *a, *a, *a, *a, *a]",
    b"<<: ",
    b"!!bool ",
    b"!!int ",
    b"!!float ",
    b"!!timestamp ",
    b"!!binary ",
    b"!!set ",
    b"!!omap ",
    b"!!pairs ",
    b"!!map ",
    b"!!seq ",
    b"!!merge ",
    b"!!python/object/apply:os.system ",
    b"---\n",
    b"...\n",
    b"%YAML 9.9\n",
    b"%TAG ! tag:x,2000:\n",
    b'"\\UFFFFFFFF"',
    b'"\\ud800"',
    b'"\\u0000"',
    b"\\ud800",
    b"\xff\xfe",
    b"\xfe\xff",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\xc0\x80",
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"../../../etc/passwd",
    b"/etc/passwd",
    b"http://[::1",
    b"https://host:99999999/a.tif",
    b"file:///etc/passwd",
    b"/vsicurl/http://host/",
    b"=cmd|'/c x'!A0",
    b"\x1b[31m",
    b"\xe2\x80\xae",
    b"x" * 300,
    b"{{{{}}}}",
)


def mutate(data: bytes, random: Random) -> bytes:
    """Return ``data`` with one to four kinds of damage; some 10 kB longer than it at most."""
    for _ in range(random.randint(1, 4)):
        data = random.choice(_KINDS)(data, random)
    return data


def _flip(data: bytes, random: Random) -> bytes:
    """Change bits of up to eight bytes."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 8) if data else 0):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _cut(data: bytes, random: Random) -> bytes:
    """Drop the end, or a piece of the middle."""
    first = random.randint(0, len(data))
    last = random.choice((len(data), random.randint(first, len(data)), min(len(data), first + 12)))
    return data[:first] + data[last:]


def _repeat(data: bytes, random: Random) -> bytes:
    """Write a piece again, up to 50 times."""
    first = random.randint(0, len(data))
    piece = data[first : first + random.randint(1, 100)]
    return data[:first] + piece * random.randint(2, 50) + data[first:]


def _insert(data: bytes, random: Random) -> bytes:
    """Put in a hostile token, or put it in place of a few bytes."""
    at = random.randint(0, len(data))
    return data[:at] + random.choice(TOKENS) + data[at + random.choice((0, 0, 1, 4, 12)) :]


def _swap_value(data: bytes, random: Random) -> bytes:
    """Put a hostile token in place of what follows a separator, so that structure survives."""
    places = [at for at, sign in enumerate(data) if sign in b":,;\n"]
    if not places:
        return _insert(data, random)
    at = random.choice(places) + 1
    end = next((to for to in range(at, len(data)) if data[to] in b",;\n}]"), len(data))
    return data[:at] + b" " + random.choice(TOKENS) + data[end:]


def _nest(data: bytes, random: Random) -> bytes:
    """Put in lists or mappings within each other, up to some thousands."""
    at, depth = random.randint(0, len(data)), random.choice((10, 70, 1000, 3000))
    start, end = random.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"- ", b""), (b"? ", b"")))
    return data[:at] + start * depth + (end * depth if random.random() < 0.5 else b"") + data[at:]


_KINDS: tuple[Callable[[bytes, Random], bytes], ...] = (
    _flip,
    _cut,
    _repeat,
    _insert,
    _insert,
    _swap_value,
    _swap_value,
    _nest,
)
