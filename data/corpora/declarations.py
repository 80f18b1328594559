"""Reads and checks what a folder of one's own declares of itself, by a JSON file in it or by options."""

import json
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any


def read_json_object(file: Path) -> dict[str, Any]:
    """The keys and values of a JSON file.

    Raises:
        ValueError: if it is no JSON, or holds anything but one object.
    """
    try:
        declared = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # lists in lists in lists
        raise ValueError(f"{file} is no JSON: {error}.") from error
    if not isinstance(declared, dict):
        raise ValueError(f"Expected {file} to hold an object of keys and values, got {type(declared).__name__}.")
    return declared


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def is_texts(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(map(is_text, value))


def is_text_or_texts(value: Any) -> bool:
    return is_text(value) or is_texts(value)


def is_renaming(value: Any) -> bool:
    """Texts by text, or the same in one text: `"MLII:II,V5:V5"`."""
    return is_text(value) or (isinstance(value, Mapping) and is_texts([*value, *value.values()]))


def is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


_KINDS = {
    is_text: "a text",
    is_number: "a number",
    is_texts: "a list of texts",
    is_text_or_texts: "a text or a list of texts",
    is_renaming: "texts by text",
    is_mapping: "values by key",
}


def check_kinds(declared: Mapping[str, Any], kinds: Mapping[str, Callable[[Any], bool]], folder: Path):
    """Raises `ValueError` if a key is declared with another kind of value than its own; `None` is "not given"."""
    for name, is_kind in kinds.items():
        value = declared.get(name)
        if value is not None and not is_kind(value):
            raise ValueError(f"Expected {name} of {folder} as {_KINDS[is_kind]}, got {value!r}.")


def parse_options(words: Sequence[str]) -> dict[str, Any]:
    """Options of a corpus from `key=value` words; values as JSON (`500`, `["I", "II"]`) or else as they are,
    `leads` as names between commas.

    Raises:
        ValueError: for a word of another form, or a key that comes twice.
    """
    options = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals) or key in options:
            raise ValueError(f"Expected options of the corpus as key=value, each once, got {word!r}.")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value.split(",") if key == "leads" else value
    return options
