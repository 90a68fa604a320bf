"""Which batches to read, simulate and write."""

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from typing import Any

import numpy as np

from vbinfer.draws.draws import finite_rows
from vbinfer.draws.store import Rows, Store, apart
from vbinfer.execute.executor import Executor
from vbinfer.execute.resources import Need, check_disk, check_memory, draws_size, format_bytes

_PATIENCE, _LONG = 0.2, 60.0


class Schedule:
    """Batches and shards of a run.

        draw    0   64  128 ...                             n
        batch   | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 |      run whole, the last one too
        shard   |       0       |       1       |      2     |      files of a store

    An executor iterates over it: each shard is claimed when its first batch is asked for, and written when its last one
    is finished.

    Attributes:
        left: shards that are not finished.
        simulated: draws run here, those beyond n included.
        read: draws found in the store.
        failed: of both.
    """

    def __init__(
        self,
        n: int,
        batch_width: int,
        batch_size: int,
        store: Store | None = None,
        part: tuple[int, int] = (1, 1),
        keep: bool = True,
    ) -> None:
        i, of = part
        self.simulated = self.read = self.failed = 0
        self.store, self._n, self._width, self._keep = store, n, batch_width, keep
        self._per_shard = batch_size // batch_width
        self._shards = range(i - 1, -(-n // batch_size), of)
        self._size = batch_width * sum(len(self._batches(shard)) for shard in self._shards)
        self._columns: dict[str, np.ndarray] = {}
        self._open: dict[int, dict[int, Rows]] = {}  # shard -> its finished batches
        self._stopped = False
        self._early = set[int]() if store is None else store.early_batches()
        self.left = [shard for shard in self._shards if store is None or not self._whole(shard, store.read(shard))]

    def _batches(self, shard: int) -> range:
        first = shard * self._per_shard
        return range(first, min(first + self._per_shard, -(-self._n // self._width)))

    @property
    def wanted(self) -> int:
        """Draws that were asked for, in all of the shards."""
        size = self._per_shard * self._width
        return sum(min(size, self._n - shard * size) for shard in self._shards)

    def rows(self) -> Rows:
        """The rows in order, if they are held."""
        return {name: value[: self._n] for name, value in self._columns.items()}

    def __length_hint__(self) -> int:
        return sum(len(self._batches(shard)) for shard in self.left)

    def __iter__(self) -> Iterator[int]:
        """Claim and yield batches that nobody works on."""
        for shard in list(self.left):
            there = None
            if self.store is not None:
                if not self.store.claims.acquire(shard):
                    continue
                there = self.store.read(shard, mend=True)
                if self._whole(shard, there):  # another process has finished it since
                    self._finish(shard)
                    continue
                if there is not None and self.store.study.get("series"):
                    there = self.store.read(shard, series=True)
            for batch in self._resumed(shard, there):
                if self._stopped:
                    return
                yield batch

    def _whole(self, shard: int, rows: Rows | None) -> bool:
        """Take in a whole shard; False for a part."""
        n = len(self._batches(shard)) * self._width
        if rows is None or len(rows["x"]) < n:
            return False
        self.read += n
        self._take(shard * self._per_shard, {name: value[:n] for name, value in rows.items()})
        return True

    def _resumed(self, shard: int, rows: Rows | None) -> list[int]:
        """Missing batches of a claimed shard.

        They are neither in what it holds nor kept beside it.
        """
        batches, there = self._batches(shard), self._open.setdefault(shard, {})
        rows = rows or {"x": np.empty(0)}
        for i in range(len(rows["x"]) // self._width):
            part = slice(i * self._width, (i + 1) * self._width)
            there[batches[i]] = {name: value[part] for name, value in rows.items()}
        # there:   | 0 | 1 |  .  |  .  | 4 |  .  |      the shard holds 0 and 1, batch-000004.npz was finished early
        for batch in self._early.intersection(batches).difference(there):
            if self.store is not None and (kept := self.store.early_batch(batch)) is not None:
                there[batch] = kept
        for batch in sorted(there):
            self.read += self._width
            self._take(batch, there[batch])
        missing = [batch for batch in batches if batch not in there]
        if not missing:
            self._save(shard)
            self._finish(shard)
        return missing

    def _take(self, batch: int, rows: Rows) -> None:
        """Count rows, and hold them if asked to.

        They begin with the first of a batch. A series is on disk and not held.
        """
        self.failed += int(np.sum(~finite_rows(rows["x"])))
        if not self._keep:
            return
        at, (plain, _) = batch * self._width, apart(rows)
        if not self._columns:  # one allocation for all, so that the draws are never held twice
            check_memory(_need(self._size, plain))
            self._columns = {name: np.empty((self._size, *v.shape[1:]), v.dtype) for name, v in plain.items()}
        for name, value in plain.items():
            self._columns[name][at : at + len(value)] = value

    def add(self, batch: int, rows: Rows) -> None:
        """Add a finished batch, and write a finished shard."""
        shard = self.hold(batch, rows)
        if self.store is not None and not self.simulated:  # the first: now it is known how large they are
            check_disk(self.store.folder.path, _need(self._size - self.read, rows))
        self.simulated += self._width
        self._take(batch, rows)
        if len(self._open[shard]) == len(self._batches(shard)):
            self._save(shard)
            self._finish(shard)

    def hold(self, batch: int, rows: Rows) -> int:
        """Hold a batch until its shard is written.

        Returns the number of the shard.
        """
        shard = batch // self._per_shard
        self._open[shard][batch] = rows
        return shard

    def _finish(self, shard: int) -> None:
        self.left.remove(shard)
        self._open.pop(shard, None)
        if self.store is not None:
            for batch in self._early.intersection(self._batches(shard)):
                self.store.drop_early(batch)
            self.store.claims.release(shard)

    def _save(self, shard: int) -> None:
        """Write the finished batches of a shard.

        Those up to the first that is missing go into the shard, those behind it into files of their own.
        """
        there, batches = self._open[shard], self._batches(shard)
        if self.store is None:
            return
        # A shard is always its first rows, so that it can be read and appended to; what lies behind a gap waits.
        gap = next((batch for batch in batches if batch not in there), batches.stop)
        done = [there[batch] for batch in range(batches.start, gap)]
        if done:
            self.store.write(shard, {name: np.concatenate([rows[name] for rows in done]) for name in done[0]})
        for batch in sorted(batch for batch in there if batch > gap and batch not in self._early):
            self.store.keep_early(batch, there[batch])

    def stop(self) -> None:
        """Give out no more batches."""
        self._stopped = True

    def close(self) -> None:
        """Keep what open shards hold, and free the claims."""
        if self.store is None:
            return
        try:
            for shard in sorted(self._open):
                self._save(shard)
        finally:
            self.store.claims.close()


def run(schedule: Schedule, simulate: Callable[[int, Any], Rows], executor: Executor, progress: bool) -> None:
    """Run what is left of a schedule.

    `simulate(batch, device)` makes the rows of a batch. Interrupted, it keeps what is finished.
    A shard that another process has claimed is left to it until all others are done, and then read; or run, if that
    process has ended without it.
    """
    began, said = time.monotonic(), False
    with Progress(schedule.wanted, min(schedule.read, schedule.wanted), shown=progress) as bar, closing(schedule):
        while schedule.left:
            with closing(executor.as_completed(simulate, schedule)) as finished:
                try:
                    for batch, rows in finished:
                        schedule.add(batch, rows)
                        bar.show(schedule.read + schedule.simulated, schedule.failed)
                        began = time.monotonic()
                except BaseException:  # Ctrl-C too: nothing new is begun, what is under way is finished and kept
                    schedule.stop()
                    for batch, rows in finished:
                        schedule.hold(batch, rows)
                    raise
            bar.show(schedule.read + schedule.simulated, schedule.failed)
            if schedule.left:
                bar.say("waiting for another process that writes to this store")
                if schedule.store is not None and not said and time.monotonic() - began > _LONG:
                    said = True
                    warnings.warn(_waiting(schedule.store, schedule.left[0]), stacklevel=4)
                time.sleep(_PATIENCE)


def _waiting(store: Store, shard: int) -> str:
    return (
        f"waiting for {store.path(shard).name}, on which another process works; if there is none left (its computer "
        f"lost power, say), interrupt this, delete {store.folder.path / '.claims'} and repeat the call"
    )


def _need(n: int, rows: Rows) -> Need:
    """What n draws like these need."""
    plain, beside = apart(rows)
    x = plain.pop("x")
    parameters, series = sum(one[0].size for one in plain.values()), sum(one[0].nbytes for one in beside.values())
    need = draws_size(n, x.shape[1], parameters, itemsize=x.itemsize)
    if not series:
        return need
    recorded = f"{n:,} recordings x {series:,} bytes = {format_bytes(n * series)}"
    return Need(need.bytes + n * series, f"{need.arithmetic}, and {recorded}")


class Progress(AbstractContextManager["Progress"]):
    """Progress bar on stderr, with rate and failed share.

    It is silent when `shown` is False.
    On a terminal it is a live bar, elsewhere (a log file) a line about every ten seconds.
    """

    def __init__(self, total: int, done: int = 0, shown: bool = True, label: str = "simulating") -> None:
        from tqdm import tqdm

        live = sys.stderr.isatty()
        self._total = total
        self._bar: Any = tqdm(
            total=total,
            initial=done,
            desc=label,
            unit="draw",
            file=sys.stderr,
            mininterval=0.2 if live else 10.0,
            maxinterval=10.0,
            dynamic_ncols=live,
            ncols=None if live else 100,
            disable=not shown or done >= total,
        )
        self._bar._time = time.monotonic  # a clock that nobody sets; tqdm's own may go backwards
        self._bar.start_t = self._bar.last_print_t = time.monotonic()

    def show(self, done: int, failed: int) -> None:
        """Show how many draws are finished and failed.

        Those beyond the total are not shown.
        """
        more = min(done, self._total) - self._bar.n
        if more > 0:
            self._bar.set_postfix_str(f"{100 * failed / done:.3g}% failed", refresh=False)
            self._bar.update(more)

    def say(self, words: str) -> None:
        """Show words behind the numbers."""
        self._bar.set_postfix_str(words)

    def __exit__(self, *_: object) -> None:
        self._bar.close()
