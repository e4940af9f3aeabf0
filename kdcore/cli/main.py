"""Entry point of the command line. Commands import slow modules themselves."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
import time
import traceback
import warnings

import typer

from kdcore import __version__
from kdcore.cli import cache, models, plugins, recipes, run, runs
from kdcore.cli.predict import predict
from kdcore.cli.sections import COMPONENTS, DATA, DEPLOYMENT, RESULTS, TRAINING, SectionedGroup
from kdcore.errors import KdcoreDeprecationWarning, KdcoreError, RecipeError, UsageError, printable

PLUGIN_FILES = "Every command accepts --plugin FILE.py, which can be repeated, to load a plugin that is not installed."

app = typer.Typer(
    name="kdcore",
    cls=SectionedGroup,
    help=f"Cross-modal knowledge distillation from declarative recipes. Version {__version__}.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: importing rich would double the start-up time
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"kdcore --version prints the version. {PLUGIN_FILES}",
)
app.command(epilog=f"{run.EXAMPLES}\n\n{PLUGIN_FILES}", rich_help_panel=TRAINING)(run.run)
for command, section in {run.resume: TRAINING, run.validate: TRAINING, run.evaluate: RESULTS, run.outputs: RESULTS}.items():
    app.command(epilog=PLUGIN_FILES, rich_help_panel=section)(command)
app.command(rich_help_panel=DEPLOYMENT)(predict)
data_group = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Inspect recordings before training on them.")
app.add_typer(data_group, name="data", rich_help_panel=DATA)
app.add_typer(recipes.app, name="recipes", rich_help_panel=TRAINING)
app.add_typer(models.app, name="models", rich_help_panel=DEPLOYMENT)
app.add_typer(runs.app, name="runs", rich_help_panel=RESULTS)
app.add_typer(cache.app, name="cache", rich_help_panel=DATA)
app.command("list", epilog=PLUGIN_FILES, rich_help_panel=COMPONENTS)(plugins.list_components)
for command in (plugins.describe, plugins.plugins):
    app.command(epilog=PLUGIN_FILES, rich_help_panel=COMPONENTS)(command)


def main() -> None:
    """Entry point of the ``kdcore`` command."""
    # At exit, Python would search the objects of all modules for cycles, which takes half as long as importing torch.
    atexit.register(gc.freeze)
    try:
        _command()
    finally:
        _end_threads(sys.exception())


def _command() -> None:
    """Run the command, and report errors without a traceback."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch's C++ code would print its warnings once per process
    warnings.formatwarning = lambda message, *_, **__: f"warning: {printable(str(message))}\n"
    for category in (DeprecationWarning, FutureWarning):  # aimed at developers who call these libraries, not at users
        warnings.simplefilter("ignore", category)
    warnings.simplefilter("default", KdcoreDeprecationWarning)
    if sys.argv[1:] == ["--version"]:  # as an option of the app, it would make typer load pydantic before every command
        print(f"kdcore {__version__}")
        return
    try:
        _dispatch(_without_plugin_files(sys.argv[1:]))
    except RecipeError as error:
        count = len(error.problems)
        _leave(error.exit_code, f"{error}\n{count} problem{'s' if count > 1 else ''}; nothing was run.")
    except KdcoreError as error:
        _leave(error.exit_code, f"error: {error}")
    except BrokenPipeError:  # the reader closed the pipe, as in: kdcore list | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _leave(1)
    except (Exception, SystemExit) as error:  # a plugin may call sys.exit(), even with status 0
        from kdcore.plugin.error_attribution import blamed
        from kdcore.plugin.manager import found_plugins

        culprit: object = blamed(error, found_plugins())
        if culprit is None and isinstance(error, OSError) and error.filename:
            culprit = f"{error.filename}: {error.strerror}"
        if culprit is None or os.environ.get("KDCORE_TRACEBACK") == "1":
            raise
        _leave(1, f"error: {culprit}")


def _dispatch(arguments: list[str]) -> None:
    """Load the plugins, and call the command with its arguments."""
    from kdcore.plugin.manager import found_plugins, plugin_manager

    if arguments[:1] == ["list"] and len(arguments) <= 2 and not arguments[-1].startswith("-"):
        plugins.list_components(*arguments[1:])  # without typer, which loads pydantic before it calls a command
        return
    manager = found_plugins() if arguments[:1] == ["plugins"] else plugin_manager()
    manager.add_commands(app)
    plugins.refuse_missing(arguments, app, manager)
    arguments = _with_default_command(arguments)
    try:
        app(arguments)
    except SystemExit as end:
        if not end.code and {"-h", "--help"}.isdisjoint(arguments) and os.environ.get("RANK", "0") == "0":
            manager.hook.command_finished()
        raise


def _with_default_command(arguments: list[str]) -> list[str]:
    """Complete the name of a group: ``kdcore runs`` lists the runs, and a group without a list shows its help."""
    if not arguments:
        return ["--help"]
    for group in app.registered_groups:
        if arguments == [group.name] and group.typer_instance:
            commands = {each.name for each in group.typer_instance.registered_commands}
            return [*arguments, "list" if "list" in commands else "--help"]
    return arguments


def _without_plugin_files(arguments: list[str]) -> list[str]:
    """Remove ``--plugin FILE`` from the arguments and add the files to ``KDCORE_PLUGINS``, which child processes inherit."""
    from kdcore.plugin.files import VARIABLE, files_asked_for

    remaining: list[str] = []
    files = [str(path) for path in files_asked_for()]
    iterator = iter(arguments)
    for argument in iterator:
        option, equals, file = argument.partition("=")
        if option != "--plugin":
            remaining.append(argument)
            continue
        file = file if equals else next(iterator, "")
        if not file.endswith(".py"):
            raise UsageError(
                f"--plugin requires a Python file such as my_loss.py, not {file!r}; installed plugins are loaded without it"
            )
        files.append(os.path.abspath(os.path.expanduser(file)))
    if files:
        os.environ[VARIABLE] = os.pathsep.join(dict.fromkeys(files))
    return remaining


def _end_threads(error: BaseException | None, seconds: float = 5.0) -> None:
    """Wait up to `seconds` for threads started by plugins, then exit with a warning that names those still running."""
    deadline = time.monotonic() + seconds
    main_thread = threading.main_thread()
    for thread in threading.enumerate():
        if thread is not main_thread and not thread.daemon:
            thread.join(max(0.0, deadline - time.monotonic()))
    running = [each for each in threading.enumerate() if each is not main_thread and not each.daemon]
    if running:
        names = ", ".join(each.name for each in running)
        print(f"warning: exiting while threads started by a plugin are still running: {names}", file=sys.stderr)
        if error and not isinstance(error, SystemExit):
            traceback.print_exception(error)
        status = error.code or 0 if isinstance(error, SystemExit) else 1 if error else 0
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 1)


def _leave(code: int, message: str = "") -> None:
    """Print a message and exit with status `code`, immediately under torchrun: other processes may wait for this one."""
    if message:
        print(printable(message), file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code) if "TORCHELASTIC_RUN_ID" in os.environ else sys.exit(code)
