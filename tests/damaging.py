"""Harm that comes to files, and what may be said about it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

KINDS = ("bit", "byte", "byte", "cut", "cut", "append", "zero", "swap", "empty")
REMEDY = re.compile(
    r"\b(give|restore|delete|repeat|again|expected|must|write|leave|choose|use|free|set|save|"
    r"load it with|bring back|make the call|put|paths start at|did you mean|has no key|lacks the key|line \d+)\b",
    re.IGNORECASE,
)
RAW = ("Traceback", "KeyError", "TypeError", "IndexError", "AttributeError", "zlib.error", "BadZipFile", "<class")


def harmed(content: bytes, seed: int) -> tuple[str, bytes]:
    """Other bytes than `content`, and what was done to them; the same for the same seed."""
    rng = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    data, n = bytearray(content), len(content)
    place = int(rng.integers(n))
    if kind == "bit":
        data[place] ^= 1 << int(rng.integers(8))
    elif kind == "byte":
        data[place] ^= int(rng.integers(1, 256))
    elif kind == "cut":
        data = data[:place]
    elif kind == "append":
        data += rng.bytes(int(rng.integers(1, 200)))
    elif kind == "zero":
        data[place : place + 40] = bytes(len(data[place : place + 40]))
    elif kind == "swap":
        half = n // 2
        data = data[half:] + data[:half]
    else:
        data = bytearray()
    if data == content:  # zeros where zeros were
        data[place] ^= 0xFF
    return f"{kind} at {place} of {n}", bytes(data)


def unclear(error: BaseException | None, *names: str) -> str | None:
    """What is wrong with an error as an answer to a person; None if it says which file and what to do."""
    words = str(error)
    if not isinstance(error, ValueError | OSError):
        return f"a {type(error).__name__}: {words}"
    if not any(name in words for name in names):
        return f"names none of {names}: {words}"
    if not REMEDY.search(words):
        return f"says nothing to do: {words}"
    raw = [one for one in RAW if one in words]
    return f"shows {raw}: {words}" if raw or len(words) > 1500 else None


def attempt(do: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """What a call returns, or the error that it raises."""
    try:
        return do(), None
    except Exception as error:
        return None, error


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, in any depth."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
