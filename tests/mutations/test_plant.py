"""The table of planted bugs stays one that can be run; `plant.py --run` is the test itself."""

from collections import Counter

import pytest

from .plant import Mutation, check_table, read_table


def test_each_bug_of_the_table_can_still_be_planted():
    check_table(read_table())


def test_the_table_holds_forty_bugs_three_or_more_a_group():
    mutations = read_table()
    assert len({mutation.name for mutation in mutations}) == len(mutations) == 40
    assert min(Counter(mutation.group for mutation in mutations).values()) >= 3


@pytest.mark.parametrize("text", ["nothing", "a = 1\na = 1\n"])
def test_a_text_that_does_not_stand_exactly_once_is_refused(text):
    mutation = Mutation("a bug", "losses", "modeling/x.py", "a = 1", "a = 2", [])
    assert mutation.planted("a = 1\n") == "a = 2\n"
    with pytest.raises(ValueError, match="exactly once"):
        mutation.planted(text)
