"""A report with hostile names, opened in a browser: run with ``pytest -m e2e`` where ``chromium`` is installed."""

from __future__ import annotations

import shutil
import subprocess
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from summaries import summary

from kdcore_report.html_page import Pictures, page
from kdcore_report.html_report import write_page

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--dump-dom")

ACT = "document.documentElement.dataset.ran='yes'"
ATTACKS = (
    f"<script>{ACT}</script>",
    f'<img src=x onerror="{ACT}">',
    f'\'"><svg onload="{ACT}">',
    f"</pre></td></table></style></title><script>{ACT}</script>",
    f'" onmouseover="{ACT}" autofocus onfocus="{ACT}" x="',
    f'<iframe srcdoc="<script>parent.{ACT}</script>"></iframe>',
)


def opened(page: Path, profile: Path) -> str:
    """The document as it is after its scripts have run."""
    assert BROWSER
    command = [BROWSER, *QUIET, f"--user-data-dir={profile}", "--virtual-time-budget=3000", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout


@pytest.mark.skipif(not BROWSER, reason="chromium is not installed")
def test_no_script_runs_in_a_report(tmp_path):
    """The first page shows that this would be seen."""
    (tmp_path / "unescaped.html").write_text(f"<html><body>{ATTACKS[1]}{ATTACKS[0]}</body></html>")
    assert 'data-ran="yes"' in opened(tmp_path / "unescaped.html", tmp_path / "profile")
    attack = "".join(ATTACKS)
    found = summary(
        name=attack, description=attack, rule=attack, selection=attack, classes=[*ATTACKS[:4]], recipe=attack, command=attack,
        tracking=attack, setting=attack, notes=list(ATTACKS), versions={attack: attack}, folder=Path(attack),
    )  # fmt: skip
    rows = [type(row)(attack, row.role, attack, row.evaluations, row.parameters, row.arm) for row in found.rows]
    found = summary(**{**vars(found), "rows": rows, "differences": {attack: found.difference}})
    write_page(tmp_path / "report.html", found, {attack: {attack: [(0, 1.0), (1, 0.5)]}})
    shown = opened(tmp_path / "report.html", tmp_path / "profile")
    assert "data-ran" not in shown.partition(">")[0] + shown.partition("<html")[2].partition(">")[0]
    assert ATTACKS[0] in unescape(shown), "the names are shown as they are"


@pytest.mark.skipif(not BROWSER, reason="chromium is not installed")
@pytest.mark.parametrize("dark", [False, True])
def test_plots_follow_the_colour_scheme_and_photographs_do_not(tmp_path, figures, dark):
    """A white image that is no photograph takes the colour of the page."""
    pictures = Pictures(tmp_path)

    def white(path):
        Image.new("RGB", (400, 200), "white").save(path)

    body = pictures.figure("a", white, "a plot") + pictures.figure("b", white, "a photograph", photograph=True)
    (tmp_path / "page.html").write_text(page("Two images", body))
    scheme = "--blink-settings=preferredColorScheme=" + ("0" if dark else "1")
    shot = tmp_path / "shot.png"
    command = [BROWSER, *QUIET[:-1], scheme, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=500,600"]
    command += [f"--screenshot={shot}", (tmp_path / "page.html").as_uri()]
    subprocess.run(command, capture_output=True, timeout=240, check=True)
    shown = np.asarray(Image.open(shot).convert("L"))
    plot, photograph = (int(shown[row, 200]) for row in (100, 340))
    assert photograph == 255
    assert plot < 40 if dark else plot == 255
