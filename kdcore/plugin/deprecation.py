"""Deprecation of public names: a warning for two minor releases, an error in the next, then removal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kdcore import __version__
from kdcore.errors import KdcoreDeprecationWarning, KdcoreError
from kdcore.user_warnings import warn

WARNING_RELEASES = 2


@dataclass(frozen=True)
class Deprecation:
    """A deprecated public name.

    Args:
        what: The deprecated name, e.g. ``the hook 'register_nets'``.
        since: First release in which it is deprecated, e.g. ``0.3``.
        instead: Replacement to use.
    """

    what: str
    since: str
    instead: str

    def stage(self, version: str = __version__) -> Literal["announced", "warned", "refused", "gone"]:
        """Return its stage in `version`: ``announced`` for a later release, ``warned``, ``refused``, or ``gone``."""
        passed = _minor_releases(self.since, version)
        if passed < 0:
            return "announced"
        if passed < WARNING_RELEASES:
            return "warned"
        return "refused" if passed == WARNING_RELEASES else "gone"

    def used(self, by: str = "", version: str = __version__) -> None:
        """Warn that the name is used.

        Raises:
            KdcoreError: If `version` no longer supports the name.
        """
        user = f"{by} uses " if by else ""
        stage = self.stage(version)
        if stage == "warned":
            text = f"{user}{self.what}, which is deprecated since kdcore {self.since} and will be refused; use {self.instead}"
            warn(text, KdcoreDeprecationWarning)
        elif stage != "announced":
            raise KdcoreError(f"{user}{self.what}, which kdcore {version} no longer has; use {self.instead}")


def _minor_releases(since: str, version: str) -> int:
    """Return the number of minor releases from `since` to `version`; a major release counts as one."""
    (major, minor), (major_now, minor_now) = (map(int, each.split(".")[:2]) for each in (since, version))
    return minor_now - minor if major == major_now else major_now - major + minor_now if major_now > major else -1
