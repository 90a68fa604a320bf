"""Draws into memory, into a store, or both: what is there is read, what is missing is run, what is finished is kept."""

import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import takewhile
from typing import Any

import numpy as np

from vbinfer.draws.draws import finite_rows
from vbinfer.draws.progress import Progress
from vbinfer.draws.store import SERIES, Rows, Store
from vbinfer.execute.executor import Executor
from vbinfer.execute.resources import Need, check_disk, check_memory, draws_size, format_bytes

_PATIENCE, _LONG = 0.2, 60.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """How many draws run how: `n` of them, `batch_width` at a time, `per_shard` batches to a shard.

    Attributes:
        shards: the numbers of the shards that are wanted, all of them unless a job has only a part.
        keep: hold the draws in memory; without, they are only in the store.
    """

    n: int
    batch_width: int
    per_shard: int
    shards: range
    keep: bool = True

    @classmethod
    def of(cls, n: int, batch_width: int, batch_size: int, part: tuple[int, int] = (1, 1), keep: bool = True) -> "Plan":
        """Shards number i, i + of, ... (from 1) of those that hold n draws."""
        i, of = part
        return cls(n, batch_width, batch_size // batch_width, range(i - 1, -(-n // batch_size), of), keep)

    def batches(self, shard: int) -> range:
        """The batches of a shard; those beyond n are not run."""
        first = shard * self.per_shard
        return range(first, min(first + self.per_shard, -(-self.n // self.batch_width)))

    @property
    def batches_in_all(self) -> int:
        """Batches in all of the shards."""
        return sum(len(self.batches(shard)) for shard in self.shards)

    @property
    def wanted(self) -> int:
        """Draws in all of the shards, without those beyond n."""
        size = self.per_shard * self.batch_width
        return sum(min(size, self.n - shard * size) for shard in self.shards)


class Gathered:
    """What has been gathered so far.

    Attributes:
        simulated: draws run here, those beyond n included.
        read: draws found in the store.
        failed: of both.
        width: features of a draw.
    """

    def __init__(self, plan: Plan) -> None:
        self.simulated = self.read = self.failed = self.width = 0
        self._plan, self._columns = plan, dict[str, np.ndarray]()
        self._row = {shard: i * plan.per_shard * plan.batch_width for i, shard in enumerate(plan.shards)}

    def put(self, shard: int, skip: int, rows: Rows) -> None:
        """Take in rows of a shard, `skip` draws after its first; a series is on disk and not held."""
        self.width = rows["x"].shape[1]
        self.failed += int(np.sum(~finite_rows(rows["x"])))
        if not self._plan.keep:
            return
        at, plain = self._row[shard] + skip, {k: v for k, v in rows.items() if not k.startswith(SERIES)}
        if not self._columns:
            total = self._plan.batches_in_all * self._plan.batch_width
            check_memory(_need(total, plain))
            self._columns = {name: np.empty((total, *v.shape[1:]), v.dtype) for name, v in plain.items()}
        for name, value in plain.items():
            self._columns[name][at : at + len(value)] = value

    def rows(self) -> Rows:
        """The rows of the draws that were asked for, in order."""
        return {name: value[: self._plan.wanted] for name, value in self._columns.items()}


def gather(
    plan: Plan, runner: Callable[[int, Any], Rows], store: Store | None, executor: Executor, progress: bool
) -> Gathered:
    """Every batch of the plan, from the store or from `runner(batch, device)`; interrupted, it keeps what is finished.

    A shard that another process has claimed is left to it until all others are done, and then read; or run, if that
    process has ended without it.
    """
    found = Gathered(plan)
    todo = _Todo(plan, store, found)
    with Progress(plan.wanted, min(found.read, plan.wanted), shown=progress) as bar:
        count = _Count(bar, found)
        began, said = time.monotonic(), False
        try:
            while todo.left:
                with closing(executor.as_completed(runner, todo.claimed())) as finished:
                    for batch, rows in finished:
                        todo.done(batch, rows)
                        count()
                        began = time.monotonic()
                count()
                if todo.left:
                    bar.say("waiting for another process that writes to this store")
                    if store is not None and not said and time.monotonic() - began > _LONG:
                        said = True
                        warnings.warn(_waiting(store, todo.left[0]), stacklevel=4)
                    time.sleep(_PATIENCE)
        finally:  # also when interrupted: what the open shards hold so far is kept
            todo.close()
    return found


class _Count:
    """Shows what has been gathered since it was last called."""

    def __init__(self, bar: Progress, found: Gathered) -> None:
        self._bar, self._found, self._shown, self._failed = bar, found, found.read, found.failed

    def __call__(self) -> None:
        now, failed = self._found.simulated + self._found.read, self._found.failed
        if now > self._shown:
            self._bar.add(now - self._shown, failed - self._failed)
        self._shown, self._failed = now, failed


def _waiting(store: Store, shard: int) -> str:
    return (
        f"waiting for {store.path(shard).name}, on which another process works; if there is none left (its computer "
        f"lost power, say), interrupt this, delete {store.folder.path / '.claims'} and repeat the call"
    )


class _Todo:
    """The shards that are not finished, and the batches of those that are being worked on."""

    def __init__(self, plan: Plan, store: Store | None, found: Gathered) -> None:
        self._plan, self._store, self._found = plan, store, found
        self._open: dict[int, dict[int, Rows]] = {}
        self.left = [shard for shard in plan.shards if store is None or not self._taken(shard, store.read(shard))]

    def _taken(self, shard: int, rows: Rows | None) -> bool:
        """Whether these are all of a shard, which is then taken in; a part is kept for later."""
        if rows is None:
            return False
        batches, width = self._plan.batches(shard), self._plan.batch_width
        if len(rows["x"]) < len(batches) * width:
            return False
        whole = {name: value[: len(batches) * width] for name, value in rows.items()}
        self._found.read += len(whole["x"])
        self._found.put(shard, 0, whole)
        return True

    def claimed(self) -> "_Batches":
        """The batches that nobody else works on, claimed as they are asked for."""
        return _Batches(self._batches(), sum(len(self._plan.batches(shard)) for shard in self.left))

    def _batches(self) -> Iterator[int]:
        for shard in list(self.left):
            part = None
            if self._store is not None:
                if not self._store.claims.acquire(shard):
                    continue
                part = self._store.read(shard, mend=True)
                if self._taken(shard, part):  # another process has finished it since
                    self._finish(shard)
                    continue
                if part is not None and self._store.study.get("series"):
                    part = self._store.read(shard, series=True)
            yield from self._begin(shard, part)

    def _begin(self, shard: int, part: Rows | None) -> Iterator[int]:
        """The batches of a shard that are missing in what is there."""
        first, width = self._plan.batches(shard)[0], self._plan.batch_width
        there = self._open.setdefault(shard, {})
        for i in range(len(part["x"]) // width if part is not None else 0):
            rows = {name: value[i * width : (i + 1) * width] for name, value in (part or {}).items()}
            there[first + i] = rows
            self._found.read += width
            self._found.put(shard, i * width, rows)
        yield from (number for number in self._plan.batches(shard) if number not in there)

    def done(self, batch: int, rows: Rows) -> None:
        """A batch is finished; so may be its shard, which is then written."""
        shard = batch // self._plan.per_shard
        self._open[shard][batch] = rows
        if self._store is not None and not self._found.simulated:  # the first: now it is known how large they are
            check_disk(
                self._store.folder.path,
                _need(self._plan.batches_in_all * self._plan.batch_width - self._found.read, rows),
            )
        self._found.simulated += self._plan.batch_width
        self._found.put(shard, (batch - shard * self._plan.per_shard) * self._plan.batch_width, rows)
        if all(other in self._open[shard] for other in self._plan.batches(shard)):
            self._save(shard)
            self._finish(shard)

    def _finish(self, shard: int) -> None:
        self.left.remove(shard)
        self._open.pop(shard, None)
        if self._store is not None:
            self._store.claims.release(shard)

    def _save(self, shard: int) -> None:
        """Write the batches of a shard up to the first that is missing."""
        there = self._open[shard]
        done = [there[batch] for batch in takewhile(there.__contains__, self._plan.batches(shard))]
        if done and self._store is not None:
            self._store.write(shard, {name: np.concatenate([rows[name] for rows in done]) for name in done[0]})

    def close(self) -> None:
        """Keep what open shards hold, and free the claims."""
        if self._store is None:
            return
        try:
            for shard in sorted(self._open):
                self._save(shard)
        finally:
            self._store.claims.close()


def _need(n: int, rows: Rows) -> Need:
    """What n draws like these need."""
    series = sum(value[0].nbytes for name, value in rows.items() if name.startswith(SERIES))
    parameters = sum(value[0].size for name, value in rows.items() if name != "x" and not name.startswith(SERIES))
    need = draws_size(n, rows["x"].shape[1], parameters, itemsize=rows["x"].itemsize)
    if not series:
        return need
    recorded = f"{n:,} recordings x {series:,} bytes = {format_bytes(n * series)}"
    return Need(need.bytes + n * series, f"{need.arithmetic}, and {recorded}")


class _Batches:
    """Numbers of batches, at most `most`."""

    def __init__(self, source: Iterator[int], most: int) -> None:
        self._source, self._most = source, most

    def __length_hint__(self) -> int:
        return self._most

    def __iter__(self) -> Iterator[int]:
        return self._source
