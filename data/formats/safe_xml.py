"""XML from strangers: no entities, nothing fetched, and bounds on bytes, elements and depth.

The tree has local names: namespaces and prefixes are left out of tags and attributes, so that `find("a/b")` works on
files with and without them. A `<!DOCTYPE ...>` that only names a document type (GE MUSE writes one) is let through;
expat reads no external ones, and every declaration or use of an entity is refused.
"""

import os
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from .limits import MAX_TEXT_BYTES, read_bytes

MAX_ELEMENTS = 2**20
MAX_DEPTH = 64
_HEAD_BYTES = 2**16


def read_xml(path: str | os.PathLike, expected_root: str) -> Element:
    """The root element of an XML file, with local names.

    Raises:
        ValueError: if the file is no XML, too large, has entities, or another root than `expected_root`.
    """
    root = parse_xml(read_bytes(path, MAX_TEXT_BYTES, "XML file"), os.fspath(path))
    if root.tag != expected_root:
        raise ValueError(f"{os.fspath(path)}: expected the root element {expected_root!r}, got {root.tag!r}.")
    return root


def parse_xml(content: bytes, path: str = "the XML") -> Element:
    """Reads as [`read_xml`], from memory and with any root."""
    builder, depth, count = TreeBuilder(), 0, 0

    def start(tag, attributes):
        nonlocal depth, count
        depth, count = depth + 1, count + 1
        if depth > MAX_DEPTH or count > MAX_ELEMENTS:
            raise ValueError(f"{path} has more than {MAX_ELEMENTS} elements or {MAX_DEPTH} levels of them.")
        builder.start(_local(tag), {_local(name): value for name, value in attributes.items()})

    def end(tag):
        nonlocal depth
        depth -= 1
        builder.end(_local(tag))

    parser = _parser(path)
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, builder.data
    try:
        parser.Parse(content, True)
        return builder.close()
    except (expat.ExpatError, LookupError, AssertionError) as error:
        raise ValueError(f"{path} is no well-formed XML: {error}.") from error


def root_name(path: str | os.PathLike) -> str | None:
    """The local name of a file's root element; `None` if its first 64 KiB are no XML."""
    found = []
    parser = _parser(os.fspath(path))
    parser.StartElementHandler = lambda tag, attributes: found.append(_local(tag))
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    try:
        parser.Parse(head, False)
    except (expat.ExpatError, LookupError):
        pass  # what comes after the root element is checked by the reader
    return found[0] if found else None


def _parser(path: str):
    def refuse(*_):
        raise ValueError(f"{path} declares or uses XML entities, which can name other files or grow without bound.")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    parser.EntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = refuse
    parser.SkippedEntityHandler = refuse
    return parser


def _local(name: str) -> str:
    return name.rpartition(" ")[2]


def text_of(element: Element, name: str, path: str) -> str:
    """The stripped text of a child that has to be there and has to have one.

    Raises:
        ValueError: names the missing element.
    """
    text = (element.findtext(name) or "").strip()
    if not text:
        raise ValueError(f"{path}: expected <{name}> with a value in <{element.tag}>, got none.")
    return text


def number_of(text: str | None, what: str, path: str) -> float:
    """A finite number from text.

    Raises:
        ValueError: says what was expected and what came.
    """
    try:
        number = float(text or "")
    except ValueError:
        number = float("nan")
    if not np.isfinite(number):
        raise ValueError(f"{path}: expected a number for {what}, got {text!r}.")
    return number
