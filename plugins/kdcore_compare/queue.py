"""The trials of a sweep, shared out among workers through the sweep's database: each point is run, and none twice.

Every point is a waiting trial from the start. A worker makes one its own by changing its state from waiting to running, which
the database lets only one worker do; SQLite does not, so there a lock beside the file sees to it. A point whose worker is gone
waits again.
"""

from __future__ import annotations

import re
import socket
import threading
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from kdcore import UsageError

BEAT, GRACE, ATTEMPTS = 20, 120, 3
"""Seconds between two signs of life, and without one until a worker elsewhere is gone; times a point may lose its worker."""

TAKEN = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)


class Queue:
    """One worker's view of a sweep.

    Args:
        url: Of the database.
        name: Of the sweep.
        points: Values of each point; a point without any is chosen by the sampler when its turn comes.
        folder: Where workers of this machine show that they live.
        prune: Whether trials may be pruned.

    Raises:
        UsageError: If there can be no database at `url`.
    """

    def __init__(self, url: str, name: str, points: Sequence[Mapping[str, str]], folder: Path, prune: bool = False):
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        file = url.removeprefix("sqlite:///") if url.startswith("sqlite:///") else ""
        self._alone = FileLock(f"{file}.lock") if file else nullcontext()
        self.storage = _opened(url, {"connect_args": {"timeout": 60}} if file else {})
        self.name, self.points, self.prune = name, points, prune
        folder.mkdir(parents=True, exist_ok=True)
        self.worker = f"claim:{uuid.uuid4().hex[:12]}"
        self._sign = folder / f"{self.worker.removeprefix('claim:')}.worker"
        self._alive = FileLock(self._sign)
        self._alive.acquire()
        self._me = {"host": socket.gethostname(), "sign": str(self._sign)}
        self.study.set_user_attr("points", len(points))

    @property
    def study(self) -> optuna.Study:
        """The sweep as it is now."""
        pruner = optuna.pruners.MedianPruner(n_startup_trials=5) if self.prune else optuna.pruners.NopPruner()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sampler = optuna.samplers.TPESampler(constant_liar=True)
        return optuna.create_study(
            storage=self.storage,
            study_name=self.name,
            sampler=sampler,
            pruner=pruner,
            direction="maximize",
            load_if_exists=True,
        )

    def close(self) -> None:
        """Say that this worker is gone."""
        self._alive.release()
        self._sign.unlink(missing_ok=True)

    def take(self) -> Trial | None:
        """A point for this worker; None if none waits."""
        with self._alone:
            self._refresh()
            return self._claim()

    def _claim(self) -> Trial | None:
        study = self.study
        for waiting in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            number = waiting._trial_id
            try:
                self.storage.set_trial_user_attr(number, self.worker, self._me)  # first, so that no running trial is nobody's
                self.storage.record_heartbeat(number)
                mine = self.storage.set_trial_state_values(number, TrialState.RUNNING)
            except UpdateFinishedTrialError:
                continue
            if mine and self._repeats(waiting):
                self.storage.set_trial_user_attr(number, "repeats", True)
                self.storage.set_trial_state_values(number, TrialState.FAIL)
            elif mine:
                return Trial(study, number)
        return None

    def unfinished(self) -> bool:
        """Whether any point still waits or runs, here or elsewhere."""
        with self._alone:
            self._refresh()
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING, TrialState.RUNNING)))

    def trials(self) -> list[FrozenTrial]:
        """What is known of every point that has been begun, one trial each, in their order."""
        found: dict[int, FrozenTrial] = {}
        for trial in self.study.get_trials(deepcopy=False):
            slot = trial.user_attrs.get("point")
            if slot is not None and "repeats" not in trial.user_attrs and slot < len(self.points):
                found[slot] = trial
        return [found[slot] for slot in sorted(found)]

    @contextmanager
    def working(self, trial: Trial) -> Iterator[None]:
        """Give signs of life while a trial runs."""
        done = threading.Event()

        def beat() -> None:
            while True:
                self.storage.record_heartbeat(trial._trial_id)
                if done.wait(BEAT):
                    return

        thread = threading.Thread(target=beat, name="kdcore-sweep", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def finish(self, trial: Trial, value: float) -> None:
        """The trial's result."""
        self.storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [value])

    def pruned(self, trial: Trial) -> None:
        """The trial was stopped early."""
        now = self.storage.get_trial(trial._trial_id)
        values = None if now.last_step is None else [now.intermediate_values[now.last_step]]
        self.storage.set_trial_state_values(trial._trial_id, TrialState.PRUNED, values)

    def failed(self, trial: Trial, error: str) -> None:
        """The trial cannot be run; nobody tries again."""
        trial.set_user_attr("error", error)
        self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def give_back(self, trial: Trial) -> None:
        """The trial was stopped on request; somebody goes on with it later."""
        trial.set_user_attr("given_back", True)
        self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def _refresh(self) -> None:
        self._retire()
        self._fill()

    def _fill(self) -> None:
        """Let every point wait that nobody has or has had."""
        study, by_point = self.study, self._by_point()
        for slot, values in enumerate(self.points):
            trials = by_point.get(slot, [])
            lost = [each for each in trials if each.state == TrialState.FAIL and "repeats" not in each.user_attrs]
            unlucky = [each for each in lost if "given_back" not in each.user_attrs]
            settled = any(each.state in TAKEN or "error" in each.user_attrs for each in trials)
            if settled or len(unlucky) >= ATTEMPTS:
                continue
            params: dict[str, Any] = dict(values) or (lost[-1].params if lost else {})
            study.enqueue_trial(params, {"point": slot})

    def _repeats(self, mine: FrozenTrial) -> bool:
        """Whether two workers let one point wait, and this is the later one."""
        same = self._by_point().get(mine.user_attrs.get("point", -1), [])
        return any(each.number < mine.number and each.state in TAKEN for each in same)

    def _by_point(self) -> dict[int, list[FrozenTrial]]:
        found: dict[int, list[FrozenTrial]] = {}
        for trial in self.study.get_trials(deepcopy=False):
            if "point" in trial.user_attrs:
                found.setdefault(trial.user_attrs["point"], []).append(trial)
        return found

    def _retire(self) -> None:
        """Let go of what workers that are gone have begun."""
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
        claims = {name: told for name, told in trial.user_attrs.items() if name.startswith("claim:")}
        if self.worker in claims:
            return False
        if any(told["host"] != self._me["host"] for told in claims.values()):
            return False  # somebody elsewhere: signs of life in the database tell
        return not any(_alive(Path(told["sign"])) for told in claims.values())


def _opened(url: str, options: dict[str, Any]) -> RDBStorage:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return RDBStorage(url, engine_kwargs=options, heartbeat_interval=BEAT, grace_period=GRACE)
    except (SQLAlchemyError, ImportError, ValueError) as error:
        raise UsageError(
            f"--storage {_without_password(url)}: {_trouble(error)}; "
            "write sqlite:////FOLDER/FILE.db or postgresql://USER:PASSWORD@HOST/NAME"
        ) from error


def _without_password(url: str) -> str:
    kind, sign, place = url.partition("://")
    place = re.sub(r"^([^:/@]*):(.*@|(?!\d+\b).*)", r"\1:***@", place)  # a password may have an @ in it; a host may be missing
    return kind + sign + re.sub(r"(password=)[^&]*", r"\1***", place)


def _trouble(error: Exception) -> str:
    """What is wrong with a database's address; never a part of the address, which may hold a password."""
    if isinstance(error, NoSuchModuleError):
        return "there is no such kind of database"
    if isinstance(error, ArgumentError | ValueError):
        return "not the address of a database"
    if isinstance(error, ImportError):
        missing = getattr(error.__cause__, "name", None) or error.name
        return f"the Python package {missing} is not installed" if missing else "its driver is not installed"
    told = error.orig if isinstance(error, DBAPIError) else error
    return " ".join(str(told).split())


def _alive(sign: Path) -> bool:
    """Whether the worker that holds this file still runs: the system lets go of it however the worker ends."""
    if not sign.exists():
        return False
    lock = FileLock(sign)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
