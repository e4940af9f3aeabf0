"""Classify recordings with an exported student. Requires only NumPy and ONNX Runtime.

    python classify.py student.onnx recording.npy
    python classify.py student.onnx accelerometer=wrist.csv gyroscope=turn.csv

A recording is a .npy file or a table of numbers with one row per sample, in the units that the student was trained with. Table
columns are matched to channels by name; without names, they must be the channels in order. `python classify.py student.onnx`
shows units and channels.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime


def main(arguments: list[str]) -> int:
    """Classify the recordings named on the command line."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    if not Path(arguments[0]).is_file():
        print(f"error: {arguments[0]}: no such file", file=sys.stderr)
        return 2
    session = onnxruntime.InferenceSession(arguments[0], providers=["CPUExecutionProvider"])
    told = session.get_modelmeta().custom_metadata_map
    facts = {key.removeprefix("kdcore."): json.loads(value) for key, value in told.items() if key.startswith("kdcore.")}
    inputs = {each["name"]: each for each in facts["inputs"]}
    if len(arguments) == 1:
        show(inputs, facts["window"])
        return 0
    try:
        for recording in recordings(arguments[1:], inputs):
            values = {name: read(Path(path), inputs[name]) for name, path in recording.items()}
            for start, piece in pieces(values, inputs, facts["window"]):
                _, probabilities = session.run(None, piece)
                best = int(probabilities[0].argmax())
                when = "" if start is None else f" at {start:.2f} s"
                print(f"{' '.join(recording.values())}{when}: {facts['classes'][best]} {probabilities[0][best]:.3f}")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def show(inputs: dict[str, dict], window: list[float] | None) -> None:
    """Print the student's inputs."""
    for name, each in inputs.items():
        length = f"{each['samples']} samples" if each["samples"] else f"{window[0]} s" if window else "any length"
        print(f"{name}: {length} at {each['rate']:.6g} Hz, {each['units']}; axes {each['axes']}, channels {each['channels']}")


def recordings(arguments: list[str], inputs: dict[str, dict]) -> list[dict[str, str]]:
    """Modality → file, for each recording."""
    if len(inputs) == 1:
        return [dict.fromkeys(inputs, argument.removeprefix(f"{next(iter(inputs))}=")) for argument in arguments]
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    if set(given) != set(inputs):
        raise ValueError(f"give one file for each of {', '.join(inputs)}, as name=file")
    return [given]


def read(path: Path, told: dict) -> np.ndarray:
    """The values of a recording, with one row per sample."""
    values = np.load(path, allow_pickle=False) if path.suffix == ".npy" else read_table(path, told)
    channels = len(told["channels"])
    axis = told["axes"].index("channel") if "channel" in told["axes"] else None
    if values.ndim != len(told["axes"]) or (channels and axis is not None and values.shape[axis] != channels):
        raise ValueError(
            f"{path}: {told['name']} has axes {told['axes']} and {channels} channels, this has shape {values.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"{path}: has values that are not finite")
    return np.ascontiguousarray(values, dtype=told["dtype"])


def read_table(path: Path, told: dict) -> np.ndarray:
    """The columns of a table that are the student's channels, in order."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
        first = lines[0] if lines else ""
        delimiter = next((sign for sign in ",;\t" if sign in first), None)
        names = [name.strip().strip('"') for name in first.split(delimiter)]
        longer = [number for number, line in enumerate(lines, start=1) if len(line.split(delimiter)) > len(names)]
        if longer:
            raise ValueError(f"line {longer[0]} has more columns than the first line; are there decimal commas?")
        named = any(character.isalpha() for character in first.lower().replace("e", ""))
        columns = [names.index(name) for name in told["channels"] if name in names] if named else None
        if named and len(columns or ()) < len(told["channels"]):
            raise ValueError(f"{told['name']} has channels {told['channels']}, this has columns {names}")
        return np.loadtxt(lines, delimiter=delimiter, skiprows=int(named), usecols=columns or None, ndmin=2)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def pieces(values: dict[str, np.ndarray], inputs: dict[str, dict], window: list[float] | None):
    """Start in seconds and values of each window, or of the whole recording if the student was not trained on windows."""
    lengths = {name: each["samples"] or (round(window[0] * each["rate"]) if window else None) for name, each in inputs.items()}
    for name, length in lengths.items():
        if length and len(values[name]) < length:
            raise ValueError(f"{name}: the student reads {length} samples, the recording has {len(values[name])}")
    seconds = min((len(values[name]) - (length or 0)) / inputs[name]["rate"] for name, length in lengths.items())
    for number in range(int(seconds / window[1] + 1e-6) + 1 if window else 1):
        start = number * window[1] if window else 0.0
        piece = {}
        for name, length in lengths.items():
            first = round(start * inputs[name]["rate"])
            piece[name] = values[name][first : first + length if length else None][None]
        yield (start if window else None), piece


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
