"""Writing of the recipe for a detected dataset, and the summary of what was detected."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kdcore import Builder, DataError, Dataset, KdcoreError, Sample, UsageError, load_recipe, options_model, plugin_manager
from kdcore_datasets.new.archives import unpacked
from kdcore_datasets.new.arrays import guess_arrays
from kdcore_datasets.new.guess import FILL_IN, Guess, section
from kdcore_datasets.new.published import guess_published
from kdcore_datasets.new.sensor_files import guess_sensor_files
from kdcore_datasets.sensor_csv.recordings import Stretch

ARCHIVES = (".zip", ".tar", ".tgz", ".rar", ".7z")
"""File name suffixes of archives."""

LENGTHS = (2.0, 1.0, 0.5, 0.25)
"""Lengths of windows in seconds, of which the longest that suits the recordings is chosen."""

MOST = 100_000
"""Maximum number of files of a folder that are listed."""


def new_recipe(folder: Path, to: Path | None = None, rate: float | None = None) -> None:
    """Write a recipe that reads a folder of recordings, and return a summary of what was detected.

    Args:
        folder: Folder of the recordings, or a zip archive, which is unpacked to a folder next to it.
        to: Recipe to write. Default: the name of the folder with ``.yaml``.
        rate: Sampling rate in Hz, if the files do not contain it.

    Raises:
        UsageError: If the recipe exists.
        DataError: If no dataset can read the folder.
    """
    target = to or Path(f"{_slug(folder.with_suffix('') if folder.is_file() else folder)}.yaml")
    if target.exists():
        raise UsageError(f"{target} already exists; choose another file with --output")
    if folder.suffix.lower() == ".zip" and folder.is_file():
        folder = unpacked(folder)
        print(f"unpacked to {folder}")
    guess = look(folder, rate)
    samples, modalities, problem = [], ["accelerometer"], ""
    try:
        modalities = _modalities(guess)
        if not guess.missing:
            samples, modalities = _found(guess)
    except (KdcoreError, ValueError) as error:
        problem = str(error)
    target.write_text(recipe_text(_slug(target), guess, modalities), encoding="utf-8")
    if samples:
        try:
            Builder(load_recipe(target)).protocol().split(samples)
        except KdcoreError as error:
            problem = str(error)
    for line in _said(target, guess, samples, problem):
        print(line)


def look(folder: Path, rate: float | None = None) -> Guess:
    """Detect the dataset that reads a folder.

    Args:
        folder: Folder of the recordings.
        rate: Sampling rate in Hz, if the files do not contain it.

    Raises:
        DataError: If the folder does not exist, or no dataset can read its files.
    """
    if not folder.is_dir():
        packed = folder.suffix in ARCHIVES and folder.is_file()
        what = "is an archive; unpack it and pass the folder" if packed else "is not a folder"
        raise DataError(f"{folder}: {what if folder.exists() else 'there is no such folder'}")
    files = list(_files(folder))
    found = guess_published(folder, files) or guess_arrays(folder, files, rate) or guess_sensor_files(folder, files, rate)
    if found is None:
        kinds = sorted({Path(file).suffix or "no suffix" for file in files})
        held = f"{len(files)} files ({', '.join(kinds[:8])})" if files else "no files"
        packed = any(file.endswith(ARCHIVES) for file in files)
        what = "unpack the archives first" if packed else "see kdcore list datasets"
        if any(Path(file).name == "state.json" for file in files):
            what = (
                "a folder of Hugging Face `datasets` needs a window, a list of values, in each row; if rows are time steps, "
                "write a Parquet file for each recording"
            )
        raise DataError(f"{folder}: no dataset reads {held}; {what}")
    return found


def _files(folder: Path) -> Iterator[str]:
    """Return the sorted names of the files below a folder, without hidden ones."""
    count = 0
    for home, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith(".") and each != "__MACOSX")
        for name in sorted(each for each in names if not each.startswith(".")):
            count += 1
            if count > MOST:
                return
            yield (Path(home) / name).relative_to(folder).as_posix()


def _dataset(options: dict[str, Any]) -> Dataset:
    entry = plugin_manager().registry.get("dataset", options["name"])
    values = {name: value for name, value in options.items() if name != "name"}
    return entry.load()(**dict(options_model(entry).model_validate_json(json.dumps(values), strict=True)))


def _modalities(guess: Guess) -> list[str]:
    """Return the modalities of the dataset after filling in missing values, those most suitable for a student first."""
    options = json.loads(json.dumps(guess.dataset))
    for place in (place for place, said in guess.why.items() if said.startswith(FILL_IN)):
        *path, last = place
        home = options
        for key in path:
            home = home[key]
        home[last] = {"rate": 1.0, "time_unit": "s"}.get(last, "?")
    return sorted(_dataset(options).modalities, key=lambda name: not name.startswith(("accelerometer", "signal")))


def _found(guess: Guess) -> tuple[list[Sample], list[str]]:
    """Return the samples that the dataset finds, and their modalities.

    Raises:
        DataError: If there are none, or the first sample of a modality cannot be read.
    """
    dataset = _dataset(guess.dataset)
    samples = list(dataset.samples())
    recorded = [name for name in _modalities(guess) if any(name in each.sources for each in samples)]
    if not recorded:
        raise DataError("found no samples")
    for name in recorded:
        signal = dataset.read(next(each for each in samples if name in each.sources), name)
        if guess.window and name == recorded[0]:
            _fit_window(guess, [each.sources[name] for each in samples if name in each.sources], signal.rate)
    return samples, recorded


def _fit_window(guess: Guess, sources: list[object], rate: float | None) -> None:
    """Choose windows that nine in ten recordings are long enough for: recordings that are shorter would be dropped."""
    rows = [each.last - each.first for each in sources if isinstance(each, Stretch)]
    if not rows or not rate:
        return
    usual = float(np.quantile(rows, 0.1)) / rate
    guess.length = next((length for length in LENGTHS if length <= usual), LENGTHS[-1])
    if guess.length < LENGTHS[0]:
        guess.notes.append(
            f"windows of {guess.length:g} s: one in ten recordings is shorter than {usual:.2g} s, the median is "
            f"{float(np.median(rows)) / rate:.2g} s long"
        )


def recipe_text(name: str, guess: Guess, modalities: list[str]) -> str:
    """Return the recipe for a detected dataset.

    Args:
        name: Name of the recipe.
        guess: The detected dataset.
        modalities: Its modalities. The first is that of the student, the second that of the teacher.
    """
    lines = ["# Written by kdcore data new. Check what is guessed, then: kdcore data check FILE", "version: 1", f"name: {name}"]
    lines += ["data:", "  dataset:", *section(guess.dataset, guess.why, 4)]
    lines += [f"  protocol: {guess.protocol}  # see docs/data.md for others"]
    if guess.window:
        seconds = f"{{length: {guess.length}, hop: {guess.length / 2}}}"
        lines += [f"  window: {seconds}  # seconds; shorter recordings are dropped"]
    if guess.gaps:
        lines += ["  on_bad_sample: skip  # broken recordings are skipped and listed"]
    if len(modalities) > 1:
        lines += ["teachers:", "  teacher:", *_participant(modalities[1], 4, guess)]
    lines += ["student:", *_participant(modalities[0], 2, guess)]
    lines += [f"losses: [cross-entropy{', soft-target' if len(modalities) > 1 else ''}]"]
    return "\n".join(lines) + "\n"


def _participant(modality: str, indent: int, guess: Guess) -> list[str]:
    steps = "[{name: resample, length: 64}, normalise]"
    if modality == "skeleton":
        unknown = guess.dataset["name"].startswith("skeleton-") and not guess.dataset.get("skeleton")  # which joint is where
        centre = "" if unknown else "centre, "
        steps = f"[{{name: resample, length: 64}}, {centre}joints-to-channels, normalise]"
    lines = [f"modality: {modality}", f"transforms: {steps}", "encoder: cnn1d"]
    return [" " * indent + line for line in lines]


def _said(target: Path, guess: Guess, samples: list[Sample], problem: str) -> Iterator[str]:
    """Return the lines that the command prints."""
    yield f"{target}: dataset {guess.dataset['name']}"
    if samples:
        subjects = {each.key.subject for each in samples} - {""}
        classes = {each.label for each in samples} - {None}
        yield f"{len(samples)} samples, {len(classes)} classes, {len(subjects)} subjects"
    for title, lines in (("Guessed", guess.guessed), ("Noticed", guess.notes), ("Fill in", guess.missing)):
        if lines:
            yield f"{title}:"
            yield from (f"  {line}" for line in lines)
    if problem:
        yield f"Not usable yet: {problem}"
    if guess.missing:
        yield f"Search {target} for '{FILL_IN}'."
    yield f"Next: kdcore data check {target}"


def _slug(path: Path) -> str:
    stem = path.stem if path.suffix in (".yaml", ".yml") else path.absolute().name
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-") or "recordings"
