"""Share the trials of a sweep among workers through an Optuna database, so that each point is run exactly once.

Every point is enqueued as a waiting trial. A worker claims a trial by changing its state from waiting to running, which the
database grants to one worker only; SQLite does not, so a lock file next to the database does. If a worker dies, its trial is
enqueued again.
"""

from __future__ import annotations

import re
import socket
import sys
import threading
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from kdcore import Metric, UsageError

HEARTBEAT, GRACE, ATTEMPTS = 20, 120, 3
"""Interval of heartbeats in seconds, time without them after which a worker counts as dead, and attempts per point."""

TAKEN = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)


class TrialQueue:
    """The trials of a sweep, as seen by one worker.

    Args:
        url: URL of the database.
        name: Name of the study.
        points: Values of each point; Optuna's sampler chooses those of an empty one.
        folder: Folder for the lock files of workers on this machine.
        metric: Metric that ranks trials.
        prune: Whether trials may be pruned.

    Raises:
        UsageError: If the database cannot be opened.
    """

    def __init__(
        self,
        url: str,
        name: str,
        points: Sequence[Mapping[str, str]],
        folder: Path,
        metric: Metric,
        prune: bool = False,
    ):
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        file = url.removeprefix("sqlite:///") if url.startswith("sqlite:///") else ""
        self._exclusive = FileLock(f"{file}.lock") if file else nullcontext()
        self.storage = _open_storage(url, {"connect_args": {"timeout": 60}} if file else {})
        self.name, self.points, self.prune, self.metric = name, points, prune, metric
        folder.mkdir(parents=True, exist_ok=True)
        self.worker = f"claim:{uuid.uuid4().hex[:12]}"
        self._lock_path = folder / f"{self.worker.removeprefix('claim:')}.worker"
        self._alive = FileLock(self._lock_path)
        self._alive.acquire()
        self._claim_info = {"host": socket.gethostname(), "lock": str(self._lock_path)}
        self.study.set_user_attr("points", len(points))

    @property
    def study(self) -> optuna.Study:
        """The Optuna study, in its current state."""
        pruner = optuna.pruners.MedianPruner(n_startup_trials=5) if self.prune else optuna.pruners.NopPruner()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sampler = optuna.samplers.TPESampler(constant_liar=True)
        return optuna.create_study(
            storage=self.storage,
            study_name=self.name,
            sampler=sampler,
            pruner=pruner,
            direction="maximize" if self.metric.higher_is_better else "minimize",
            load_if_exists=True,
        )

    def similar_studies(self, prefix: str) -> dict[str, Any]:
        """Return the recorded provenance of other studies in the database whose names start with `prefix`."""
        found = optuna.get_all_study_summaries(self.storage)
        others = [each for each in found if each.study_name.startswith(prefix) and each.study_name != self.name]
        return {each.study_name: each.user_attrs["provenance"] for each in others if "provenance" in each.user_attrs}

    def close(self) -> None:
        """Release this worker's lock file."""
        self._alive.release()
        self._lock_path.unlink(missing_ok=True)

    def take(self) -> Trial | None:
        """Claim a waiting trial, or return None if there is none."""
        with self._exclusive:
            self._requeue()
            return self._claim()

    def _claim(self) -> Trial | None:
        study = self.study
        for waiting in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            number = waiting._trial_id
            try:
                self.storage.set_trial_user_attr(
                    number, self.worker, self._claim_info
                )  # first, so that a running trial always has a claim
                self.storage.record_heartbeat(number)
                claimed = self.storage.set_trial_state_values(number, TrialState.RUNNING)
            except UpdateFinishedTrialError:
                continue
            if claimed and self._repeats(waiting):
                self.storage.set_trial_user_attr(number, "repeats", True)
                self.storage.set_trial_state_values(number, TrialState.FAIL)
            elif claimed:
                return Trial(study, number)
        return None

    def best_first(self) -> list[FrozenTrial]:
        """Return the complete trials, best first."""
        done = [each for each in self.trials() if each.state == TrialState.COMPLETE and each.value is not None]
        return sorted(done, key=lambda each: each.value or 0.0, reverse=self.metric.higher_is_better)

    def unfinished(self) -> bool:
        """Return whether any trial is waiting or running on any machine."""
        with self._exclusive:
            self._requeue()
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING, TrialState.RUNNING)))

    def trials(self) -> list[FrozenTrial]:
        """Return the latest trial of each point, in the order of the points."""
        found: dict[int, FrozenTrial] = {}
        for trial in self.study.get_trials(deepcopy=False):
            slot = trial.user_attrs.get("point")
            if slot is not None and "repeats" not in trial.user_attrs and slot < len(self.points):
                found[slot] = trial
        return [found[slot] for slot in sorted(found)]

    @contextmanager
    def heartbeat(self, trial: Trial) -> Iterator[None]:
        """Context manager that records heartbeats while a trial runs."""
        done = threading.Event()

        def beat() -> None:
            while True:
                self.storage.record_heartbeat(trial._trial_id)
                if done.wait(HEARTBEAT):
                    return

        thread = threading.Thread(target=beat, name="kdcore-sweep", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def complete(self, trial: Trial, value: float) -> None:
        """Store the result of a trial."""
        self.storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [value])

    def prune_trial(self, trial: Trial) -> None:
        """Mark a trial as pruned."""
        now = self.storage.get_trial(trial._trial_id)
        values = None if now.last_step is None else [now.intermediate_values[now.last_step]]
        self.storage.set_trial_state_values(trial._trial_id, TrialState.PRUNED, values)

    def fail(self, trial: Trial, error: str) -> None:
        """Mark a trial as failed; it is not tried again."""
        trial.set_user_attr("error", error)
        self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def give_back(self, trial: Trial) -> None:
        """Release a trial that was stopped on request, so that a worker can resume it."""
        trial.set_user_attr("given_back", True)
        self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def _requeue(self) -> None:
        """Release the trials of dead workers, and enqueue every point that has no trial."""
        self._fail_abandoned()
        self._enqueue()

    def _enqueue(self) -> None:
        """Enqueue every point that is neither done nor claimed."""
        study, by_point = self.study, self._by_point()
        for slot, values in enumerate(self.points):
            trials = by_point.get(slot, [])
            lost = [each for each in trials if each.state == TrialState.FAIL and "repeats" not in each.user_attrs]
            killed = [each for each in lost if "given_back" not in each.user_attrs]
            done = any(each.state in TAKEN or "error" in each.user_attrs for each in trials)
            if done or len(killed) >= ATTEMPTS:
                continue
            params: dict[str, Any] = dict(values) or (lost[-1].params if lost else {})
            study.enqueue_trial(params, {"point": slot})

    def _repeats(self, mine: FrozenTrial) -> bool:
        """Return whether two workers enqueued the same point and this is the later trial."""
        same = self._by_point().get(mine.user_attrs.get("point", -1), [])
        return any(each.number < mine.number and each.state in TAKEN for each in same)

    def _by_point(self) -> dict[int, list[FrozenTrial]]:
        found: dict[int, list[FrozenTrial]] = {}
        for trial in self.study.get_trials(deepcopy=False):
            if "point" in trial.user_attrs:
                found.setdefault(trial.user_attrs["point"], []).append(trial)
        return found

    def _fail_abandoned(self) -> None:
        """Fail the running trials of dead workers."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optuna.storages.fail_stale_trials(self.study)
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._abandoned(trial):
                try:
                    self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
                except UpdateFinishedTrialError:
                    continue

    def _abandoned(self, trial: FrozenTrial) -> bool:
        claims = {name: claim for name, claim in trial.user_attrs.items() if name.startswith("claim:")}
        if self.worker in claims:
            return False
        if any(claim["host"] != self._claim_info["host"] for claim in claims.values()):
            return False  # claimed on another machine: heartbeats decide
        return not any(_alive(Path(claim["lock"])) for claim in claims.values())


def _open_storage(url: str, options: dict[str, Any]) -> RDBStorage:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return RDBStorage(_with_driver(url), engine_kwargs=options, heartbeat_interval=HEARTBEAT, grace_period=GRACE)
    except (SQLAlchemyError, ImportError, ValueError) as error:
        raise UsageError(
            f"--storage {_without_password(url)}: {_reason(error)}; "
            "expected sqlite:////FOLDER/FILE.db or postgresql://USER:PASSWORD@HOST/NAME"
        ) from error


def _with_driver(url: str) -> str:
    """Return `url` with psycopg 3 as driver, if no driver is given and SQLAlchemy's default, psycopg2, is not installed."""
    kind, sign, place = url.partition("://")
    usual, installed = (find_spec(name) if sys.modules.get(name, True) else None for name in ("psycopg2", "psycopg"))
    return f"postgresql+psycopg{sign}{place}" if kind == "postgresql" and installed and not usual else url


def _without_password(url: str) -> str:
    kind, sign, place = url.partition("://")
    place = re.sub(r"^([^:/@]*):(.*@|(?!\d+\b).*)", r"\1:***@", place)  # a password may contain @; the host may be missing
    return kind + sign + re.sub(r"(password=)[^&]*", r"\1***", place)


def _reason(error: Exception) -> str:
    """Return why a database cannot be opened, without its URL, which may contain a password."""
    if isinstance(error, NoSuchModuleError):
        return "unknown kind of database"
    if isinstance(error, ArgumentError | ValueError):
        return "not a database URL"
    if isinstance(error, ImportError):
        missing = getattr(error.__cause__, "name", None) or error.name
        advice = ", install it with pip install 'kdcore[postgresql]'" if (missing or "").startswith("psycopg") else ""
        return f"the Python package {missing} is not installed{advice}" if missing else "its driver is not installed"
    cause = error.orig if isinstance(error, DBAPIError) else error
    return " ".join(str(cause).split())


def _alive(path: Path) -> bool:
    """Return whether the worker that holds this lock file is running. The system releases the lock when it exits."""
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
