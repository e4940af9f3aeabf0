"""The leakage audit: does anything of the training parts stand in the test part?"""

from __future__ import annotations

from itertools import combinations

from kdcore.contracts.protocol import Split


def audit(split: Split) -> list[str]:
    """What leaks between parts; empty if nothing does.

    No recording may stand in two parts, and no value of a field that the protocol calls disjoint may stand in both a part
    that is learnt from and the test part.
    """
    leaks = []
    for (first, left), (second, right) in combinations(split.parts.items(), 2):
        shared = {sample.key for sample in left} & {sample.key for sample in right}
        leaks += [f"{key} is in both {first} and {second}" for key in sorted(shared)[:5]]
    for part, samples in split.parts.items():
        for field in split.disjoint if part != "test" else ():
            shared = {getattr(s.key, field) for s in samples} & {getattr(s.key, field) for s in split.parts.get("test", ())}
            leaks += [f"{field} {value} is in both {part} and test" for value in sorted(shared)]
    return leaks
