"""Commands as a user types them, in processes forked from one that has loaded what is slow to load."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from cheap_runs import leave_out_figures, leave_out_package_scan
from runs import FORKS

TIME_LIMIT = 180


class Shell:
    """A folder to work in, and a folder of installed packages besides those that the tests have.

    Args:
        folder: Where commands are run.
        site: Where `install` puts packages.
    """

    def __init__(self, folder: Path, site: Path):
        self.folder, self.site = folder, site
        self.environment = {
            "KDCORE_RUNS": str(folder / "kdcore-runs"),
            "KDCORE_CACHE": str(site.parent / "cache"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{site.parent / 'mlflow.db'}",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }

    def inside(self, folder: str | Path) -> Shell:
        """The same, in another folder."""
        there = Shell(self.folder / folder, self.site)
        there.environment = {**self.environment, "KDCORE_RUNS": there.environment["KDCORE_RUNS"]}
        return there

    def kdcore(self, *words: str, status: int = 0) -> str:
        """The output of ``kdcore WORDS…``."""
        return self._forked(_kdcore, words, status)

    def pytest(self, *words: str, status: int = 0) -> str:
        """The output of ``pytest WORDS…``."""
        return self._forked(_pytest, words, status)

    def _forked(self, work, words: Sequence[str], status: int) -> str:
        out = self.folder / ".output.txt"
        out.unlink(missing_ok=True)
        process = FORKS.Process(target=_at_work, args=(work, self.environment, self.folder, self.site, words))
        process.start()
        process.join(TIME_LIMIT)
        said = out.read_text(encoding="utf-8")
        assert process.exitcode == status, f"{' '.join(words)}: exit status {process.exitcode}\n{said}"
        return said

    def build(self, project: Path, to: Path, *kinds: str) -> list[Path]:
        """A project's wheel, or what `kinds` names, made as ``pip`` and ``build`` have its backend make them."""
        for kind in kinds or ("wheel",):
            self._forked(_build, (str(project), str(to), kind), 0)
        return sorted(to.iterdir())

    def install(self, *wheels: Path) -> None:
        """Install wheels without what they need, which is there."""
        words = ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check", "--upgrade", "--target", str(self.site)]
        self._python("-m", "pip", "install", *words, *map(str, wheels))

    def install_in_place(self, project: Path) -> None:
        """Install a project so that changes to it count at once."""
        wheels = self.build(project, self.site.parent / "wheels")
        self.install(*wheels)
        [package] = [file.parent for file in project.glob("*/__init__.py")]
        shutil.rmtree(self.site / package.name)
        (self.site / package.name).symlink_to(package)

    def _python(self, *words: str) -> None:
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=TIME_LIMIT, cwd=self.folder)
        assert done.returncode == 0, done.stdout + done.stderr


def tags_in_mlflow(shell: Shell, experiment: str) -> dict[str, str]:
    """Tags of the last recipe tracked in an experiment."""
    from mlflow import MlflowClient

    client = MlflowClient(shell.environment["MLFLOW_TRACKING_URI"])
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return next(run.data.tags for run in client.search_runs([found.experiment_id]) if "recipe_hash" in run.data.tags)


def _at_work(work, environment: Mapping[str, str], folder: Path, site: Path, words: Sequence[str]) -> None:
    os.environ.update(environment)
    os.chdir(folder)
    sys.path.insert(0, str(site))
    file = os.open(folder / ".output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(file, number)
        setattr(sys, name, open(number, "w", encoding="utf-8", buffering=1, closefd=False))  # noqa: SIM115
    leave_out_package_scan()
    leave_out_figures()
    work(list(words))


def _kdcore(words: list[str]) -> None:
    from kdcore.cli.main import main

    sys.argv = ["kdcore", *words]
    main()


def _build(words: list[str]) -> None:
    project, to, kind = words
    Path(to).mkdir(parents=True, exist_ok=True)
    os.chdir(project)
    backend = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["build-system"]["build-backend"]
    getattr(import_module(backend), f"build_{kind}")(to)


def _pytest(words: list[str]) -> None:
    import pytest

    sys.exit(pytest.main([*words, "-p", "no:cacheprovider"]))
