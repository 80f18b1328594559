"""The card of a model as it goes to the Hub: with its address, all licences stated, results and a picture."""

import re
from collections.abc import Mapping
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData

from .licences import EXPECTED_LICENCE, data_licence_line, hub_licence, is_settled, licence_name, licence_section
from .model_card import DATA_LICENCE_KEY, NO_RESULTS
from .pictures import Picture
from .private_text import without_paths, without_places
from .shared_folder import ShownEvaluation

START = "<!-- ecg-transformers evaluation: start -->"
END = "<!-- ecg-transformers evaluation: end -->"

RESULTS_BELOW = "Measured after the training: see the evaluation below."
SNIPPET_ADDRESS = re.compile(r'^model_id = "(.*)"$', re.MULTILINE)
DATA_LICENCE = re.compile(r"^Licence of the data: .*$", re.MULTILINE)
LICENCES = re.compile(r"^## Licences\n\n(?:\* .*\n?)+(?:\nUnknown: whoever .*\n?)?", re.MULTILINE)
FIRST_PARAGRAPH = re.compile(r"^# .*\n+(?:[^\n#].*\n)+", re.MULTILINE)


def published_card(
    text: str,
    repo_id: str,
    data_licence: str | None = None,
    weights_licence: str | None = None,
    evaluation: ShownEvaluation | None = None,
    pictures: Mapping[str, Picture] | None = None,
) -> ModelCard:
    """Prepares a card for the Hub; what a person wrote into it stays, without paths of this machine.

    Args:
        text (`str`): The card of the checkpoint, `README.md`.
        repo_id (`str`): Where it goes; loading snippet, title and model-index are given this name.
        data_licence (`str`, *optional*): Licence of the training data; by default what the card's header states.
        weights_licence (`str`, *optional*): Licence of the weights; by default the same.
        evaluation ([`ShownEvaluation`], *optional*):
            What `evaluate` found: goes into the text and the model-index. What `quickstart` and `finetune` found is in
            their card already.
        pictures (`Mapping[str, Picture]`, *optional*): To show below the first paragraph, by file name.

    Raises:
        ValueError: for a header that cannot be read, and while the licence of the training data is not
            settled.
    """
    try:
        card = ModelCard(text)
    except (ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"The header of README.md cannot be read: {reason}. Correct it by hand.") from error
    body, header = card.text.lstrip("\n"), without_places(card.data.to_dict())
    stated = _one_text(header, DATA_LICENCE_KEY, "--licence") if data_licence is None else licence_name(data_licence)
    if not is_settled(stated):
        says = f"states {stated!r}" if data_licence is None else f"was given as {data_licence!r}, which is none"
        raise ValueError(
            f"The licence of the training data is not settled: {'the card' if data_licence is None else 'it'} {says}. "
            "Look it up where the recordings come from, and if it allows you to publish weights that were trained on "
            f'them, state it: --licence "CC BY 4.0". {EXPECTED_LICENCE}.'
        )
    if weights_licence is not None and not is_settled(weights_licence):
        raise ValueError(f"{weights_licence!r} is no licence of weights. Name one, such as cc-by-4.0 or apache-2.0.")
    if weights_licence is None:
        weights_licence = _one_text(header, "license", "--weights_licence")
        if weights_licence == "other":
            weights_licence = _one_text(header, "license_name", "--weights_licence")
    header = {name: value for name, value in header.items() if name not in ("license", "license_name")}
    header |= hub_licence(weights_licence) | {DATA_LICENCE_KEY: stated}
    header.setdefault("library_name", "transformers")

    body = without_paths(_addressed(body, repo_id))
    body = DATA_LICENCE.sub(lambda _: data_licence_line(stated), body)
    section = licence_section(stated, weights_licence)
    if LICENCES.search(body):
        body = LICENCES.sub(lambda _: section, body)
    else:
        body = f"{body.rstrip()}\n\n{section}"
    if evaluation is not None:
        body = replace_section(body.replace(NO_RESULTS, RESULTS_BELOW, 1), evaluation.section)
        found = list(evaluation.results)
        places = {(result.dataset_name, result.metric_name) for result in found}
        known = card.data.eval_results or []
        found += [result for result in known if (result.dataset_name, result.metric_name) not in places]
        header.pop("model-index", None)
        metrics = sorted({result.metric_type for result in found})
        header |= {"eval_results": found, "metrics": metrics, "model_name": repo_id}
    data = ModelCardData(**header)
    if data.eval_results:
        data.model_name = repo_id.split("/")[-1]
    shown = [
        "\n".join([f"![{picture.alt}]({name})", *([f"*{picture.caption}*"] if picture.caption else [])])
        for name, picture in (pictures or {}).items()
        if f"({name})" not in body
    ]
    if shown:
        body = FIRST_PARAGRAPH.sub(lambda match: "\n\n".join([match[0].rstrip("\n"), *shown]) + "\n", body, count=1)
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body.rstrip()}\n")


def _one_text(header: Mapping[str, Any], name: str, flag: str) -> str | None:
    """A field that states one licence; a list of one is the same.

    Raises:
        ValueError: for anything else.
    """
    stated = header.get(name)
    if isinstance(stated, list) and len(stated) == 1:
        stated = stated[0]
    if stated is not None and not isinstance(stated, str):
        raise ValueError(
            f"Expected one licence as {name} in the header of README.md, got {stated!r}. State the one that holds by "
            f"{flag} NAME, or correct the header by hand."
        )
    return stated


def _addressed(body: str, repo_id: str) -> str:
    """The loading snippet names the repository instead of a folder, and so does a title that was the folder's name."""
    found = SNIPPET_ADDRESS.search(body)
    if found is None:
        return body
    old, new = found[1].rstrip("/").rsplit("/", 1)[-1], repo_id.split("/")[-1]
    body = SNIPPET_ADDRESS.sub(lambda _: f'model_id = "{repo_id}"', body)
    return re.sub(rf"^# {re.escape(old)}$", lambda _: f"# {new}", body, count=1, flags=re.MULTILINE)


def replace_section(text: str, section: str) -> str:
    """A card with its section put in the place of an earlier one, else at its end."""
    counts = text.count(START), text.count(END)
    if counts == (0, 0):
        return f"{text.rstrip()}\n\n{section}\n"
    if counts != (1, 1) or text.index(END) < text.index(START):
        raise ValueError(
            f"Expected the markers {START!r} and {END!r} once each and in this order, found {counts[0]} and "
            f"{counts[1]}. Remove what is left of an earlier section."
        )
    return text[: text.index(START)] + section + text[text.index(END) + len(END) :]
