"""Licences of what is published: of the code, of the weights and of the data they were trained on are three things."""

import re

from ecg_transformers.data.dataset_card import HUB_LICENCES

CODE_LICENCE = "Apache-2.0"
# Corpora of which the package does not know the licence, or of which it is for the user to find out.
UNSETTLED_LICENCE = re.compile(
    r"^\s*(none|other)?\s*$|\b(unknown|unset|unstated|verify|yours?)\b|that of the recordings", re.IGNORECASE
)
# Identifiers that the Hub knows beside those of corpora; any other licence is "other", with its name.
HUB_IDENTIFIERS = {*HUB_LICENCES.values(), "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "openrail", "gpl-3.0"}
HUB_IDENTIFIERS |= {"cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "cc-by-nd-4.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0"}


def is_settled(licence: str | None) -> bool:
    """Whether somebody has stated a licence: not `None`, "unknown", "other", "verify on its page" and the like."""
    return licence is not None and not UNSETTLED_LICENCE.search(licence)


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
