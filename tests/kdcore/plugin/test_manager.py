"""Plugins found, and those that are broken."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import warnings
from importlib.metadata import EntryPoint

import pytest

from kdcore import KdcoreDeprecationWarning
from kdcore.errors import PluginError
from kdcore.plugin import hookspecs
from kdcore.plugin.manager import PluginManager, PluginWarning

GOOD = """
    @hookimpl
    def register_losses(register):
        register("fine", "good:Fine")
"""


def manager_of(*points: EntryPoint) -> PluginManager:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)
        return PluginManager(points)


FAULTS = {
    "misspelt": (
        "@hookimpl\ndef register_loses(register): pass",
        "a hook that does not exist: 'register_loses' \\(did you mean 'register_losses'\\?\\)",
    ),
    "dependent": (
        "import no_such_library.inner",
        "it requires the module 'no_such_library', which is not installed; install that",
    ),
    "syntax": ("def register_losses(register:", "could not import it: SyntaxError: .*; reinstall syntax, or uninstall it"),
    "raising": ("1 / 0", "could not import it: ZeroDivisionError: division by zero"),
    "importing": ("from kdcore import Nonsense", "could not import it: ImportError: cannot import name 'Nonsense'"),
    "leaving": ("raise SystemExit(3)", "could not import it: SystemExit: 3; reinstall leaving, or uninstall it"),
    "content": ("import sys; sys.exit(0)", "could not import it: SystemExit: 0; reinstall content, or uninstall it"),
    "interrupting": ("raise KeyboardInterrupt", "could not import it: KeyboardInterrupt; reinstall interrupting, or"),
    "often-misspelt": (
        "@hookimpl\ndef register_loses(register): pass\n@hookimpl\ndef zzz(): pass\n@hookimpl\ndef run_start(): pass",
        "hooks that do not exist: 'register_loses' \\(did you mean 'register_losses'\\?\\), "
        "'run_start' \\(did you mean 'run_started'\\?\\), 'zzz'$",
    ),
    "my.plugin": ("", "'my.plugin' is not a valid name for a plugin: use letters, digits, '-' and '_', starting with"),
    "departing": (
        "@hookimpl\ndef register_losses(register): raise SystemExit(3)",
        "could not register its components: SystemExit: 3",
    ),
    "misnamed": (
        "@hookimpl\ndef register_losses(reg): pass\n@hookimpl\ndef register_loses(register): pass\n"
        "@hookimpl\ndef run_started(runn, other=1): pass",
        "a hook that does not exist: 'register_loses' .*; 'register_losses' has no parameter 'reg' \\(parameters: register\\); "
        "'run_started' has no parameter 'runn'",
    ),
    "newer": ("KDCORE_API = 99", "written for plugin API 99, but this kdcore has 1; install a newer kdcore"),
    "older": ("KDCORE_API = 0", "written for plugin API 0, but this kdcore has 1; install a newer version of the plugin"),
    "worded": ("KDCORE_API = '1'", "its KDCORE_API must be an integer, not '1'"),
    "twice": (
        "@hookimpl\ndef register_losses(register):\n    register('a', 'm:A')\n    register('a', 'm:B')",
        "registers loss 'a' twice",
    ),
    "slashed": (
        "@hookimpl\ndef register_losses(register):\n    register('a/b', 'm:A')",
        "'a/b' is not a valid name for a loss of plugin 'slashed': use letters, digits",
    ),
    "untargeted": ("@hookimpl\ndef register_losses(register):\n    register('a', 'm.A')", "write 'module:Object'"),
}


@pytest.mark.parametrize("name", ["my.loss", "a:b!", "two words", "", "-x", "a[0]", "a=b", "ä", 3])
def test_a_name_that_no_override_could_contain_is_refused(workshop, name):
    with pytest.warns(PluginWarning, match="is not a valid name for a loss of plugin 'odd': use letters"):
        workshop.manager(odd=f"@hookimpl\ndef register_losses(register):\n    register({name!r}, 'm:A')")


@pytest.mark.parametrize("name", ["1", "12e3", "0x1F", "true", "Null"])
def test_a_name_that_a_recipe_would_read_as_another_type_is_refused(workshop, name):
    with pytest.warns(PluginWarning, match=f"'{name}' is not a valid name for a loss of plugin 'odd': YAML does not read"):
        workshop.manager(odd=f"@hookimpl\ndef register_losses(register):\n    register({name!r}, 'm:A')")


@pytest.mark.parametrize("name", ["1d", "e3", "true-loss", "nan", "on"])
def test_other_names_that_look_like_numbers_are_text(workshop, name):
    manager = workshop.manager(odd=f"@hookimpl\ndef register_losses(register):\n    register({name!r}, 'm:A')")
    assert [entry.name for entry in manager.registry.entries()] == [name]


def test_an_interrupt_by_the_user_is_no_fault_of_the_plugin(workshop):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            workshop.manager(slow="import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(5)")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_plugin_is_named_with_the_reason_and_the_rest_works(workshop, name):
    code, reason = FAULTS[name]
    points = [workshop.plugin("good", GOOD), workshop.plugin(name.replace("-", "_").replace(".", "_"), code, name)]
    with pytest.warns(PluginWarning, match=rf"plugin '{name}' \(\w+\) is not used: .*{reason}"):
        manager = PluginManager(points)
    assert [plugin.name for plugin in manager.broken] == [name]
    assert [entry.name for entry in manager.registry.entries()] == ["fine"]
    assert not manager.plugins["good"].failure


def test_a_broken_plugin_is_an_error_where_strictness_is_asked_for(workshop, monkeypatch):
    monkeypatch.setenv("KDCORE_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError, match=r"plugin 'raising' \(raising\) is not used"):
        workshop.manager(raising="1 / 0")


def test_a_module_that_is_not_there_is_named():
    manager = manager_of(EntryPoint("ghost", "kdcore_ghost_that_is_not", "kdcore"))
    assert "could not import it" in manager.plugins["ghost"].failure
    assert "reinstall ghost, or uninstall it" in manager.plugins["ghost"].failure


def test_two_plugins_of_one_name_are_both_named_and_neither_is_used(workshop):
    one, other = workshop.plugin("one", GOOD, "same"), workshop.plugin("other", GOOD, "same")
    manager = manager_of(one, other)
    assert not list(manager.registry.entries())
    failure = manager.plugins["same"].failure
    assert "two installed packages claim the plugin name 'same'" in failure
    assert "(one)" in failure
    assert "(other)" in failure
    assert "uninstall one" in failure


def test_two_plugins_with_one_component_are_told_apart_by_a_slash(workshop):
    manager = workshop.manager(first=GOOD, second=GOOD)
    with pytest.raises(PluginError, match="provided by the plugins first and second; write first/fine or second/fine"):
        manager.registry.get("loss", "fine")
    assert manager.registry.get("loss", "second/fine").plugin == "second"


def test_a_component_that_lacks_a_library_says_what_to_install(workshop):
    workshop.write("heavy", "import no_such_library")
    manager = workshop.manager(light='@hookimpl\ndef register_losses(register):\n    register("a", "heavy:A")')
    with pytest.raises(
        PluginError,
        match=r"plugin 'light': loss 'a' \(heavy:A\): could not load it: .*install the package that has .*no_such_lib",
    ):
        manager.registry.get("loss", "a").load()


def test_a_plugin_for_an_older_api_that_still_works_is_used_with_a_warning(workshop, monkeypatch):
    monkeypatch.setattr(hookspecs, "API_VERSION", 2)
    with pytest.warns(
        KdcoreDeprecationWarning, match=r"plugin 'old' \(old\) was written for plugin API 1; install a version for"
    ):
        manager = workshop.manager(old="    KDCORE_API = 1\n" + GOOD)
    assert manager.plugins["old"].api == 1
    assert not manager.broken


def test_the_command_shows_sound_and_broken_plugins(workshop, monkeypatch, capsys):
    from kdcore.cli.plugins import plugins as show_plugins

    manager = manager_of(*(workshop.plugin(name, code) for name, code in [("good", GOOD), ("raising", "1 / 0")]))
    monkeypatch.setattr("kdcore.plugin.manager.found_plugins", lambda: manager)
    show_plugins(as_json=True)
    good, broken = json.loads(capsys.readouterr().out)
    assert (good["name"], good["provides"], good["failure"]) == ("good", {"loss": ["fine"]}, "")
    assert good["api"] == hookspecs.API_VERSION
    assert "ZeroDivisionError" in broken["failure"]
    show_plugins(as_json=False)
    shown = " ".join(capsys.readouterr().out.split())
    assert "loss: fine" in shown
    assert "not in use:" in shown


def test_a_plugin_whose_commands_cannot_be_added_is_set_aside(workshop):
    hook = "@hookimpl\ndef register_commands(cli): "
    manager = workshop.manager(
        leaving=hook + "raise SystemExit(3)", sound=hook + "cli.append('hello')", unsound=hook + "import no_such_library"
    )
    commands: list[str] = []
    with pytest.warns(PluginWarning) as warned:
        manager.add_commands(commands)
    assert commands == ["hello"]
    assert {plugin.name: plugin.failure for plugin in manager.broken} == {
        "leaving": "could not add its commands: SystemExit: 3; "
        "reinstall leaving, or uninstall it and report this to its author",
        "unsound": "it requires the module 'no_such_library', which is not installed; install that, or reinstall unsound",
    }
    assert len(warned) == 2


def test_a_component_whose_module_ends_the_process_cannot_be_loaded(workshop):
    workshop.write("leaver", "raise SystemExit(3)")
    hook = "@hookimpl\ndef register_losses(register): register('gone', 'leaver:Gone')"
    entry = workshop.manager(sound=hook).registry.get("loss", "gone")
    with pytest.raises(
        PluginError, match=r"loss 'gone' \(leaver:Gone\): could not load it: SystemExit: 3; report this to its author"
    ):
        entry.load()


def test_the_list_says_how_to_name_what_two_plugins_have(workshop, monkeypatch, capsys):
    from kdcore.cli.plugins import list_components

    manager = workshop.manager(first=GOOD, second=GOOD)
    monkeypatch.setattr("kdcore.plugin.manager.plugin_manager", lambda: manager)
    list_components("losses")
    assert capsys.readouterr().out.splitlines() == [
        "losses:",
        "  fine  first   (ambiguous: write first/fine)",
        "  fine  second  (ambiguous: write second/fine)",
    ]


def test_importing_kdcores_plugins_loads_nothing_heavy():
    code = "import sys, kdcore.plugin.manager as m; m.plugin_manager(); print({'torch', 'mlflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
