"""Which licences count as stated."""

import pytest

from ecg_transformers.data.corpora import CORPORA
from ecg_transformers.train.publishing.licences import hub_licence, is_settled

NO_ANSWERS = ["", " ", "-", "--", "?", "...", "n/a", "N/A", "NA", "n.a.", "none", "None.", "no", "nil", "null", "tbd"]
NO_ANSWERS += ["TBD", "T.B.D.", "tba", "todo", "to be determined", "pending", "x", "yes", "other", "unknown", "unset"]
NO_ANSWERS += ["not stated", "not specified", "Not yet known", "not available", "unclear", "unspecified", "unlicensed"]
NO_ANSWERS += ["No licence", "no license given", "licence", "(none)", "[TBD]", "<unknown>", "see website", "yours"]
NO_ANSWERS += ["verify on its page", "ask the authors", "that of the recordings", None]
NO_ANSWERS += ["confidential", "all rights reserved", "do not distribute", "not for publication", "internal use only"]
NO_ANSWERS += ["no publication", "N/A (internal)", "tbd later", "TBD (ask Bob)", "don't know", "dunno", "idk", "foo"]
NO_ANSWERS += ["unbekannt", "keine", "no-license", "nolicense", "CC BY 4.0?", "same as weights", "must not be shared"]
MORE_THAN_ONE_LINE = ["CC BY 4.0\n\n# Mine", "CC BY 4.0\r", "CC BY 4.0\x1b[0m", "CC BY 4.0\u2028", "\u202e0.4 YB CC"]
LICENCES = ["CC BY 4.0", "cc-by-4.0", "CC0", "MIT", "Apache-2.0", "ODbL 1.0", "Unlicense", "EUPL 1.2"]
LICENCES += ["PhysioNet Credentialed Health Data License 1.5.0", "not for commercial use", "MIMIC-IV DUA", "CeCILL-B"]
LICENCES += [
    "ODC-BY 1.0; in the form of the challenges CC BY 4.0",
    "agreement 12, no redistribution",
    "NASA Open Source Agreement 1.3",
    "Do No Harm License",
]


@pytest.mark.parametrize("text", [*NO_ANSWERS, *MORE_THAN_ONE_LINE])
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
