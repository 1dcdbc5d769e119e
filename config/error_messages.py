"""Says what is wrong with a settings file: the key, the rule, and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline.errors import Rejected

SECRET_WORDS = ("url", "headers", "secret", "password", "token", "key", "client")
"""A key whose path holds one of these is never shown with its value."""


class SettingsError(Rejected):
    """The settings cannot be used; the message lists every problem that was found."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(
            f"The settings cannot be used ({count}):\n{lines}\n"
            "config/default.toml explains every key; a variable SMEARLINK_SECTION__KEY "
            "in the environment overrides the file.",
            code="settings_unusable",
        )


def explain(err: ValidationError, model: type[BaseModel], given: Mapping[str, Any]) -> list[str]:
    """One line for each thing that the model refused."""
    return [_line(detail, model, given) for detail in err.errors()]


def nearest(word: str, known: Iterable[str]) -> str:
    """A question that names the known word closest to `word`, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]}?" if close else ""


def key_types(model: type[BaseModel]) -> dict[str, Any]:
    """The keys of a model as they stand in TOML, each with its type."""
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models inside a type, however deep: of `tuple[Annotated[A | B, …], …]`, A and B."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in models_in(inner)]


def dotted_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key below a model, as `section.key`."""
    for key, annotation in key_types(model).items():
        yield prefix + key
        for inner in models_in(annotation):
            yield from dotted_keys(inner, f"{prefix}{key}.")


def _line(detail: ErrorDetails, model: type[BaseModel], given: Mapping[str, Any]) -> str:
    path = detail["loc"]
    where = _where(path, model, given)
    match detail["type"]:
        case "extra_forbidden":
            return f"{where}: there is no such key.{_key_hint(path, model)}"
        case "missing":
            return f"{where}: is missing and has no default; give it a value."
        case "union_tag_not_found":
            return f"{where}.type: is missing; say what kind of destination it is."
        case "union_tag_invalid":
            tag, kinds = detail["ctx"]["tag"], _quoted(detail["ctx"]["expected_tags"])
            return f"{where}.type: {tag!r} is not one of {', '.join(kinds)}.{nearest(tag, kinds)}"
        case "literal_error":
            words = _quoted(detail["ctx"]["expected"])
            hint = nearest(str(detail["input"]), words)
            return f"{where}: must be one of {', '.join(words)}{_value(detail)}.{hint}"
        case _:
            rule = detail["msg"].removeprefix("Value error, ").replace("Input should", "should")
            return f"{where}: {rule}{_value(detail)}."


def _where(path: Sequence[int | str], model: type[BaseModel], given: Mapping[str, Any]) -> str:
    """`dicom.port`, or `destination[pacs].port` for a member of a list of tables."""
    shown, value = "", cast(Any, given)
    for part in path:
        if isinstance(part, int):
            value = value[part] if isinstance(value, list | tuple) and part < len(value) else {}
            shown += f"[{_name_of(value) or part + 1}]"
        elif isinstance(value, Mapping) and value.get("type") == part and part not in value:
            continue
        else:
            value = value.get(part, {}) if isinstance(value, Mapping) else {}
            shown += f".{part}"
    return shown.removeprefix(".") or "settings"


def _name_of(table: Any) -> str:
    name = table.get("name", table.get("ae_title", "")) if isinstance(table, Mapping) else ""
    return name if isinstance(name, str) else ""


def _key_hint(path: Sequence[int | str], model: type[BaseModel]) -> str:
    word, siblings = str(path[-1]), list(key_types(_model_holding(path, model)))
    if hint := nearest(word, siblings):
        return hint
    elsewhere = [key for key in dotted_keys(model) if key.split(".")[-1] == word]
    if elsewhere:
        return f" Did you mean {elsewhere[0]}?"
    return f" The keys here are {', '.join(siblings)}."


def _model_holding(path: Sequence[int | str], model: type[BaseModel]) -> type[BaseModel]:
    """The model whose key is the last part of `path`; unions are told apart by their tag."""
    candidates = [model]
    for part in path[:-1]:
        if isinstance(part, int):
            continue
        if len(candidates) > 1:
            candidates = [member for member in candidates if _tag(member) == part]
        else:
            candidates = models_in(key_types(candidates[0])[part])
    return candidates[0]


def _tag(model: type[BaseModel]) -> str:
    field = model.model_fields.get("type")
    return str(get_args(field.annotation)[0]) if field is not None else ""


def _quoted(words: str) -> list[str]:
    return words.split("'")[1::2]


def _value(detail: ErrorDetails) -> str:
    is_secret = any(word in str(part) for part in detail["loc"] for word in SECRET_WORDS)
    is_plain = isinstance(detail["input"], bool | int | float | str)
    return f", but is {detail['input']!r}" if is_plain and not is_secret else ""
