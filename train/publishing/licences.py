"""Licences of what is published: of the code, of the weights and of the data they were trained on are three things."""

import re

from ecg_transformers.data.corpus import HUB_LICENCES

CODE_LICENCE = "Apache-2.0"
# What corpora say whose licence the package does not know or their owner has to find out, and what people write where
# they know of none.
UNSETTLED_LICENCE = re.compile(
    r"^\W*(?:none|other|no|nil|null|to be \w+|pending|x+|yes|true|false|licen[cs]ed?|lizenz|cc|foo|bar|test)\W*$"
    r"|^\W*(?:public|private|proprietary|restricted|secret|internal)\W*$|\?\s*$"
    r"|^\W*(?:none|see|ask|check|same|n\W?a|t\W?b\W?[acd]|to\W?do|no\W?licen[cs]e|no idea|dunno|idk)\b"
    r"|^\W*(?:keine?|unbekannt|aucune?|inconnue?|ninguna?|desconocid[oa]|nessuna|sconosciut[oa]|geen|onbekend)\b"
    r"|\b(?:don\W?t|do not) know\b|\b(?:confidential|all rights reserved|internal use|no (?:publication|sharing))\b"
    r"|\b(?:do not|don\W?t|must not be|may not be|not (?:for|to be)) "
    r"(?:distribut|publi(?:sh|cation)|shar(?:e|ing)|upload|release)"
    r"|\b(?:un(?:known|set|stated|specified|clear|decided|defined|sure|licen[cs]ed)|verify|yours?)\b"
    r"|\bnot (?:yet|known|stated|specified|mentioned|given|found|listed|available|applicable|clear|sure|set)\b"
    r"|\bnot (?:settled|declared|decided|determined|documented)\b"
    r"|that of the recordings",
    re.IGNORECASE,
)
EXPECTED_LICENCE = (
    "Expected its name, such as 'CC BY 4.0', 'CC0 1.0', 'ODC-BY 1.0' or 'ODbL 1.0', or that of the agreement under "
    "which you were given them, in one line"
)
"""What a message says where the licence of recordings is not settled."""
# Identifiers that the Hub knows beside those of corpora; any other licence is "other", with its name.
HUB_IDENTIFIERS = {*HUB_LICENCES.values(), "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "openrail", "gpl-3.0"}
HUB_IDENTIFIERS |= {"cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "cc-by-nd-4.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0"}


def is_settled(licence: str | None) -> bool:
    """Whether somebody has stated a licence that allows to publish: one line of text, and not `None`, "unknown",
    "n/a", "-", "verify on its page", "confidential" and the like."""
    if licence is None or not licence.isprintable():  # a line break would write more than a name into the card
        return False
    return bool(re.search(r"\w{2}", licence)) and not UNSETTLED_LICENCE.search(licence)


def licence_name(licence: str) -> str:
    """`"cc-by-4.0"` as people write it, `"CC BY 4.0"`; names that no corpus uses stay as they are."""
    names = {identifier: name for name, identifier in HUB_LICENCES.items()}
    return names[licence.lower()].upper() if licence.lower() in names else licence


def hub_licence(licence: str | None) -> dict[str, str]:
    """The fields of a card's metadata for the licence of the weights."""
    if not is_settled(licence):
        return {"license": "other", "license_name": "unknown"}
    identifier = HUB_LICENCES.get(licence.lower(), licence.lower().replace(" ", "-"))
    if identifier in HUB_IDENTIFIERS:
        return {"license": identifier}
    return {"license": "other", "license_name": licence}


def data_licence_line(data_licence: str | None) -> str:
    """The sentence of a card that states the licence of the recordings."""
    if data_licence is None:
        data_licence = "**unknown**. It has not been stated; find it out before you use or share these weights"
    return f"Licence of the data: {data_licence}."


def licence_section(data_licence: str | None, weights_licence: str | None) -> str:
    """The section of a card that states all three."""
    weights = f"`{weights_licence}`" if is_settled(weights_licence) else "**unknown**"
    lines = [
        "## Licences",
        "",
        f"* Code beside the weights: {CODE_LICENCE}.",
        f"* Weights: {weights}.",
        f"* Training data: {data_licence if is_settled(data_licence) else '**unknown**'}.",
    ]
    if not is_settled(weights_licence):
        lines += [
            "",
            "Unknown: whoever trained this model has not stated a licence. That is no permission to use it; ask them.",
        ]
    return "\n".join(lines) + "\n"
