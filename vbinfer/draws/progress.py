"""Progress bar of a run, on stderr.

Draws per second, failed share and time left.
"""

import sys
import time
from types import TracebackType
from typing import Any


class Progress:
    """Progress bar as a context.

    It is silent when `shown` is False.
    On a terminal it is a live bar, elsewhere (a log file) a line about every ten seconds.
    """

    def __init__(self, total: int, done: int = 0, shown: bool = True, label: str = "simulating") -> None:
        self._total, self._done = total, done
        self._bar: Any = None
        if shown and done < total:
            from tqdm import tqdm

            live = sys.stderr.isatty()
            self._bar = tqdm(
                total=total,
                initial=done,
                desc=label,
                unit="draw",
                file=sys.stderr,
                mininterval=0.2 if live else 10.0,
                maxinterval=10.0,
                dynamic_ncols=live,
                ncols=None if live else 100,
            )
            self._bar._time = time.monotonic  # a clock that nobody sets; tqdm's own may go backwards
            self._bar.start_t = self._bar.last_print_t = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def show(self, done: int, failed: int) -> None:
        """Show how many draws are finished and failed.

        Those beyond the total are not shown.
        """
        if self._bar is not None and done > self._done:
            self._bar.set_postfix_str(f"{100 * failed / done:.3g}% failed", refresh=False)
            self._bar.update(min(done, self._total) - min(self._done, self._total))
            self._done = done

    def say(self, words: str) -> None:
        """Show words behind the numbers."""
        if self._bar is not None:
            self._bar.set_postfix_str(words)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
