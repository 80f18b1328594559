"""Where the templates of pages and cards are rendered."""

from jinja2 import Environment, PackageLoader, StrictUndefined


def template_environment(package: str, autoescape: bool) -> Environment:
    """An environment with the templates of a package in which a name that nobody defined is an error.

    Args:
        package (`str`): Name of the package in whose folder the templates lie.
        autoescape (`bool`): `True` for HTML; Markdown is escaped by filters of its own.
    """
    return Environment(
        loader=PackageLoader(package, "."),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
