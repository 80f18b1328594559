"""Licences of what is published: of the code, of the weights and of the data they were trained on are three things."""

from ecg_transformers.data.corpus import HUB_LICENCES

CODE_LICENCE = "Apache-2.0"
HUB_IDENTIFIERS = {*HUB_LICENCES.values()} | set(
    "apache-2.0 mit bsd-2-clause bsd-3-clause openrail unlicense cc-by-nc-sa-4.0 cc-by-nc-nd-4.0 cc-by-nd-4.0 gpl-3.0 "
    "lgpl-3.0 agpl-3.0 mpl-2.0 eupl-1.2 cecill-b ms-pl isc".split()
)
OTHER = "other:"
LONGEST_NAME = 200


def hub_identifier(licence: str | None) -> str | None:
    """`"cc-by-4.0"` of `"CC BY 4.0"`, `"other"` of `"other: NAME"`; `None` for what is no licence, such as `"n/a"`."""
    if licence is None or not licence.isprintable() or len(licence) > LONGEST_NAME:  # a name, no lines of a card
        return None
    name = licence.strip().lower()
    if name.startswith(OTHER):
        return "other" if len(name.removeprefix(OTHER).strip()) > 2 else None
    identifier = HUB_LICENCES.get(name, name.replace(" ", "-"))
    return identifier if identifier in HUB_IDENTIFIERS else None


def is_settled(licence: str | None) -> bool:
    """Returns `True` for a known licence, and for `"other: NAME"`."""
    return hub_identifier(licence) is not None


def require_settled(licence: str | None, recordings: str, flag: str, ending: str = ""):
    """Raises `ValueError` for a licence of recordings (such as `"training data"`) that is not settled, with the flag
    that states it."""
    if not is_settled(licence):
        raise ValueError(
            f"The licence of the {recordings} is not settled: it is {licence!r}. Look it up where the recordings come "
            f"from, and if it allows you to publish them, or weights that were trained on them, state it: {flag} "
            "\"CC BY 4.0\". Expected a known licence, such as 'CC BY 4.0', 'CC0 1.0', 'ODC-BY 1.0' or "
            "'ODbL 1.0', or 'other: NAME' with the name of the agreement under which you were given them, in one "
            f"line.{ending}"
        )


def require_weights_licence(licence: str | None, ending: str = ""):
    """Raises `ValueError` for a licence of weights that is given and none."""
    if licence is not None and not is_settled(licence):
        raise ValueError(
            f"{licence!r} is no licence of weights. State a known one, such as --weights_licence cc-by-4.0, or "
            f'"other: NAME".{ending}'
        )


def licence_name(licence: str) -> str:
    """`"cc-by-4.0"` as people write it, `"CC BY 4.0"`; `"other: NAME"` and identifiers that no corpus uses stay."""
    names = {identifier: name for name, identifier in HUB_LICENCES.items()}
    return names[licence.lower()].upper() if licence.lower() in names else licence


def hub_licence(licence: str | None) -> dict[str, str]:
    """Fields of a card's header for the licence of the weights."""
    identifier = hub_identifier(licence)
    if identifier is None:
        return {"license": "other", "license_name": "unknown"}
    name = licence.strip()[len(OTHER) :].strip() if identifier == "other" else None
    return {"license": identifier} | ({} if name is None else {"license_name": name})


def stated_licence(header: dict) -> str | None:
    """The licence of the weights that a card's header states; `None` where it is unknown."""
    licence = header.get("license")
    if licence == "other":
        name = header.get("license_name")
        return None if name in (None, "unknown") else f"{OTHER} {name}"
    return licence
