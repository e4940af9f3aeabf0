"""Read recordings in several processes, where there are so many that starting processes pays.

The processes are new interpreters, not forks, since a fork of a process with threads, as torch has, may hang. They run this
module and nothing of the program that needs them, so that a script without ``if __name__ == "__main__"`` may be that program.
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
"""Environment variable with the number of processes that read recordings; by default one for each core, 1 for none but this."""

TRIAL, WORTH = 0.5, 5.0
"""Seconds of reading after which the rest is estimated, and the least estimate that processes are started for. Each of them
takes half a second to start, or a few where a dataset or a transform of recordings imports torch."""

CHUNK, LARGEST = 0.2, 64
"""Seconds of computing, and the most samples, that a process is given at a time."""

AHEAD = 2
"""Chunks for each process that may be read and not yet be written, which bounds the memory."""

LIGHT = 64 << 20
"""Bytes of a dataset that is sent to processes; one that holds more has its recordings in memory already."""

Task = tuple[Sample, Sequence[int]]
"""A sample, and the positions of the branches that want it."""


def prepared(reader: Reader, tasks: Sequence[Task]) -> Generator[list[Recording], None, None]:
    """Prepare every sample, in order: in this process at first, and in others once they have started, if that pays.

    Recordings, and errors, are the same for any number of processes.

    Args:
        reader: Prepares a sample.
        tasks: The samples.

    Raises:
        DataError: If ``KDCORE_WORKERS`` is not a number.
        Exception: Whatever reading a sample raises here.
    """
    count, began, busy, workers = usable_processes(), time.monotonic(), time.process_time(), None
    try:
        for done, task in enumerate(tasks):
            yield reader.prepare(*task)
            spent = time.monotonic() - began
            left = spent / (done + 1) * (len(tasks) - done - 1)
            if workers is None and count > 1 and spent > TRIAL and left > WORTH:
                workers = Workers.start(reader, count)
                count = 1  # one attempt is enough
            if workers and workers.ready:
                each = max(1e-6, (time.process_time() - busy) / (done + 1))
                size = max(1, min(LARGEST, int(CHUNK / each)))
                yield from workers.prepared(tasks[done + 1 :], size)
                return
    finally:
        if workers:
            workers.close()


def usable_processes() -> int:
    """The number of processes to use; the processes of a distributed run on this machine share the cores."""
    asked = os.environ.get(VARIABLE, "")
    if asked:
        if not asked.isdecimal() or not int(asked):
            raise DataError(f"{VARIABLE}={asked!r}: expected a whole number from 1")
        return int(asked)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


class Workers:
    """Processes that prepare samples.

    Args:
        reader: Prepares them here, where a process cannot.
        processes: The processes, which have just been started.
        message: What they need to load the reader.
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
        """Start processes; None if the reader cannot be sent to them: it is large, or made of what no file defines."""
        try:
            content = _Bounded()
            pickle.dump(replace(reader, branches=[replace(each, on_batches=[]) for each in reader.branches]), content, 5)
        except Exception:  # a plugin's classes may raise anything, and a large dataset raises here
            return None
        made = []
        for _ in range(count):
            words = [sys.executable, "-P", "-m", __name__]
            pipe = subprocess.PIPE
            process = subprocess.Popen(words, stdin=pipe, stdout=pipe, env=_environment(), process_group=0)  # Ctrl-C is for us
            made.append(process)
        return cls(reader, made, (_plugin_files(), _threads(), content.getvalue()))

    def _load(self, process: subprocess.Popen[bytes], message: Any) -> None:
        with suppress(OSError, EOFError, pickle.UnpicklingError):
            _send(process, message)
            if _receive(process):
                self._alive += 1
                self._idle.put(process)

    @property
    def ready(self) -> bool:
        """True once a process has loaded the reader; further ones help as soon as they have."""
        return self._alive > 0

    def prepared(self, tasks: Sequence[Task], size: int) -> Iterator[list[Recording]]:
        """Prepare samples, in order.

        Args:
            tasks: The samples.
            size: Number of samples that a process is given at a time.
        """
        chunks = deque(tasks[first : first + size] for first in range(0, len(tasks), size))
        pending: deque[tuple[Sequence[Task], Future]] = deque()
        while chunks or pending:
            while chunks and len(pending) < AHEAD * len(self._processes):
                chunk = chunks.popleft()
                pending.append((chunk, self._threads.submit(self._asked, chunk)))
            chunk, future = pending.popleft()
            yield from self._received(chunk, future.result())

    def _asked(self, chunk: Sequence[Task]) -> Any:
        """The answer of the next idle process; None if it has died, after which it is not asked again."""
        process = self._idle.get()
        try:
            _send(process, chunk)
            answer = _receive(process)
        except (OSError, EOFError, pickle.UnpicklingError):
            answer = None
        if answer is None:
            process.kill()
            self._alive -= 1
        if answer is not None or self._alive <= 0:  # the dead answer at once, but only while nobody else is left
            self._idle.put(process)
        return answer

    def _received(self, chunk: Sequence[Task], answer: Any) -> Iterator[list[Recording]]:
        """The recordings of a chunk. A sample that a process could not prepare is prepared here, which says what is wrong."""
        recordings, warned = answer or ([None] * len(chunk), [])
        for text, category in warned:
            warn(text, category)
        for task, found in zip(chunk, recordings, strict=True):
            yield self._reader.prepare(*task) if found is None else found

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.kill()
        self._threads.shutdown(cancel_futures=True)
        for thread in self._loading:
            thread.join()
        for process in self._processes:
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):  # what is left to be written has no reader
                    pipe.close()  # type: ignore[union-attr]
            process.wait()


class _Bounded(io.BytesIO):
    """Refuses more than `LIGHT` bytes, before they are in memory."""

    def write(self, content: Any) -> int:
        if self.tell() + memoryview(content).nbytes > LIGHT:
            raise ValueError("too much")
        return super().write(content)


def _environment() -> dict[str, str]:
    """The environment of a process: modules are found where this one finds them."""
    places = [os.path.abspath(each) for each in sys.path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places)}


def _plugin_files() -> list[str]:
    """Files of plugins that are single files, which no import finds."""
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


def serve(asked: BinaryIO, answered: BinaryIO) -> None:
    """Prepare samples until the process that asks for them ends.

    Args:
        asked: Where requests come from: first plugin files, a number of threads and the reader; then lists of tasks.
        answered: Where answers go: whether the reader could be loaded; then recordings and warnings.
    """
    reader = _loaded(*pickle.load(asked))
    _answer(answered, reader is not None)
    while reader is not None:
        try:
            tasks = pickle.load(asked)
        except EOFError:
            return
        _answer(answered, _prepared_here(reader, tasks))


def _loaded(files: Sequence[str], threads: int, content: bytes) -> Reader | None:
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


def _prepared_here(reader: Reader, tasks: Sequence[Task]) -> tuple[list[list[Recording] | None], list[tuple]]:
    """Recordings, None for a sample whose reading fails, and the warnings that reading gave."""
    found: list[list[Recording] | None] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for task in tasks:
            try:
                found.append(reader.prepare(*task))
            except BaseException:  # it is prepared again, and fails, in the process that asked
                found.append(None)
    return found, [(str(each.message), each.category) for each in caught]


def _answer(answered: BinaryIO, message: Any) -> None:
    pickle.dump(message, answered, protocol=5)
    answered.flush()


def _main() -> None:
    answered = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a plugin prints is no answer
    with suppress(BrokenPipeError):  # the process that asks was killed
        serve(sys.stdin.buffer, answered)


if __name__ == "__main__":
    _main()
