"""One module for each kind of result, of the name in [`~ecg_transformers.train.results.KINDS`].

A module has `section(outcome, result, shown)`: the parts of a page on one protocol.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module

from ...predictions import ProtocolResult
from ...results import Outcome, Result
from ..page import Section


@dataclass(frozen=True)
class Shown:
    """Predictions of the test split, for charts; without them a page has tables alone.

    Args:
        predictions (`Mapping[tuple[str, str], ProtocolResult]`, *optional*): Predictions by encoder and protocol.
        positives (`Mapping[str, int]`, *optional*): Test records with each label.
        with_figures (`bool`, *optional*, defaults to `True`): `False` for Markdown, which has no figures.
    """

    predictions: Mapping[tuple[str, str], ProtocolResult] = field(default_factory=dict)
    positives: Mapping[str, int] | None = None
    with_figures: bool = True

    def of(self, outcome: Outcome) -> ProtocolResult | None:
        """Predictions of the pretrained encoder."""
        return self.predictions.get(("pretrained", outcome.protocol)) if self.with_figures else None


def outcome_section(outcome: Outcome, result: Result, shown: Shown) -> Section:
    """The part of a page on one protocol, by its kind."""
    return import_module(f".{outcome.kind.name}", __package__).section(outcome, result, shown)
