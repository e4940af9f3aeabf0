"""JSON Schema of recipes, including the options of all components, for completion and checks in editors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from kdcore import (
    KINDS,
    TERM_KEYS,
    TERM_LISTS,
    Entry,
    PluginError,
    PluginManager,
    Recipe,
    describe,
    options_model,
    plugin_manager,
)

Schema = dict[str, Any]

PART = "part-of-"
"""Prefix of definitions of a part that is merged into another, in which nothing is required."""

_KIND_AT = {
    ("DataSpec", "dataset"): "dataset",
    ("DataSpec", "protocol"): "protocol",
    ("ParticipantSpec", "encoder"): "encoder",
    ("ParticipantSpec", "transforms"): "transform",
    ("Recipe", "fusion"): "fusion",
    ("Recipe", "class_embeddings"): "class_embedding",
    ("Recipe", "schedule"): "schedule",
}
_FACTORY: Schema = {"type": "string", "pattern": r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"}
"""An encoder constructed by a function or class of any module, ``package.module:factory``."""

_TEXTS: Schema = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}


def recipe_schema(plugins: PluginManager | None = None) -> Schema:
    """Return the schema (draft 7) of recipe files, including ``extends``, ``like`` and ``copies``.

    A recipe that extends another, and a participant that is like another, may be incomplete.
    """
    plugins = plugins or plugin_manager()
    used = [entry for entry in plugins.registry.entries() if entry.kind != "modality"]
    definitions, models = _definitions(used)
    term = definitions.pop("Term")["properties"]
    del definitions["Component"]
    for kind in KINDS:
        members = [entry for entry in used if entry.kind == kind]
        own = {key: term[key] for key in TERM_KEYS} if kind == "loss" else {}
        definitions |= _of_kind(kind, {entry: _variant(entry, models.get(entry), own) for entry in members})
    for (section, key), kind in _KIND_AT.items():
        held = definitions[section]["properties"]
        held[key] = _with_references(held[key], {"Component": kind}.get)
    _add_what_files_may_say(definitions, plugins)
    definitions = {name: _with_references(each, {"Term": "loss"}.get) for name, each in definitions.items()}
    definitions |= {PART + name: _part(name, each) for name, each in definitions.items()}
    terms = _terms_by_label([entry for entry in used if entry.kind == "loss"])
    for section in ("Recipe", "ParticipantSpec"):
        held = definitions[PART + section]["properties"]
        for key in TERM_LISTS:
            if key in held:
                held[key] = {"if": {"type": "object"}, "then": terms, "else": held[key]}
    definitions["ParticipantSpec"] = {
        "if": {"required": ["like"]},
        "then": _to(PART + "ParticipantSpec"),
        "else": _complete(definitions["ParticipantSpec"]),
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "kdcore recipe",
        "type": "object",
        "if": {"required": ["extends"]},
        "then": _to(PART + "Recipe"),
        "else": _to("Recipe"),
        "$defs": definitions,
    }


class _Lenient(GenerateJsonSchema):
    """Accepts any value for a type without a schema, such as a function."""

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Schema:
        return {}


def _definitions(entries: list[Entry]) -> tuple[dict[str, Schema], dict[Entry, Schema]]:
    """Return pydantic's definitions by name, with those of component options separately."""
    models: dict[Entry, type[BaseModel]] = {}
    for entry in entries:
        try:
            models[entry] = options_model(entry)
        except PluginError:
            continue  # it can still be selected by name
    references, whole = models_json_schema(
        [(each, "validation") for each in (Recipe, *models.values())], schema_generator=_Lenient
    )
    definitions = {name: _tidy(each) for name, each in whole["$defs"].items()}
    of_models = {
        entry: definitions.pop(references[model, "validation"]["$ref"].rpartition("/")[2]) for entry, model in models.items()
    }
    return definitions, of_models


def _tidy(schema: Any) -> Any:
    """Remove titles, shorten descriptions to one line, and write tuples as in draft 7."""
    if isinstance(schema, list):
        return [_tidy(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: each for key, each in schema.items() if key != "title" or not isinstance(each, str)}
    if isinstance(kept.get("description"), str):
        kept["description"] = kept["description"].partition("\n\n")[0].replace("\n", " ")
    if isinstance(kept.get("prefixItems"), list):
        kept["items"] = kept.pop("prefixItems")
    tidied = {key: each if key in ("default", "enum", "const") else _tidy(each) for key, each in kept.items()}
    return tidied | _told_apart(tidied.pop("anyOf")) if isinstance(tidied.get("anyOf"), list) else tidied


def _told_apart(choices: list[Schema]) -> Schema:
    """Test alternatives one by one if their types differ, so that errors refer to the intended one."""
    null = {"type": "null"}
    if null in choices and len(choices) > 1:
        return _or_null(_told_apart([each for each in choices if each != null]))
    if len(choices) == 1:
        return choices[0]
    if [each.get("type") for each in choices] == ["array", "object"]:
        return {"if": {"type": "array"}, "then": choices[0], "else": choices[1]}
    return {"anyOf": choices}


def _or_null(schema: Schema) -> Schema:
    return {"if": {"type": "null"}, "else": schema}


def _variant(entry: Entry, options: Schema | None, own: Schema) -> Schema:
    """Return the schema of a component with its name."""
    try:
        summary = describe(entry).summary
    except PluginError as error:
        summary = str(error)
    name = {"enum": [entry.name, entry.qualified], "description": summary}
    if options is None:
        return {"type": "object", "properties": {"name": name}}
    properties = {"name": name, **own, **options.get("properties", {})}
    required = ["name", *options.get("required", ())]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _of_kind(kind: str, variants: Mapping[Entry, Schema]) -> dict[str, Schema]:
    """Return the schema of a kind of component, written as a name or a mapping, and its variants."""
    names = [name for entry in variants for name in (entry.name, entry.qualified)]
    names_only = [
        name
        for entry, each in variants.items()
        if len(each.get("required", "1")) == 1
        for name in (entry.name, entry.qualified)
    ]
    said: dict[str, list[Schema]] = {}
    for each in variants.values():
        for key, option in each["properties"].items():
            if key != "name":
                said.setdefault(key, []).append(option)
    options = {key: each[0] if all(other == each[0] for other in each) else {} for key, each in said.items()}
    chosen = [{"if": _named(entry), "then": _to(f"{kind}/{entry.qualified}")} for entry in variants]
    registered, usable = (
        {"enum": each} if kind != "encoder" else {"anyOf": [{"enum": each}, _FACTORY]} for each in (names, names_only)
    )
    by_name = {"type": "object", "properties": {"name": registered}, "required": ["name"], "allOf": chosen}
    nameless = {"type": "object", "properties": options, "additionalProperties": False}
    either = {"if": {"type": "object", "required": ["name"]}, "then": by_name, "else": nameless}
    return {
        kind: {"if": {"type": "string"}, "then": usable, "else": by_name},
        f"overlay/{kind}": {"if": {"type": "string"}, "then": registered, "else": either},
        **{f"{kind}/{entry.qualified}": each for entry, each in variants.items()},
    }


def _named(entry: Entry) -> Schema:
    return {"properties": {"name": {"enum": [entry.name, entry.qualified]}}, "required": ["name"]}


def _add_what_files_may_say(definitions: dict[str, Schema], plugins: PluginManager) -> None:
    """Add forms that the loader resolves before the model is validated."""
    recipe, participant = definitions["Recipe"]["properties"], definitions["ParticipantSpec"]["properties"]
    recipe["extends"] = {**_TEXTS, "description": "Name of a shipped recipe, path relative to this file, or a list of these."}
    recipe["plugins"]["items"] = {"anyOf": [{"enum": sorted(plugins.plugins)}, {"type": "string", "pattern": r"\.py$"}]}
    participant["like"] = {
        "type": "string",
        "description": "Participant to copy; keys given here override the copy.",
    }
    participant["copies"] = {
        "type": "integer",
        "minimum": 1,
        "maximum": 100,
        "description": "Number of copies of this student.",
    }
    participant["taps"] = {"anyOf": [participant["taps"], {"type": "array", "items": {"type": "string"}}]}


def _complete(participant: Schema) -> Schema:
    """Require modality and encoder for a network that is not like another participant."""
    without = [{"required": [key], "properties": {key: {"type": "string"}}} for key in ("follows", "outputs")]
    return {"if": {"anyOf": without}, "then": participant, "else": participant | {"required": ["modality", "encoder"]}}


def _part(name: str, schema: Schema) -> Schema:
    """Return a definition for values that are merged over others."""
    if name in KINDS:
        return _or_null(_to(f"overlay/{name}"))
    return _with_references(_relaxed(schema), lambda other: PART + other)


def _terms_by_label(losses: list[Entry]) -> Schema:
    """Return the schema of terms that are merged by label. A label that is the name of a loss refers to that loss by default.

    A term whose ID is the name of another loss must therefore be merged with its `name`.
    """
    any_loss = _to(PART + "loss")
    of_label = {"if": {"type": "object", "not": {"required": ["name"]}}, "else": any_loss}
    labels = Counter(entry.name for entry in losses)
    properties = {
        entry.name: {**of_label, "then": _to(f"{PART}loss/{entry.qualified}")} for entry in losses if labels[entry.name] == 1
    }
    return {"type": "object", "properties": properties, "additionalProperties": any_loss}


def _relaxed(schema: Any) -> Any:
    """Return a schema in which nothing is required, and null removes inherited values."""
    if isinstance(schema, list):
        return [_relaxed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    relaxed = {key: each if key == "if" else _relaxed(each) for key, each in schema.items() if not _demands(key, each)}
    if isinstance(relaxed.get("properties"), dict):
        relaxed["properties"] = {key: _or_null(each) for key, each in relaxed["properties"].items()}
    if isinstance(relaxed.get("additionalProperties"), dict):
        relaxed["additionalProperties"] = _or_null(relaxed["additionalProperties"])
    return relaxed


def _demands(key: str, value: Any) -> bool:
    return key == "required" and isinstance(value, list)


def _with_references(schema: Any, rename: Callable[[str], str | None]) -> Any:
    if isinstance(schema, list):
        return [_with_references(each, rename) for each in schema]
    if not isinstance(schema, dict):
        return schema
    reference = schema.get("$ref")
    if isinstance(reference, str):
        name = _name(reference)
        return {**schema, **_to(rename(name) or name)}
    return {key: _with_references(each, rename) for key, each in schema.items()}


def _name(reference: str) -> str:
    return reference.removeprefix("#/$defs/").replace("~1", "/").replace("~0", "~")


def _to(name: str) -> Schema:
    return {"$ref": "#/$defs/" + name.replace("~", "~0").replace("/", "~1")}
