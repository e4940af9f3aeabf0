"""How `kdcore.testing` tests the fusion: after one stage of its toy teachers' two."""

from kdcore.testing import Case

cases = {"spamfm": Case({"at": ["stage1", "stage2"]})}
