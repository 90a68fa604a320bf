"""A Dask cluster of this computer alone: a scheduler in this process, workers as processes with a core each."""

import contextlib
import itertools
import logging
import shutil
import subprocess
import tempfile
import threading
from typing import Any, final

from vbinfer.execute.processes import cores, folders, launch, pickled


@final
class OwnCluster:
    """`count` single-threaded workers and a client, until `close`; a worker that dies is replaced.

    Unlike those of `distributed.LocalCluster` the workers are programs of their own, so that a script is not run again
    by each, with or without `if __name__ == "__main__":`; each stays on one core, with one thread for everything, and
    none outlives this process. The scheduler listens on 127.0.0.1, on a free port, without a dashboard, and with keys
    that nobody else has: other users of this computer could run anything here without them.

    Attributes:
        client: connected to it.
        trouble: why no worker can be started, once that is known.
    """

    def __init__(self, count: int) -> None:
        import dask
        from distributed import Client, LocalCluster

        from vbinfer.execute.dask_worker import QUIET

        self.trouble: str | None = None
        self._closing, self._guard = False, threading.Lock()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._folder = tempfile.mkdtemp(prefix="vbinfer-dask-")
        self._security = _keys()
        with dask.config.set(QUIET):
            self._cluster = LocalCluster(
                n_workers=0,
                threads_per_worker=1,
                host="127.0.0.1",
                security=self._security,
                dashboard_address="127.0.0.1:0",  # where its HTTP server goes, which it always has; 8787 may be taken
                silence_logs=logging.CRITICAL,  # what it logs is an error that is raised, or a worker that is replaced
                scheduler_kwargs={
                    "dashboard": False,
                    "worker_ttl": "365 days",  # a program that holds the GIL still lives
                    "allowed_failures": 1,  # what ended two workers is then run alone
                },
            )
            self.client: Any = Client(self._cluster, set_as_default=False)
        places = itertools.islice(itertools.cycle(cores() or (None,)), count)
        self._keepers = [
            threading.Thread(target=self._keep, args=(number, core), name=f"vbinfer-dask-{number}", daemon=True)
            for number, core in enumerate(places, start=1)
        ]
        for keeper in self._keepers:
            keeper.start()

    def _keep(self, number: int, core: int | None) -> None:
        """Start a worker, and another when it ends, unless it ended before it was ready."""
        setup = {
            "core": core,
            "scheduler": self._cluster.scheduler_address,
            "security": self._security,
            "folder": self._folder,
        }
        while True:
            with self._guard:
                if self._closing:
                    return
                process = self._processes[number] = launch("vbinfer.execute.dask_worker", stdout=subprocess.PIPE)
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(OSError):  # it has died, and says so below
                process.stdin.write(pickled(folders()) + pickled(setup))
                process.stdin.flush()
            ready = process.stdout.readline()
            code = process.wait()
            process.stdout.close()
            with contextlib.suppress(OSError):
                process.stdin.close()
            if not ready and not self._closing:
                self.trouble = (
                    f"a worker process could not be started (exit status {code}); what it said before is on stderr"
                )
                return

    def close(self) -> None:
        """End the workers, the client and the scheduler; what is in flight is lost."""
        with self._guard:
            self._closing = True
            for process in self._processes.values():
                process.kill()
        for keeper in self._keepers:
            keeper.join()
        with contextlib.suppress(Exception):  # nothing is left to be told
            self.client.close()
        with contextlib.suppress(Exception):
            self._cluster.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _keys() -> Any:
    """Certificates for this cluster alone; nothing without the `cryptography` package, which makes them."""
    from distributed import Security

    try:
        return Security.temporary()
    except ImportError:
        return None
