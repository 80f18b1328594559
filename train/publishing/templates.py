"""Rendering of pages and cards: the environment of their templates, and text of others made safe for Markdown."""

from jinja2 import Environment, PackageLoader, StrictUndefined

LONGEST_TEXT = 400
MARKDOWN_SIGNS = "\\`*[]|"
HTML_SIGNS = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def template_environment(package: str, autoescape: bool) -> Environment:
    """An environment with the templates of a package in which a name that nobody defined is an error. HTML is escaped
    by `autoescape`, Markdown by the filter `md`, see [`escape_markdown`]."""
    environment = Environment(
        loader=PackageLoader(package, "."),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["md"] = escape_markdown
    return environment


def escape_markdown(text: object) -> str:
    """One line of bounded length without tags, links, bars or other signs that Markdown would read."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in str(text)).split())
    line = line if len(line) <= LONGEST_TEXT else f"{line[: LONGEST_TEXT - 1]}…"
    return "".join(HTML_SIGNS.get(sign, f"\\{sign}" if sign in MARKDOWN_SIGNS else sign) for sign in line)
