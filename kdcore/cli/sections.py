"""Sections of the list of commands in ``kdcore --help``."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

SECTIONS = TRAINING, EXPERIMENTS, RESULTS, DEPLOYMENT, DATA, COMPONENTS = (
    "Training",
    "Experiments",
    "Results",
    "Deployment",
    "Data",
    "Components and plugins",
)
"""Sections in their order."""


class SectionedGroup(TyperGroup):
    """A group of commands that lists them by section, the `rich_help_panel` with which a command is registered."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the sections in `SECTIONS` order, then other ones, and last the commands without a section."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        shown = {name: command for name, command in commands.items() if command is not None and not command.hidden}
        limit = formatter.width - 6 - max(map(len, shown), default=0)
        sections: dict[str, list[tuple[str, str]]] = {each: [] for each in SECTIONS}
        others: list[tuple[str, str]] = []
        for name, command in shown.items():
            section = getattr(command, "rich_help_panel", None)
            rows = sections.setdefault(section, []) if isinstance(section, str) else others
            rows.append((name, command.get_short_help_str(limit)))
        widest = max(map(len, shown), default=0)
        for title, rows in {**sections, "Other commands": others}.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl([(name.ljust(widest), text) for name, text in rows])
