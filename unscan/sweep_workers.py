"""Who does the jobs of a sweep: processes of this machine, or the workers of a dask cluster.

A pool takes jobs under a key and hands back, one at a time, what has been done. It loses no job: one whose process
died is handed back as failed. Here each process does one job at a time, so it is known which one that was; a cluster
gives the job to another worker first.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from threading import Lock
from types import TracebackType
from typing import Any, Protocol, Self

from unscan import __version__
from unscan.compiler.errors import InvalidInput, MissingDependency

Outcome = dict[str, Any]
"""Of a job: what came of it, with the status done; or its error, with the status failed."""
Job = Callable[..., Outcome]
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
"""Each process computes in one thread, so that results are the same however many processes there are."""
PATIENCE = 5.0
"""Seconds in which a process that is told to stop may do so."""
CONNECTING = 30.0
"""Seconds in which a scheduler answers, and has a worker."""


class Pool(Protocol):
    """Does jobs; used as a context, at whose end what is still running is stopped."""

    def submit(self, key: str, job: Job, *arguments: Any) -> None:
        """Take a job."""

    def next(self) -> tuple[str, Outcome]:
        """Wait for any job to be done; return its key and outcome."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def failed(error: str) -> Outcome:
    """Return the outcome of a job that did not come to its end."""
    return {"status": "failed", "error": error}


@dataclass(frozen=True)
class _Worker:
    process: BaseProcess
    pipe: Connection


class Processes:
    """Processes of this machine, each started when it is first needed."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._waiting: deque[tuple[str, Job, tuple[Any, ...]]] = deque()
        self._idle: list[_Worker] = []
        self._busy: dict[Connection, tuple[_Worker, str]] = {}

    def submit(self, key: str, job: Job, *arguments: Any) -> None:
        """Take a job."""
        self._waiting.append((key, job, arguments))
        self._assign()

    def next(self) -> tuple[str, Outcome]:
        """Wait for any job to be done; return its key and outcome."""
        ready = wait(list(self._busy))[0]
        assert isinstance(ready, Connection)
        worker, key = self._busy.pop(ready)
        try:
            outcome: Outcome = ready.recv()
            self._idle.append(worker)
        except (EOFError, OSError):
            worker.process.join()
            outcome = failed(
                f"the process that did it ended with code {worker.process.exitcode}: it was killed, perhaps for want "
                "of memory, or crashed; try again with --retry-failed, with fewer workers or samples"
            )
        self._assign()
        return key, outcome

    def _assign(self) -> None:
        while self._waiting and len(self._busy) < self._count:
            key, job, arguments = self._waiting.popleft()
            worker = self._idle.pop() if self._idle else _started()
            try:
                worker.pipe.send((job, arguments))
            except OSError:  # it died while it was idle, and no job with it
                self._waiting.appendleft((key, job, arguments))
                continue
            self._busy[worker.pipe] = worker, key

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        workers = [*self._idle, *(worker for worker, _ in self._busy.values())]
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join(PATIENCE)
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()


def _started() -> _Worker:
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there,), daemon=True)
    process.start()
    there.close()
    return _Worker(process, here)


def _serve(pipe: Connection) -> None:
    """Do jobs as they come, until nobody is there to send them; Ctrl-C is for the one who sends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(dict.fromkeys(THREADS, "1"))
    while True:
        try:
            job, arguments = pipe.recv()
            pipe.send(job(*arguments))
        except (EOFError, OSError):
            return


class Cluster:
    """The workers of a dask scheduler, which see the same files under the same paths and have the same unscan.

    A job whose worker is lost is done by another one, three times over. What is done is taken from the cluster at
    once, so that no loss of a worker makes it do a job again whose outcome is known.

    Raises:
        MissingDependency: dask.distributed is not installed.
        InvalidInput: no scheduler answers at the address, it has no worker, or workers have no or another unscan.
    """

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client, as_completed
        except ImportError:
            raise MissingDependency(
                "A sweep over machines needs dask.distributed; install it with: pip install 'unscan[dask]'."
            ) from None
        self.address = address
        try:
            self._client: Any = Client(address, timeout=CONNECTING, set_as_default=False)
        except (OSError, ValueError, TypeError) as fault:
            raise InvalidInput(
                f"No dask scheduler answers at {address} ({fault}); start one with `dask scheduler`, and give the "
                "address that it prints."
            ) from None
        try:
            self._check()
        except BaseException:
            self._client.close()
            raise
        self._done: Any = as_completed(loop=self._client.loop)
        self._futures: dict[str, tuple[str, Any]] = {}

    def _check(self) -> None:
        try:
            self._client.wait_for_workers(1, timeout=CONNECTING)
        except TimeoutError:
            raise InvalidInput(
                f"The dask scheduler at {self.address} has no worker; start one with `dask worker {self.address} "
                "--nthreads 1`."
            ) from None
        try:
            versions = self._client.run(_version)
        except Exception as fault:  # whatever the worker met when it looked for unscan
            raise InvalidInput(
                f"A worker of the scheduler at {self.address} has no unscan that it can use ({fault}); install "
                f"unscan {__version__} there."
            ) from None
        for worker, version in versions.items():
            if version != __version__:
                raise InvalidInput(
                    f"The worker {worker} has unscan {version}, here is {__version__}; install the same on both."
                )

    def submit(self, key: str, job: Job, *arguments: Any) -> None:
        """Take a job."""
        future = self._client.submit(_alone, job, *arguments, key=f"unscan-{key}", pure=False)
        self._futures[future.key] = key, future
        self._done.add(future)

    def next(self) -> tuple[str, Outcome]:
        """Wait for any job to be done; return its key and outcome. Raises InvalidInput where the scheduler is lost."""
        future = self._done.next()
        key, _ = self._futures.pop(future.key)
        try:
            outcome: Outcome = future.result()
        except CancelledError:
            raise InvalidInput(
                f"The dask scheduler at {self.address} was lost; what was finished is kept: start the sweep again when "
                "it is back."
            ) from None
        except Exception as fault:  # of dask, as a job tells of its own errors
            outcome = failed(f"dask gave it up: {fault}; try again with --retry-failed")
        future.release()
        return key, outcome

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.cancel([future for _, future in self._futures.values()])
        self._client.close()


_one_at_a_time = Lock()


def _alone(job: Job, *arguments: Any) -> Outcome:
    """Do a job on a worker, which may have threads: training and numbers of threads are matters of the process."""
    with _one_at_a_time:
        from torch import get_num_threads, set_num_threads

        if get_num_threads() != 1:
            set_num_threads(1)
        return job(*arguments)


def _version() -> str:
    return __version__
