"""Messages of the command line."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

from vbinfer.io import npz

EXPECTED = (ValueError, TypeError, RuntimeError, OSError, MemoryError, ImportError)
"""Errors of input and machine; any other is a mistake in vbinfer, and shows its traceback."""


class Stopped(KeyboardInterrupt):
    """SIGTERM, which batch systems send before they kill.

    There are some seconds between the two, enough to keep what is finished.
    """


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Inside, SIGTERM interrupts as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def said(error: BaseException) -> str:
    """The sentence for an error."""
    if isinstance(error, BrokenPipeError):
        return "nobody reads the output any more; what was finished is kept, and the same command with --quiet goes on"
    if isinstance(error, MemoryError):
        return "the memory is full; use fewer --cores, or close other programs, and repeat the command, which goes on"
    if isinstance(error, OSError) and error.errno is not None:
        if error.filename is None:
            return error.strerror or str(error)
        return f"{error.filename}: {(error.strerror or '').lower()}; {npz.remedy(error)}"
    return str(error)


def printable(words: str) -> str:
    """Words without signs that a terminal obeys.

    Names come from files, and a file may be anybody's.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in words)


def tell(words: str) -> None:
    """A line on standard output."""
    print(printable(words), flush=True)


def say(words: str) -> None:
    """A line on standard error, unless that is closed."""
    with contextlib.suppress(OSError, ValueError):
        print(printable(words), file=sys.stderr, flush=True)


def let_go_of_stdout(error: BaseException) -> None:
    """Point standard output at nothing, where its reader is gone.

    Python would complain once more as it ends.
    """
    if not isinstance(error, BrokenPipeError):
        return
    with contextlib.suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
