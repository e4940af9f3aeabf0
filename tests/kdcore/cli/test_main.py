"""Errors of the command line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from textwrap import dedent

import pytest
from runs import typed

from kdcore import __version__
from kdcore.cli.plugins import describe
from kdcore_losses.dist import StrongerTeacher


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["recipes", "copy", "quickstart", "no/such/copy.yaml"], 2, "error: the folder no/such does not exist\n"),
        (["schema", "--output", "no/such.json"], 1, "error: no/such.json: No such file or directory\n"),
        (["list", "nonsense"], 2, "error: unknown kind of component 'nonsense' (known: modalities,"),
        (["list", "recipes"], 2, "for recipes, use kdcore recipes list)"),
        (["describe", "quickstart"], 2, "error: 'quickstart' is a recipe, not a component; kdcore recipes list describes"),
        (["describe", "zzzz"], 2, "error: no component 'zzzz'; see kdcore list, or kdcore recipes list for recipes"),
        (["new-plugin", "teacher", "soft"], 2, "error: there is no template for the kind 'teacher'"),
        (["rn", "quickstart"], 2, "No such command 'rn'. Did you mean 'run'"),
        (["cache", "clear", "dta"], 2, "error: unknown kind of cached data 'dta' (known: data, teachers, schemas)"),
        (["runs", "rm", "nothing"], 2, "error: no run 'nothing' in"),
        (["sweep", "quickstart"], 2, "error: nothing to vary: use --grid"),
        (["predict", "student", "wave.npy", "--top", "0"], 2, "'--top'"),
        (["export", "student", "--output", "student.onnx", "--samples", "0"], 2, "'--samples'"),
    ],
)
def test_a_command_that_cannot_do_as_told_says_so_and_writes_nothing(words, status, said, tmp_path):
    done = typed(*words, folder=tmp_path, KDCORE_TRACEBACK="")
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


def test_several_recipes_are_checked_at_once_with_all_their_problems():
    done = typed("validate", "quickstart", "sakdn", "seeds=[3]")
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["quickstart", "sakdn"], done.stderr
    done = typed("validate", "quikstart", "sakdn", "quickstart", "losses.soft-target.temprature=3")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "there is no file or shipped recipe 'quikstart'" in done.stderr
    assert done.stderr.count("has no option 'temprature'") == 2
    assert "3 problems; nothing was run." in done.stderr


def test_an_unknown_recipe_without_similar_names():
    done = typed("run", "zzzz")
    assert "no file or shipped recipe 'zzzz' (kdcore recipes list shows the shipped recipes)" in done.stderr


def test_one_is_not_several():
    done = typed("validate", "quickstart", "student.copies=2")
    assert "1 teacher, 2 students" in done.stdout


def test_components_are_listed_with_their_plugin_and_a_description():
    lines = typed("list", "losses").stdout.splitlines()
    [dist] = [line.split(maxsplit=2) for line in lines if line.startswith("  dist ")]
    assert dist[:2] == ["dist", "losses"]
    assert dist[2] == (StrongerTeacher.__doc__ or "").splitlines()[0]


def test_describe_shows_options_once(capsys):
    describe("soft-target")
    said = capsys.readouterr().out
    assert (said.count("keeps the"), "Args:" in said) == (1, False)


@pytest.mark.parametrize("name", ["dkd", "gsdm", "synthetic-motion"])
def test_describe_shows_no_markup(name, capsys):
    describe(name)
    said = capsys.readouterr().out
    assert not re.search(r"math:|``|Raises:", said)
    assert len(said.splitlines()) > 10


@pytest.mark.parametrize("words", [[], ["data"]])
def test_no_command_shows_the_help(words):
    done = typed(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == typed(*words, "--help").stdout
    assert ("Training:" if not words else "Commands:") in done.stdout


@pytest.mark.parametrize("group", ["cache", "models", "recipes", "runs"])
def test_a_group_without_a_command_lists(group, tmp_path, monkeypatch):
    for name in ("KDCORE_CACHE", "KDCORE_RUNS"):  # what other tests write does not change between the two calls
        monkeypatch.setenv(name, str(tmp_path / name))
    listed = typed(group)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert listed.stdout == typed(group, "list").stdout


def test_commands_are_listed_by_section_and_those_of_other_plugins_last():
    import typer
    from typer.testing import CliRunner

    from kdcore.cli.sections import RESULTS, TRAINING, SectionedGroup

    app = typer.Typer(cls=SectionedGroup, rich_markup_mode=None)
    for name, section in {"judge": RESULTS, "mine": None, "learn": TRAINING, "practise": TRAINING, "theirs": "Extra"}.items():
        app.command(name, help=f"Help of {name}.", rich_help_panel=section)(lambda: None)
    app.command("secret", hidden=True)(lambda: None)
    lines = CliRunner().invoke(app, ["--help"]).stdout.splitlines()
    listed = [line.strip() for line in lines[lines.index("Training:") :] if line]
    assert listed == [
        "Training:",
        "learn     Help of learn.",
        "practise  Help of practise.",
        "Results:",
        "judge     Help of judge.",
        "Extra:",
        "theirs    Help of theirs.",
        "Other commands:",
        "mine      Help of mine.",
    ]


@pytest.mark.parametrize("words", [[], ["data"], ["recipes"], ["models"], ["runs"], ["cache"]])
def test_no_description_in_a_list_of_commands_is_cut(words):
    shown = typed(*words, "--help").stdout
    listed = shown.partition("Commands:\n" if words else "Training:\n")[2].partition("\n\n" if words else "kdcore --version")[0]
    assert listed
    assert "..." not in listed


def test_the_help_of_run_shows_examples_on_lines_of_their_own():
    said = typed("run", "--help").stdout
    assert sum(line.strip().startswith("kdcore run ") for line in said.splitlines()) == 3
    assert "kdcore run sakdn 'seeds=[0,1,2]'" in said, "zsh refuses brackets without quotes"


def test_the_version():
    command = [sys.executable, "-m", "kdcore", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"kdcore {__version__}\n"


def test_no_objects_are_searched_for_cycles_after_a_command():
    script = dedent("""
        import atexit, gc, sys
        atexit.register(lambda: print(len(gc.get_objects()) < 1000 < gc.get_freeze_count()))
        sys.argv = ["kdcore", "--version"]
        from kdcore.cli.main import main
        main()
    """)
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "True"


@pytest.mark.parametrize(("command", "work"), [(["quickstart", "--dry-run"], "dry_run"), (["20200101-000000-x"], "resume")])
def test_modules_are_left_out_of_collections_during_a_run(command, work):
    script = dedent(f"""
        import gc, sys
        import kdcore.runs.run
        kdcore.runs.run.{work} = lambda *args, **options: sys.exit(gc.get_freeze_count() < 100_000)
        sys.argv = ["kdcore", {work!r}.replace("dry_run", "run"), *{command!r}]
        from kdcore.cli.main import main
        main()
    """)
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("kdcore run quicks", "quickstart"),
        ("kdcore validate utd-mhad/sak", "utd-mhad/sakdn"),
        ("kdcore describe soft-t", "soft-target"),
        ("kdcore describe losses/soft-t", "losses/soft-target"),
        ("kdcore list class", "class-embeddings"),
        ("kdcore recipes copy quicks", "quickstart"),
    ],
)
def test_completion(line, offered):
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    program = typed(_KDCORE_COMPLETE="complete_bash", **words)
    assert offered in program.stdout.split(), program


@pytest.mark.parametrize("name", ["two-stage", "sensor-csv", "soft-target"])
def test_describe_wraps_at_100_columns_in_a_pipe(name, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    describe(name)
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 100
    assert "…\n" not in said
    monkeypatch.setenv("COLUMNS", "3000")
    describe(name)
    whole = {word for word in capsys.readouterr().out.split() if len(word) < 50}
    assert whole - {"─" * 100} <= {*said.replace(":", "").split(), *said.split()}


TABLES = [["describe", "gsdm"], ["plugins"], ["cache", "list"]]


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"COLUMNS": "40"}, {"COLUMNS": "0"}, {"NO_COLOR": "1"}])
def test_tables_in_any_terminal(environment):
    code = f"""
        import sys
        from kdcore.cli.main import main
        for words in {TABLES}:
            sys.argv = ["kdcore", *words]
            try:
                main()
            except SystemExit as done:
                assert not done.code
    """
    command = [sys.executable, "-c", dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    for title in ("gsdm", "plugin", "cache"):
        assert title in done.stdout
    assert not re.search(r"\w…", done.stdout), "cut short"
    assert "\x1b" not in done.stdout
