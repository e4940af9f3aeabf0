"""Leave out what costs most of the time of a tiny run and what hardly any test looks at."""

from __future__ import annotations

from html import escape

FIGURE = "data:,not-drawn"


def leave_out_figures() -> None:
    """Have reports of this process name their figures, but not draw them: that takes four times as long as the run."""
    from kdcore_report import html_page

    def named(self, name, draw, alternative, caption="", photograph=False):
        return html_page.figure(f'<img alt="{escape(alternative)}" src="{FIGURE}">', caption)

    html_page.Pictures.figure = named


def leave_out_package_scan() -> None:
    """Spare MLflow its search for the package of every installed file, once a process, to check what is installed anyway."""
    import importlib_metadata

    importlib_metadata.packages_distributions = dict
