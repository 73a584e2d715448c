"""What is wrong with settings, in one paragraph: pydantic's findings in the words of the document."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


def explain(error: ValidationError, model: type[BaseModel], document: Mapping[str, Any], source: str) -> str:
    """Turn pydantic's list into one paragraph about its first entry: key, got, allowed."""
    entries = error.errors(include_url=False)
    # a list whose entry failed is reported as too short besides
    first, *others = [entry for entry in entries if entry["type"] != "too_short"] or entries
    path = _path(first["loc"], document)
    key = ".".join(map(str, path))
    text = f"the recipe {source}: "
    if first["type"] == "extra_forbidden":
        allowed = list(_choices_at(model, first["loc"][:-1])[0].model_fields)
        close = difflib.get_close_matches(str(path[-1]), allowed, n=1)
        text += f"unknown key {key}; allowed here: {', '.join(allowed)}"
        text += f"; did you mean {close[0]}?" if close else ""
    elif first["type"] == "missing":
        text += f"{key} is missing"
    elif first["type"] == "value_error":
        said = str(first["ctx"]["error"])
        if said.startswith("allowed"):
            text += f"{key} is {shown(first['input'])}; {said}"
        else:
            text += f"{key}.{said}" if key else said
    elif first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        kind = first["input"].get("kind") if isinstance(first["input"], dict) else first["input"]
        got = "is missing" if kind is None else f"is {shown(kind)}"
        text += (
            f"{key}.kind {got}; allowed: {', '.join(repr(_tag(c)) for c in _choices_at(model, first['loc']))}"
        )
    else:
        message = first["msg"].removeprefix("Input should be ").removeprefix("Value should be ")
        message = "a list" if message in ("a valid tuple", "a valid list") else message
        text += f"{key} is {shown(first['input'])}; allowed: {message[:1].lower()}{message[1:]}"
    return text + (f" (and {len(others)} more)" if others else "")


def _path(loc: Sequence[str | int], document: Any) -> list[str | int]:
    """Drop from pydantic's location what is not a key of the document: the tags of unions."""
    path: list[str | int] = []
    for position, part in enumerate(loc):
        last = position == len(loc) - 1
        if isinstance(document, dict) and (part in document or last):
            document = document.get(part)
        elif isinstance(document, list | tuple) and isinstance(part, int) and part < len(document):
            document = document[part]
        else:
            continue
        path.append(part)
    return path


def _choices_at(model: type[BaseModel], loc: Sequence[str | int]) -> list[type[BaseModel]]:
    """Find the settings classes that may stand at pydantic's location, choosing among a union's by the tag in it."""
    choices = [model]
    for part in loc:
        if isinstance(part, int):
            continue
        tagged = [choice for choice in choices if len(choices) > 1 and _tag(choice) == part]
        choices = tagged or list(_models_in(choices[0].model_fields[str(part)].annotation))
    return choices


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind")
    return get_args(field.annotation)[0] if field is not None else None


def shown(value: Any) -> str:
    """Show a value of the document briefly."""
    text = (
        repr(value)
        if not isinstance(value, dict | list)
        else "a list"
        if isinstance(value, list)
        else "a mapping"
    )
    return text if len(text) <= 60 else text[:57] + "..."
