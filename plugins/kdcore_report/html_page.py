"""Self-contained HTML pages."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from kdcore import Summary

BROAD = 900
"""Width in pixels above which an image scrolls on narrow screens, since its text would be too small."""


class Pictures:
    """Draws the images of a page as files in a folder.

    Args:
        folder: Created if it does not exist.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def figure(
        self, name: str, draw: Callable[[Path], None], alternative: str, caption: str = "", photograph: bool = False
    ) -> str:
        """Draw ``NAME.png`` and return it as an HTML figure.

        Args:
            name: Name of the file without suffix.
            draw: Writes the file.
            alternative: Text for readers who do not see the image.
            caption: Text below the image.
            photograph: Whether the image contains frames or other images, whose colours dark mode must not change.
        """
        path = self.folder / f"{name}.png"
        draw(path)
        content = path.read_bytes()
        width = int.from_bytes(content[16:20], "big")  # the first field of a PNG file's header
        kinds = " ".join(["photograph" if photograph else "plot", *(["broad"] if width > BROAD else [])])
        source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
        return figure(f'<img class="{kinds}" alt="{escape(alternative)}" src="{source}">', caption)


def figure(content: str, caption: str = "") -> str:
    """Return HTML content with a caption."""
    return f"<figure>{content}{f'<figcaption>{escape(caption)}</figcaption>' if caption else ''}</figure>"


def section(title: str, content: str) -> str:
    """Return a heading followed by HTML content."""
    return f"<section><h2>{escape(title)}</h2>\n{content}\n</section>"


def table(headings: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Return a table of rows (class of the row, cells); cells are HTML."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    lines = (f'<tr class="{kind}">{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>' for kind, cells in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n' + "\n".join(lines) + "\n</tbody></table></div>"


def note(text: str) -> str:
    """Return a note below a table."""
    return f'<p class="note">{escape(text)}</p>'


def percent(value: float) -> str:
    """Return a fraction in percent, without the sign; a dash for NaN."""
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def seeds_text(summary: Summary) -> str:
    """Return ``seed 0`` or ``5 seeds``."""
    return f"seed {summary.seeds[0]}" if len(summary.seeds) == 1 else f"{len(summary.seeds)} seeds"


def page(title: str, body: str) -> str:
    """Return a complete HTML page."""
    viewport = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f'<meta charset="utf-8">{viewport}<title>{escape(title)}</title>'
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n'


STYLE = """
:root { color-scheme: light dark; --ink: #1f2430; --soft: #5d6675; --paper: #fff; --line: #dfe3ea; --tint: #f1f5fb;
  --good: #0072b2; --bad: #d55e00; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7ee; --soft: #9aa3b2; --paper: #15181f; --line: #313744; --tint: #1e2430; --good: #56b4e9;
    --bad: #f0894a; }
}
body { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 5rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; }
header p, .note, dt, figcaption { color: var(--soft); }
.note, figcaption { font-size: .87rem; }
.answer { font-size: 1.2rem; padding: 1rem 1.25rem; margin: 0; background: var(--tint); border-left: 4px solid var(--good);
  border-radius: 4px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .4rem .8rem .4rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 500; }
tr.main td { font-weight: 650; background: var(--tint); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.5rem; margin: 0; }
dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .6rem; } }
pre { background: var(--tint); padding: .9rem 1.1rem; border-radius: 4px; overflow-x: auto; font-size: .86rem; }
figure { margin: 0 0 1.5rem; overflow-x: auto; }
img { max-width: 100%; background: #fff; border-radius: 4px; }
.example { border-top: 1px solid var(--line); padding-top: 1rem; }
.example svg { background: #fff; border-radius: 4px; max-width: 100%; }
@media (max-width: 40rem) { img.broad { max-width: none; width: 48rem; } }
@media screen and (prefers-color-scheme: dark) {
  img.plot, figure > svg { filter: invert(.91) hue-rotate(180deg); mix-blend-mode: lighten; }
}
.right { color: var(--good); }
.wrong { color: var(--bad); }
.bar { display: block; position: relative; width: 10rem; height: .7rem; }
.bar i { position: absolute; top: 0; bottom: 0; }
.bar i.more { left: 50%; background: var(--good); }
.parts { display: flex; height: 1.4rem; margin-bottom: .75rem; border-radius: 4px; overflow: hidden; }
.parts i, .part { background: hsl(calc(205 + 45 * var(--part)) 55% 55%); }
.part { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px; }
.bar i.less { right: 50%; background: var(--bad); }
"""
