"""Which licences count as stated."""

import pytest

from ecg_transformers.data.corpora import CORPORA
from ecg_transformers.train.publishing.licences import hub_identifier, hub_licence, is_settled, stated_licence

NO_ANSWERS = ["", " ", "-", "?", "n/a", "none", "tbd", "yes", "other", "other:", "other: -", "unknown", "CC BY 4.0?"]
NO_ANSWERS += [
    "see website",
    "confidential",
    "all rights reserved",
    "verify on its page",
    "CC BY 4.0 or another",
    None,
]
NO_ANSWERS += ["CC BY 4.0\n\n# Mine", "other: a\u2028b", "other: \u202e0.4 YB CC", "other: " + 300 * "x"]


@pytest.mark.parametrize("text", NO_ANSWERS)
def test_what_is_no_known_licence_and_no_other_by_name_settles_nothing(text):
    assert not is_settled(text) and hub_licence(text) == {"license": "other", "license_name": "unknown"}


@pytest.mark.parametrize(
    ("text", "identifier"),
    [("CC BY 4.0", "cc-by-4.0"), ("cc-by-4.0", "cc-by-4.0"), ("CC0", "cc0-1.0"), ("MIT", "mit"), ("ODbL 1.0", "odbl")]
    + [("Apache-2.0", "apache-2.0"), ("CC BY-NC 4.0", "cc-by-nc-4.0"), ("Unlicense", "unlicense")],
)
def test_known_licences_are_known_by_name_and_by_identifier(text, identifier):
    assert hub_identifier(text) == identifier and hub_licence(text) == {"license": identifier}


def test_any_other_licence_is_stated_by_its_name():
    fields = hub_licence("other: PhysioNet Credentialed Health Data License 1.5.0")
    assert fields == {"license": "other", "license_name": "PhysioNet Credentialed Health Data License 1.5.0"}
    assert is_settled(stated_licence(fields)) and stated_licence(hub_licence(None)) is None


def test_corpora_whose_licence_is_for_their_owner_to_state_are_the_only_unsettled_ones():
    unsettled = {name for name, corpus in CORPORA.items() if not is_settled(corpus.licence)}
    assert unsettled == {"wfdb", "npy", "ecgfolder", "mimic-iv-ecg"}
