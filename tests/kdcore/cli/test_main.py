"""What the command line says when it cannot do as it is told."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from kdcore.cli.components import show_component


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["recipes", "copy", "quickstart", "no/such/copy.yaml"], 2, "error: there is no folder no/such\n"),
        (["schema", "--to", "no/such.json"], 1, "error: no/such.json: No such file or directory\n"),
        (["list", "nonsense"], 2, "error: no kind 'nonsense' (known: modalities,"),
        (["list", "recipes"], 2, "for recipes: kdcore recipes list)"),
        (["describe", "quickstart"], 2, "error: 'quickstart' is a recipe, no component; kdcore recipes list says"),
        (["describe", "zzzz"], 2, "error: no component 'zzzz'; see kdcore list, or kdcore recipes list for recipes"),
        (["new-plugin", "teacher", "soft"], 2, "error: there is no template for the kind 'teacher'"),
        (["sweep", "quickstart"], 2, "error: nothing to vary: --grid"),
        (["predict", "student", "wave.npy", "--top", "0"], 2, "'--top'"),
        (["export", "student", "--output", "student.onnx", "--samples", "0"], 2, "'--samples'"),
    ],
)
def test_a_command_that_cannot_do_as_told_says_so_and_writes_nothing(words, status, said, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "KDCORE_TRACEBACK"}
    done = subprocess.run(
        [sys.executable, "-m", "kdcore", *words],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "Traceback" in done.stderr) == (status, False)
    assert said in done.stderr
    assert not list(tmp_path.iterdir())


def test_whoever_reads_the_output_may_stop_reading():
    with subprocess.Popen(
        [sys.executable, "-m", "kdcore", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout
        assert command.stderr
        command.stdout.close()
        assert command.stderr.read() == ""


def test_one_is_not_several():
    done = subprocess.run(
        [sys.executable, "-m", "kdcore", "validate", "quickstart", "student.copies=2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 teacher, 2 students" in done.stdout


def test_describe_shows_options_once(capsys):
    show_component("soft-target")
    said = capsys.readouterr().out
    assert (said.count("keeps the"), "Args:" in said) == (1, False)
