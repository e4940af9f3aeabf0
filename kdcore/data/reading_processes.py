"""Reading of recordings in worker processes, if there are enough of them to justify the start-up time.

Workers are new interpreters rather than forks, since a fork of a process with threads, which torch starts, may deadlock. They
run this module and not the main program, so that scripts need no ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import io
import os
import pickle
import queue
import subprocess
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from kdcore.contracts.dataset import Sample
from kdcore.data.reading import Reader, Recording
from kdcore.errors import DataError
from kdcore.user_warnings import warn

VARIABLE = "KDCORE_WORKERS"
"""Environment variable with the number of processes that read recordings. Default: one per core; 1 disables workers."""

TRIAL, WORTH = 0.5, 5.0
"""Time after which the remaining time is estimated, and minimum estimate for starting workers, in seconds. A worker takes half
a second to start, or a few seconds if a dataset or transform imports torch."""

CHUNK, LARGEST = 0.2, 64
"""Target computing time of a chunk in seconds, and its maximum number of samples."""

AHEAD = 2
"""Maximum number of pending chunks per worker, which limits the memory."""

LIGHT = 64 << 20
"""Maximum size in bytes of a pickled reader. A larger dataset already has its recordings in memory."""

Task = tuple[Sample, Sequence[int]]
"""A sample, and the indices of the branches that need it."""


def prepared(reader: Reader, tasks: Sequence[Task]) -> Generator[list[Recording], None, None]:
    """Prepare all samples in order: in this process first, and in workers once they have started.

    Recordings and errors do not depend on the number of processes.

    Args:
        reader: Reader that prepares a sample.
        tasks: Samples to prepare.

    Raises:
        DataError: If ``KDCORE_WORKERS`` is not a positive integer.
        Exception: Any exception raised by reading a sample.
    """
    count, began, busy, workers = usable_processes(), time.monotonic(), time.process_time(), None
    try:
        for done, task in enumerate(tasks):
            yield reader.prepare(*task)
            spent = time.monotonic() - began
            left = spent / (done + 1) * (len(tasks) - done - 1)
            if workers is None and count > 1 and spent > TRIAL and left > WORTH:
                workers = Workers.start(reader, count)
                count = 1  # try only once
            if workers and workers.ready:
                each = max(1e-6, (time.process_time() - busy) / (done + 1))
                size = max(1, min(LARGEST, int(CHUNK / each)))
                yield from workers.prepared(tasks[done + 1 :], size)
                return
    finally:
        if workers:
            workers.close()


def usable_processes() -> int:
    """Return the number of processes to use. Processes of a distributed run on this machine share the cores."""
    configured = os.environ.get(VARIABLE, "")
    if configured:
        if not configured.isdecimal() or not int(configured):
            raise DataError(f"{VARIABLE}={configured!r}: must be a positive integer")
        return int(configured)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


class Workers:
    """Worker processes that prepare samples.

    Args:
        reader: Reader for samples that a worker fails to prepare.
        processes: Newly started processes.
        message: First message to the workers: plugin files, number of threads, and the pickled reader.
    """

    def __init__(self, reader: Reader, processes: Sequence[subprocess.Popen[bytes]], message: Any):
        self._reader, self._processes = reader, processes
        self._threads = ThreadPoolExecutor(len(processes), "kdcore-reading")
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._alive = 0
        self._loading = [threading.Thread(target=self._load, args=(each, message), daemon=True) for each in processes]
        for thread in self._loading:
            thread.start()

    @classmethod
    def start(cls, reader: Reader, count: int) -> Workers | None:
        """Start workers; return None if the reader cannot be pickled or is too large."""
        try:
            content = _Bounded()
            pickle.dump(replace(reader, branches=[replace(each, on_batches=[]) for each in reader.branches]), content, 5)
        except Exception:  # classes of plugins may raise anything; _Bounded raises ValueError
            return None
        processes = []
        for _ in range(count):
            command = [sys.executable, "-P", "-m", __name__]
            pipe = subprocess.PIPE
            process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, env=_environment(), process_group=0
            )  # Ctrl-C reaches the main process only
            processes.append(process)
        return cls(reader, processes, (_plugin_files(), _threads(), content.getvalue()))

    def _load(self, process: subprocess.Popen[bytes], message: Any) -> None:
        with suppress(OSError, EOFError, pickle.UnpicklingError):
            _send(process, message)
            if _receive(process):
                self._alive += 1
                self._idle.put(process)

    @property
    def ready(self) -> bool:
        """True once a worker has loaded the reader. Others join when they have loaded it."""
        return self._alive > 0

    def prepared(self, tasks: Sequence[Task], size: int) -> Iterator[list[Recording]]:
        """Prepare samples in order.

        Args:
            tasks: Samples to prepare.
            size: Number of samples per chunk.
        """
        chunks = deque(tasks[first : first + size] for first in range(0, len(tasks), size))
        pending: deque[tuple[Sequence[Task], Future]] = deque()
        while chunks or pending:
            while chunks and len(pending) < AHEAD * len(self._processes):
                chunk = chunks.popleft()
                pending.append((chunk, self._threads.submit(self._request, chunk)))
            chunk, future = pending.popleft()
            yield from self._collect(chunk, future.result())

    def _request(self, chunk: Sequence[Task]) -> Any:
        """Return the response of the next idle worker; None if it has died, after which it is not used again."""
        process = self._idle.get()
        try:
            _send(process, chunk)
            response = _receive(process)
        except (OSError, EOFError, pickle.UnpicklingError):
            response = None
        if response is None:
            process.kill()
            self._alive -= 1
        if response is not None or self._alive <= 0:  # a dead worker fails at once; reuse it only if none is alive
            self._idle.put(process)
        return response

    def _collect(self, chunk: Sequence[Task], response: Any) -> Iterator[list[Recording]]:
        """Yield the recordings of a chunk. Samples that a worker could not prepare are prepared here and raise the error."""
        recordings, caught = response or ([None] * len(chunk), [])
        for text, category in caught:
            warn(text, category)
        for task, prepared_sample in zip(chunk, recordings, strict=True):
            yield self._reader.prepare(*task) if prepared_sample is None else prepared_sample

    def close(self) -> None:
        """Kill the workers and wait for them."""
        for process in self._processes:
            process.kill()
        self._threads.shutdown(cancel_futures=True)
        for thread in self._loading:
            thread.join()
        for process in self._processes:
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):  # buffered data has no reader
                    pipe.close()  # type: ignore[union-attr]
            process.wait()


class _Bounded(io.BytesIO):
    """A buffer that raises an error before it exceeds `LIGHT` bytes."""

    def write(self, content: Any) -> int:
        if self.tell() + memoryview(content).nbytes > LIGHT:
            raise ValueError("too much")
        return super().write(content)


def _environment() -> dict[str, str]:
    """Return the environment of a worker, with the module search path of this process."""
    paths = [os.path.abspath(each) for each in sys.path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _plugin_files() -> list[str]:
    """Return the paths of loaded plugin files, which cannot be imported by name."""
    return [
        str(module.__file__) for module in list(sys.modules.values()) if "__fingerprint__" in getattr(module, "__dict__", {})
    ]


def _threads() -> int:
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else 0


def _send(process: subprocess.Popen[bytes], message: Any) -> None:
    assert process.stdin is not None
    pickle.dump(message, process.stdin, protocol=5)
    process.stdin.flush()


def _receive(process: subprocess.Popen[bytes]) -> Any:
    assert process.stdout is not None
    return pickle.load(process.stdout)


def serve(requests: BinaryIO, responses: BinaryIO) -> None:
    """Prepare samples until the main process exits.

    Args:
        requests: Stream of requests: first plugin files, number of threads and reader, then lists of tasks.
        responses: Stream of responses: first whether the reader could be loaded, then recordings and warnings.
    """
    reader = _load_reader(*pickle.load(requests))
    _respond(responses, reader is not None)
    while reader is not None:
        try:
            tasks = pickle.load(requests)
        except EOFError:
            return
        _respond(responses, _prepare_all(reader, tasks))


def _load_reader(files: Sequence[str], threads: int, content: bytes) -> Reader | None:
    from kdcore.plugin.files import import_file

    try:
        for file in files:
            import_file(Path(file))
        reader = pickle.loads(content)
    except BaseException:  # a plugin may raise anything
        return None
    if threads and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    return reader


def _prepare_all(reader: Reader, tasks: Sequence[Task]) -> tuple[list[list[Recording] | None], list[tuple]]:
    """Return the recordings, None for each sample that cannot be read, and each warning once."""
    recordings: list[list[Recording] | None] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")  # a warning from the same line once for each chunk: passing them on costs time
        for task in tasks:
            try:
                recordings.append(reader.prepare(*task))
            except BaseException:  # the main process tries again, and raises the error
                recordings.append(None)
    return recordings, [(str(each.message), each.category) for each in caught]


def _respond(responses: BinaryIO, message: Any) -> None:
    pickle.dump(message, responses, protocol=5)
    responses.flush()


def _main() -> None:
    responses = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of plugins must not mix with responses
    with suppress(BrokenPipeError):  # the main process was killed
        serve(sys.stdin.buffer, responses)


if __name__ == "__main__":
    _main()
