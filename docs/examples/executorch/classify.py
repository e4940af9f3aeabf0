"""Classify a recording with an exported ExecuTorch program. Requires NumPy, torch and executorch, but not kdcore.

python classify.py student.pte                  # show the program's inputs
python classify.py student.pte recording.npy    # an array (samples, channels) in the units shown
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch
from executorch.runtime import Runtime


def main(program_file: str, *recordings: str) -> None:
    """Print the inputs of a program or, given one recording per input, the class probabilities."""
    program = Runtime.get().load_program(program_file)
    [text] = program.load_method("kdcore").execute([])
    facts = json.loads(text)
    for each in facts["inputs"] if not recordings else ():
        channels = ", ".join(each["channels"])
        print(f"{each['name']}: {each['samples']} samples at {each['rate']:.6g} Hz, {each['units']}, {channels}")
    if recordings:
        signals = []
        for file, told in zip(recordings, facts["inputs"], strict=True):
            values = np.load(file)
            if len(values) != told["samples"]:
                sys.exit(f"error: {file}: the program reads {told['samples']} samples, the recording has {len(values)}")
            signals.append(torch.from_numpy(values.astype(told["dtype"]))[None])
        _, answers = program.load_method("forward").execute(signals)
        for name, number in zip(facts["classes"], answers[0].tolist(), strict=True):
            print(f"{name} {number:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
