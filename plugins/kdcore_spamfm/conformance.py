"""Case for `kdcore.testing`: fusion after both stages of the kit's teachers."""

from kdcore.testing import Case

cases = {"spamfm": Case({"at": ["stage1", "stage2"]})}
