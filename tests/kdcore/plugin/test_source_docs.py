"""First lines of docstrings, without importing the source."""

import sys
from types import ModuleType

import pytest

from kdcore.plugin.source_docs import first_line

SOURCE = '''
raise AssertionError("imported")

class Bare(Base):
    x = 1

@decorated
class Loss(Base):
    r"""Compare ``logits``.

    More.
    """

def build(
    width: int = 8,
) -> Encoder:
    """Build an "encoder" of :math:`x_1`."""

class LossOfAnother:
    """Another."""
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    found = ModuleType("made_up_plugin")
    found.__path__ = [str(tmp_path)]
    monkeypatch.setitem(sys.modules, "made_up_plugin", found)
    (tmp_path / "inner").mkdir()
    (tmp_path / "loss.py").write_text(SOURCE)
    (tmp_path / "inner" / "__init__.py").write_text(SOURCE)
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe")


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("loss:Loss", "Compare `logits`."),
        ("loss:build", 'Build an "encoder" of x_1.'),
        ("inner:Loss", "Compare `logits`."),
        ("loss:Bare", ""),
        ("loss:missing", ""),
        ("binary:Loss", ""),
        ("nothing:Loss", ""),
    ],
)
def test_the_first_line(package, target, line):
    assert first_line(f"made_up_plugin.{target}") == line


def test_a_plugin_that_is_not_imported():
    assert first_line("no_such_plugin.loss:Loss") == ""
