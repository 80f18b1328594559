"""Options of a corpus on the command line."""

import json


def parse_options(words: list[str]) -> dict:
    """Options of a corpus from `key=value` words; values as JSON (`500`, `["I", "II"]`) or else as they are.

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
            options[key] = value
    return options
