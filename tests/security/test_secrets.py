"""Passwords are never shown or stored, files of this machine are never sent, and nothing listens."""

from __future__ import annotations

from pathlib import Path

import pytest

import kdcore
from kdcore import Journal
from kdcore.errors import RecipeError
from kdcore.recipe.load import load_recipe
from kdcore_mlflow.sender import Sender
from kdcore_mlflow.tracker import MlflowTracker

ROOT = Path(__file__).resolve().parents[2]

SECRET = "s3cret-p@ss"


@pytest.mark.parametrize("uri", [f"https://me:{SECRET}@host/mlflow", f"postgresql://u:{SECRET}@db:5432/x"])
def test_a_password_in_a_recipe_is_refused_and_not_shown(uri):
    with pytest.raises(RecipeError, match=r"tracking\.uri: must not contain a password") as error:
        load_recipe("quickstart", [f"tracking.uri={uri}"])
    assert "s3cret" not in str(error.value)


def test_a_password_in_the_environment_is_not_stored_or_said(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:9/mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said = []
    tracker = MlflowTracker(None, said.append)
    journal = kdcore.RunJournal(tmp_path / "tracking", tracker, "e")
    journal.start("root", "r")
    journal.commit()
    assert SECRET in tracker.uri, "what is sent goes where it was meant to"
    assert journal.close(timeout=15) is False
    written = b"".join(path.read_bytes() for path in (tmp_path / "tracking").rglob("*") if path.is_file())
    assert b"127.0.0.1:9" in written
    assert "s3cret" not in " ".join([*said, tracker.describe()])
    assert b"s3cret" not in written
    again = MlflowTracker(None)
    again.open(Journal(tmp_path / "tracking"))
    assert SECRET in again.uri


@pytest.mark.parametrize("name", ["../../secret.txt", "/etc/passwd", "artifacts/../../secret.txt"])
def test_a_run_from_elsewhere_sends_no_files_of_here(tmp_path, name):
    folder = tmp_path / "runs" / "tracking"
    (tmp_path / "secret.txt").write_text("secret")
    journal = Journal(folder, "there", "e")
    journal.append({"kind": "start", "run": "root", "parent": None})
    journal.append({"kind": "artifact", "run": "root", "file": name, "to": ""})
    journal.append({"kind": "model", "run": "root", "name": "m", "code": "x.py", "artifacts": {"a": name}})
    journal.commit()

    sent = []

    class Store:
        def start(self, record, parent):
            return "1"

        def send(self, run, records, folder):
            sent.extend(records)

    said = []
    Sender(journal, "there", Store, said.append).send()
    assert sent == []
    assert "outside the folder" in said[0]


def test_nothing_listens_parses_xml_or_calls_home():
    """No module of kdcore or its plugins opens a port, parses XML, or fetches anything over HTTP itself.

    One asks whether the server of pretrained weights answers, when a recipe requests them.
    """
    forbidden = (
        "http.server",
        "socketserver",
        ".listen(",
        "xml.",
        "lxml",
        "urllib.request",
        "import requests",
        "ftplib",
        "telnetlib",
    )
    found = [
        f"{path}: {word}"
        for folder in ("kdcore", "plugins")
        for path in (ROOT / folder).rglob("*.py")
        for word in forbidden
        if word in path.read_text(encoding="utf-8")
    ]
    assert found == [f"{ROOT / 'kdcore' / 'downloads.py'}: urllib.request"]
