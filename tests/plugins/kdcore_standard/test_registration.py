"""Everything the plugin announces can be loaded, and announcing imports nothing heavy."""

import subprocess
import sys

import kdcore_standard
from kdcore.plugin.manager import PluginManager


def test_everything_announced_can_be_loaded():
    manager = PluginManager([])
    manager.register("standard", kdcore_standard)
    entries = list(manager.registry.entries())
    assert entries
    for entry in entries:
        assert entry.load().__doc__


def test_announcing_does_not_import_torch():
    code = "import sys, kdcore_standard as p; [getattr(p, n)(lambda *_: 0) for n in dir(p) if n.startswith('register_')]; "
    subprocess.run([sys.executable, "-c", code + "assert 'torch' not in sys.modules"], check=True, timeout=60)
