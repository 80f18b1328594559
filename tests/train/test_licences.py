"""Which licences count as stated."""

import pytest

from ecg_transformers.data.corpora import CORPORA
from ecg_transformers.train.licences import hub_licence, is_settled

NO_ANSWERS = ["", " ", "-", "--", "?", "...", "n/a", "N/A", "NA", "n.a.", "none", "None.", "no", "nil", "null", "tbd"]
NO_ANSWERS += ["TBD", "T.B.D.", "tba", "todo", "to be determined", "pending", "x", "yes", "other", "unknown", "unset"]
NO_ANSWERS += ["not stated", "not specified", "Not yet known", "not available", "unclear", "unspecified", "unlicensed"]
NO_ANSWERS += ["No licence", "no license given", "licence", "(none)", "[TBD]", "<unknown>", "see website", "yours"]
NO_ANSWERS += ["verify on its page", "ask the authors", "that of the recordings", None]
LICENCES = ["CC BY 4.0", "cc-by-4.0", "CC0", "MIT", "Apache-2.0", "ODbL 1.0", "Unlicense", "EUPL 1.2"]
LICENCES += ["PhysioNet Credentialed Health Data License 1.5.0", "not for commercial use", "MIMIC-IV DUA", "CeCILL-B"]
LICENCES += [
    "ODC-BY 1.0; in the form of the challenges CC BY 4.0",
    "agreement 12, no redistribution",
]


@pytest.mark.parametrize("text", NO_ANSWERS)
def test_what_people_write_where_they_know_of_none_is_no_licence(text):
    assert not is_settled(text)


@pytest.mark.parametrize("text", LICENCES)
def test_these_are_licences(text):
    assert is_settled(text)


def test_corpora_whose_licence_is_for_their_owner_to_state_are_the_only_unsettled_ones():
    unsettled = {name for name, corpus in CORPORA.items() if not is_settled(corpus.licence)}
    assert unsettled == {"wfdb", "npy", "ecgfolder", "mimic-iv-ecg"}


@pytest.mark.parametrize("text", ["n/a", "-", None])
def test_weights_without_a_licence_are_said_to_have_an_unknown_one(text):
    assert hub_licence(text) == {"license": "other", "license_name": "unknown"}
