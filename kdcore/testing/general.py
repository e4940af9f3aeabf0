"""Checks of components of every kind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from kdcore.plugin.option_schema import describe, options_model
from kdcore.testing.case import ConformanceError, require, skip_unless
from kdcore.testing.checks import Subject, check


@check()
def documented(subject: Subject) -> None:
    """Its docstring has a summary, and describes every option under ``Args:``."""
    description, target = describe(subject.entry), subject.entry.target
    require(
        len(description.summary.split()) > 1,
        f"{target} needs a docstring whose first line describes it in a sentence",
    )
    undocumented = [option.name for option in description.options if not option.description]
    require(not undocumented, f"the docstring of {target} has no line under `Args:` for {', '.join(undocumented)}")


@check()
def options_round_trip(subject: Subject) -> None:
    """Its options have a schema, and are unchanged after being written as YAML and read again."""
    model = options_model(subject.entry)
    json.dumps(model.model_json_schema())
    subject.options  # noqa: B018 - may raise NotApplicable
    missing = _missing(subject)
    skip_unless(not missing, "options are missing: see the check 'constructed'")
    before = model(**subject.options).model_dump(mode="json")
    text = yaml.safe_dump(before, allow_unicode=True)
    try:
        after = model(**yaml.safe_load(text)).model_dump(mode="json")
    except ValueError as error:
        raise ConformanceError(f"its options cannot be read back from YAML: {error}\n{text}") from error
    wrong = [name for name in before if before[name] != after[name]]
    require(
        not wrong, f"options that change when written as YAML and read again: {', '.join(wrong)}; use simpler types\n{text}"
    )


@check()
def constructed(subject: Subject) -> None:
    """It can be constructed with its defaults, or with the options of its case."""
    subject.options  # noqa: B018
    missing = _missing(subject)
    if missing:
        example = ", ".join(f"{name!r}: …" for name in missing)
        raise ConformanceError(f"it has options without a default: test it with Case(options={{{example}}})")
    component = subject.entry.load()
    if callable(component):
        subject.construct(given=_given(subject))


def _missing(subject: Subject) -> list[str]:
    model = options_model(subject.entry)
    return [name for name, field in model.model_fields.items() if field.is_required() and name not in subject.options]


def _given(subject: Subject) -> Mapping[str, Any]:
    if subject.entry.kind != "encoder":
        return {}
    from kdcore.testing.encoder_inputs import given, shapes

    return given(shapes(subject)[0])
