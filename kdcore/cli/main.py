"""The command line. What is slow to import is imported by the command that needs it."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from kdcore import __version__
from kdcore.errors import KdcoreDeprecationWarning, KdcoreError, RecipeError, UsageError

PLUGIN_FILES = "Every command takes --plugin FILE.py, once or more: a plugin to use that is not installed."

app = typer.Typer(
    name="kdcore",
    help=f"Cross-modal knowledge distillation from declarative recipes. Version {__version__}.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: rich would take as long to load as all the rest
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=PLUGIN_FILES,
)
data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look at recordings before training on them.")
recipes_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The recipes that come with kdcore.")
app.add_typer(data_app, name="data")
app.add_typer(recipes_app, name="recipes")

RecipeArgument = Annotated[str, typer.Argument(help="A recipe's file, or the name of a shipped one.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Changes to it, as key=value: losses.soft-target.weight=0.5")]


@app.command(epilog=PLUGIN_FILES)
def run(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="One batch through everything; nothing is trained.")] = False,
) -> None:
    """Run a recipe: train teachers and student, evaluate, report, track."""
    from kdcore.cli.console import ConsoleListener, show_preflight, stderr
    from kdcore.runs.run import dry_run as rehearse
    from kdcore.runs.run import run as start

    with ConsoleListener(stderr()) as listener:
        if dry_run:
            if found := rehearse(recipe, overrides or [], listener):
                show_preflight(found)
            return
        result = start(recipe, overrides or [], listener, ["kdcore", "run", recipe, *(overrides or []), *_plugin_files()])
    _show(result)


@app.command()
def resume(run_id: Annotated[str, typer.Argument(help="Id of a stopped run, or its folder.")]) -> None:
    """Go on with a run that was stopped."""
    from kdcore.cli.console import ConsoleListener, stderr
    from kdcore.runs.run import resume as go_on

    with ConsoleListener(stderr()) as listener:
        result = go_on(run_id, listener)
    _show(result)


def _show(result) -> None:
    if result is not None:
        from kdcore.cli.console import show_result

        show_result(result)


@app.command(epilog=PLUGIN_FILES)
def validate(recipe: RecipeArgument, overrides: Overrides = None) -> None:
    """Check a recipe without running anything or opening any data."""
    from kdcore.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    size = ", ".join(
        f"{len(each)} {what}{'' if len(each) == 1 else 's'}"
        for what, each in (("teacher", loaded.teachers), ("student", loaded.student_specs))
    )
    print(f"{recipe}: valid ({loaded.name}, {size}, hash {loaded.hash[:12]})")


@app.command("list", epilog=PLUGIN_FILES)
def list_components(
    kind: Annotated[str, typer.Argument(help="losses, encoders, transforms …; everything if left out.")] = "",
) -> None:
    """List what the installed plugins provide."""
    from kdcore.plugin.manager import plugin_manager
    from kdcore.plugin.registry import KINDS

    registry = plugin_manager().registry
    wanted = [each for each, plural in KINDS.items() if not kind or kind.replace("-", "_") in (each, plural)]
    if not wanted:
        raise UsageError(
            f"no kind {kind!r} (known: {', '.join(KINDS.values()).replace('_', '-')}; for recipes: kdcore recipes list)"
        )
    for each in wanted:
        entries = list(registry.entries(each))
        width = max((len(entry.name) for entry in entries), default=0)
        print(f"{KINDS[each].replace('_', '-')}:")
        for entry in entries:
            clash = f"  (several have it: write {entry.qualified})" if len(registry.claims(each, entry.name)) > 1 else ""
            print(f"  {entry.name:<{width}}  {entry.plugin}{clash}")


@app.command(epilog=PLUGIN_FILES)
def describe(name: Annotated[str, typer.Argument(help="A component's name, or plugin/name.")]) -> None:
    """Show a component: what it does, its options, and where it comes from."""
    from kdcore.cli.components import show_component

    show_component(name)


@app.command()
def plugins(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """List the plugins found, with what they provide and, for a broken one, the reason."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from kdcore.cli.components import show_plugins

        show_plugins(as_json)


@app.command("check-plugin")
def check_plugin(
    name: Annotated[str, typer.Argument(help="A plugin, a component, or plugin/component.")],
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show every check, not only those that fail.")] = False,
) -> None:
    """Make the conformance checks on everything that a plugin provides."""
    from kdcore.testing.shell import check_and_print

    if not check_and_print(name, verbose):
        raise typer.Exit(1)


@app.command()
def evaluate(
    run_id: Annotated[str, typer.Argument(help="A finished run's id, folder, or recipe's name.")],
) -> None:
    """Evaluate a run's saved students again on the samples it was evaluated on."""
    from kdcore.runs.evaluation import evaluate_run

    for line in evaluate_run(run_id):
        print(line)


@app.command()
def predict(
    student: Annotated[
        str,
        typer.Argument(help="A saved student's folder, an exported .onnx file, or a run: its id, folder or recipe's name."),
    ],
    files: Annotated[
        list[str], typer.Argument(help="Recordings; modality=file for a student of several modalities; - for standard input.")
    ],
    dataset: Annotated[str, typer.Option(help="Dataset whose file format they have; the student's own by default.")] = "",
    rate: Annotated[float | None, typer.Option(help="Samples per second of .npy files and plain tables.")] = None,
    units: Annotated[str, typer.Option(help="Units of .npy files and plain tables, such as g.")] = "",
    top: Annotated[int, typer.Option(help="Number of classes to show.", min=1)] = 3,
    seed: Annotated[int | None, typer.Option(help="Seed of a run; the first by default.")] = None,
    ensemble: Annotated[str, typer.Option(help="Combine several students by average or max.")] = "average",
    window: Annotated[float | None, typer.Option(help="Window length in seconds.")] = None,
    hop: Annotated[float | None, typer.Option(help="Seconds between the starts of two windows; the window by default.")] = None,
    smoothing: Annotated[int, typer.Option(help="Number of windows to smooth over.", min=1)] = 1,
    majority: Annotated[bool, typer.Option("--majority", help="Smooth by majority vote instead of the mean.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write all probabilities to a .csv or .json file.")
    ] = None,
) -> None:
    """Classify recordings with a saved student."""
    from kdcore.deploy.predict import STANDARD_INPUT, predict_files, predict_stream, write_predictions
    from kdcore.deploy.streaming import Smoothing, chosen_window

    found = _predictor(student, seed, ensemble)
    smooth = Smoothing(smoothing, "majority" if majority else "mean")
    windows = chosen_window(window, hop, found.window)
    if windows is None and (smoothing > 1 or majority):
        raise UsageError(f"--{'majority' if majority else 'smoothing'} requires --window")
    if STANDARD_INPUT not in files:
        predictions = predict_files(found, files, dataset, rate, windows, smooth, units)
    elif len(files) > 1 or dataset:
        raise UsageError("standard input (-) is a single plain table")
    else:
        predictions = predict_stream(found, sys.stdin, windows, rate, smooth, units)
    write_predictions(predictions, output, top)


def _predictor(student: str, seed: int | None, ensemble: str):
    """A saved student, an ensemble, or an exported ONNX file, which needs no PyTorch."""
    if student.endswith(".onnx"):
        from kdcore.deploy.onnx_student import load_onnx

        return load_onnx(student)
    from kdcore.deploy.bundle import load_predictor
    from kdcore.runs.saved_students import find_student

    return load_predictor(find_student(student, seed), ensemble)  # type: ignore[arg-type]  # it checks the rule


@app.command()
def sync(run_id: Annotated[str, typer.Argument(help="Id of a run, or its folder.")]) -> None:
    """Send what a run tracked while MLflow could not be reached."""
    from kdcore.results.tracking import sync as send
    from kdcore.runs.paths import find_run

    path = Path(run_id)
    folder = path if (path / "journal.jsonl").exists() else find_run(run_id) / "tracking"
    print(f"{send(folder)} records sent")


@data_app.command("check")
def data_check(recipe: RecipeArgument, overrides: Overrides = None) -> None:
    """Count samples by class, subject and part, read every recording, and look for leaks."""
    from kdcore.cli.console import show_data
    from kdcore.data.check import check

    found = check(recipe, overrides or [])
    show_data(found)
    if found.broken or found.leaks or found.windowless:
        raise typer.Exit(1)


@recipes_app.command("list")
def list_recipes() -> None:
    """List the shipped recipes, each with what it is."""
    from kdcore.recipe.shipped import list_recipes as shipped

    recipes = shipped()
    width = max(map(len, recipes))
    for name, about in recipes.items():
        print(f"{name:<{width}}  {about}")


@recipes_app.command("copy")
def copy_recipe(
    name: Annotated[str, typer.Argument(help="As kdcore recipes list shows it.")],
    to: Annotated[Path, typer.Argument(help="File or folder.")] = Path(),
) -> None:
    """Copy a shipped recipe, to change it."""
    from kdcore.recipe.shipped import find_recipe, for_copying

    source = find_recipe(name)
    target = to / source.name if to.is_dir() else to
    if target.exists():
        raise UsageError(f"{target} exists already")
    if not target.parent.is_dir():
        raise UsageError(f"there is no folder {target.parent}")
    target.write_text(for_copying(source), encoding="utf-8")
    print(target)


@app.command()
def schema(to: Annotated[Path | None, typer.Option(help="File to write; standard output by default.")] = None) -> None:
    """Print the JSON Schema of recipes, with the options of all installed components: for editors."""
    import json

    from kdcore.recipe.json_schema import recipe_schema

    text = json.dumps(recipe_schema(), indent=1, ensure_ascii=False)
    if to is None:
        print(text)
    else:
        to.write_text(text + "\n", encoding="utf-8")
        print(to)


@app.command("new-plugin")
def new_plugin(
    kind: Annotated[str, typer.Argument(help="loss, encoder, fusion, schedule, dataset, transform or modality.")],
    name: Annotated[str, typer.Argument(help="Of the plugin and its component, such as soft-margin.")],
    to: Annotated[Path, typer.Option(help="The folder that it is put in.")] = Path(),
) -> None:
    """Start a plugin: a small package that works, with tests, a recipe, and workflows that publish it."""
    from kdcore.scaffold.generate import new_plugin as generate

    folder = generate(kind, name, to)
    print(f"{folder}: written. Next:\n  cd {folder}\n  pip install -e '.[test]'\n  pytest\n  kdcore run recipe.yaml")


def main() -> None:
    """Entry point of the ``kdcore`` command."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    for category in (DeprecationWarning, FutureWarning):  # libraries' notes to their callers, not to ours
        warnings.simplefilter("ignore", category)
    if sys.argv[1:] == ["--version"]:  # as an option of the app, typer would load pydantic for it before every command
        print(f"kdcore {__version__}")
        return
    warnings.simplefilter("default", KdcoreDeprecationWarning)
    try:
        from kdcore.plugin.manager import found_plugins, plugin_manager

        words = _without_plugin_files(sys.argv[1:])
        if words[:1] == ["list"] and len(words) <= 2 and not words[-1].startswith("-"):
            list_components(*words[1:])  # at once: typer loads pydantic before it calls any command
            return
        manager = found_plugins() if words[:1] == ["plugins"] else plugin_manager()
        manager.add_commands(app)
        app(words)
    except RecipeError as error:
        count = len(error.problems)
        print(f"{error}\n{count} problem{'s' if count > 1 else ''}; nothing was run.", file=sys.stderr)
        _leave(error.exit_code)
    except KdcoreError as error:
        print(f"error: {error}", file=sys.stderr)
        _leave(error.exit_code)
    except BrokenPipeError:  # whoever read the output has had enough of it, as in: kdcore list | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _leave(1)
    except Exception as error:
        from kdcore.plugin.error_attribution import blamed
        from kdcore.plugin.manager import found_plugins

        culprit: object = blamed(error, found_plugins())
        if culprit is None and isinstance(error, OSError) and error.filename:
            culprit = f"{error.filename}: {error.strerror}"
        if culprit is None or os.environ.get("KDCORE_TRACEBACK") == "1":
            raise
        print(f"error: {culprit}", file=sys.stderr)
        _leave(1)


def _plugin_files() -> list[str]:
    """The options that name the plugin files in use."""
    from kdcore.plugin.files import files_asked_for

    return [word for path in files_asked_for() for word in ("--plugin", str(path))]


def _without_plugin_files(words: list[str]) -> list[str]:
    """The command line without ``--plugin FILE``; the files go into the environment, for this process and its children."""
    from kdcore.plugin.files import VARIABLE, files_asked_for

    left: list[str] = []
    files = [str(path) for path in files_asked_for()]
    rest = iter(words)
    for word in rest:
        option, equals, file = word.partition("=")
        if option != "--plugin":
            left.append(word)
            continue
        file = file if equals else next(rest, "")
        if not file.endswith(".py"):
            raise UsageError(f"--plugin needs a file such as my_loss.py, not {file!r}; an installed plugin is in use anyway")
        files.append(os.path.abspath(os.path.expanduser(file)))
    if files:
        os.environ[VARIABLE] = os.pathsep.join(dict.fromkeys(files))
    return left


def _leave(code: int) -> None:
    """Exit at once; other processes of a distributed run may be waiting for this one to go."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code) if "TORCHELASTIC_RUN_ID" in os.environ else sys.exit(code)
