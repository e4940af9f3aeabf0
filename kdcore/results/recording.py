"""Writes what a run tracks into its journal, and keeps copies of its files beside it."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kdcore.results.journal import Journal

PARAM_LIMIT, TAG_LIMIT, DIGEST_LIMIT = 6000, 5000, 36
"""How many characters MLflow takes."""

Status = Literal["FINISHED", "FAILED", "KILLED"]


class Recorder:
    """What can be tracked of a run. Runs go by local names such as ``root`` and ``seed-0``.

    Args:
        journal: Where records are written.
    """

    def __init__(self, journal: Journal):
        self.folder, self._journal = journal.path.parent, journal

    def start(
        self,
        run: str,
        name: str,
        parent: str | None = None,
        tags: Mapping[str, object] | None = None,
        params: Mapping[str, object] | None = None,
    ) -> None:
        """Begin a run, or go on with it where it has been begun before.

        Args:
            run: What it is called here.
            name: What it is called in MLflow.
            parent: The run it belongs to, by its local name.
            tags: Tags of the run.
            params: Its parameters.
        """
        self._record("start", run, name=name, parent=parent, tags=_texts(tags or {}, TAG_LIMIT))
        self.params(run, params or {})

    def metrics(self, run: str, values: Mapping[str, float], step: int) -> None:
        """Record numbers of one step."""
        self._record("metrics", run, step=int(step), values={_key(name): float(value) for name, value in values.items()})

    def params(self, run: str, values: Mapping[str, object]) -> None:
        """Record parameters; one too long for MLflow is cut short there, and kept whole as an artifact."""
        if values:
            self._record("params", run, values=_texts(values, PARAM_LIMIT))
        for name, value in values.items():
            if len(str(value)) > PARAM_LIMIT:
                file = self._kept(run, "params") / f"{_key(name).replace('/', '.')}.txt"
                file.write_text(str(value), encoding="utf-8")
                self._record("artifact", run, file=self._relative(file), to="params")

    def tags(self, run: str, values: Mapping[str, object]) -> None:
        """Record tags; a later value replaces an earlier one."""
        self._record("tags", run, values=_texts(values, TAG_LIMIT))

    def artifact(self, run: str, path: Path, folder: str = "") -> None:
        """Record a file or folder; it is copied at once, so the original may change or go."""
        self._record("artifact", run, file=self._relative(_copy(path, self._kept(run, folder))), to=folder)

    def dataset(self, run: str, name: str, digest: str, source: str, context: str) -> None:
        """Record what data a run used, and as what (`context`: training, testing …)."""
        self._record("dataset", run, name=name, digest=digest[:DIGEST_LIMIT], source=source, context=context)

    def model(
        self,
        run: str,
        name: str,
        code: Path,
        artifacts: Mapping[str, Path],
        input_example: np.ndarray,
        pip_requirements: Sequence[str],
    ) -> None:
        """Record a model that ``mlflow.pyfunc.load_model("runs:/<run>/<name>")`` can load.

        Args:
            run: The run that made it.
            name: Of the model.
            code: A file that ends in ``mlflow.models.set_model(…)``. MLflow is silent about its ``predict`` if that
                annotates the input as ``numpy.ndarray``.
            artifacts: What `code` finds in ``context.artifacts``.
            input_example: An input; the signature is made from it and from the model's answer.
            pip_requirements: What `code` needs.
        """
        place = self._kept(run, f"models/{name}")
        np.save(place / "input_example.npy", input_example)
        kept = {key: self._relative(_copy(path, self._kept(run, f"models/{name}/{key}"))) for key, path in artifacts.items()}
        self._record(
            "model",
            run,
            name=name,
            code=self._relative(_copy(code, place)),
            artifacts=kept,
            input_example=self._relative(place / "input_example.npy"),
            pip_requirements=list(pip_requirements),
        )

    def finish(self, run: str, status: Status = "FINISHED") -> None:
        """End a run. Where it was cut short, ``rewind(position)`` before drops what a resumed run does again."""
        self._record("finish", run, status=status)

    def _record(self, kind: str, run: str, **content: Any) -> None:
        self._journal.append({"kind": kind, "run": run, "time": time.time_ns() // 1_000_000, **content})

    def _kept(self, run: str, folder: str) -> Path:
        place = self.folder / "artifacts" / run / folder
        place.mkdir(parents=True, exist_ok=True)
        return place

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def _key(name: str) -> str:
    return re.sub(r"[^\w.\-/ ]", "_", name, flags=re.ASCII)[:250]


def _texts(values: Mapping[str, object], limit: int) -> dict[str, str]:
    texts = {_key(name): str(value) for name, value in values.items()}
    return {name: text if len(text) <= limit else text[: limit - 1] + "…" for name, text in texts.items()}


def _copy(path: Path, folder: Path) -> Path:
    copy = folder / path.name
    if path.is_dir():
        shutil.copytree(path, copy, dirs_exist_ok=True)
    elif path.resolve() != copy.resolve():
        temporary = copy.with_name(f"{copy.name}.new")
        shutil.copyfile(path, temporary)
        temporary.replace(copy)
    return copy
