"""One result type reads what every command of every version wrote, and says it in words."""

import json

import pytest

from ecg_transformers.train.results import BASELINES, FEWEST_RECORDS, KINDS, Outcome, Result, kind_of, read_result


def evaluated(score, **more):
    found = {"macro_auroc": score, "macro_auroc_ci95": [score - 0.05, score + 0.04], "num_train_records": 398}
    per_class = {"NORM": score + 0.02, "MI": score - 0.02}
    found |= {"per_class": per_class, "per_class_ci95": {name: [0.5, 0.9] for name in per_class}, "excluded": {}}
    return found | {"num_test_records": 47, "num_test_patients": 45} | more


def difference(value=0.2, low=0.1, high=0.3):
    return {"macro_auroc": value, "ci95": [low, high], "p_value": 0.002}


def metrics(low=0.1, high=0.3, **changes):
    content = {"task": "ptb-xl superdiagnostic", "model": "tiny", "command": "ecg-transformers evaluate"}
    content |= {"random_encoder": {"linear": evaluated(0.6)}, "pretrained": {"linear": evaluated(0.8)}}
    return content | {"difference": {"linear": difference(low=low, high=high)}} | changes


def with_kernels():
    return metrics(
        random_kernels={"linear": evaluated(0.85)},
        difference_to_random_kernels={"linear": difference(-0.05, -0.09, -0.01)},
    )


def test_an_old_file_has_one_baseline_and_a_new_one_every_baseline_with_its_difference():
    (old,), (new,) = Result.from_json(metrics()).outcomes, Result.from_json(with_kernels()).outcomes
    assert [side.name for side in old.sides()] == ["Random encoder", "Pretrained encoder"]
    assert [side.name for side in new.sides()] == ["Random encoder", "1,200 random kernels", "Pretrained encoder"]
    assert [found.value for found in map(new.difference_to, BASELINES) if found] == [0.2, -0.05]
    assert new.hub_details()["random_kernels"] == 0.85 and "random_kernels" not in old.hub_details()


@pytest.mark.parametrize(
    ("low", "high", "words"), [(0.01, 0.2, "is better"), (-0.2, -0.01, "is worse"), (-0.1, 0.1, "do not separate")]
)
def test_a_verdict_says_no_more_than_the_interval(low, high, words):
    (sentence,) = Result.from_json(metrics(low, high)).verdicts()
    assert words in sentence


def test_of_an_error_the_lower_one_is_better():
    error = {"macro_zmae": 0.5, "macro_zmae_ci95": [0.4, 0.6], "per_target": {}}
    gained = {"linear": {"macro_zmae": -0.1, "ci95": [-0.2, -0.05], "p_value": 0.01}}
    content = metrics(random_encoder={"linear": error}, pretrained={"linear": error}, difference=gained)
    assert "is better than a random one" in Result.from_json(content).verdicts()[0]


def test_each_baseline_has_a_verdict_of_its_own():
    better, worse = Result.from_json(with_kernels()).verdicts()
    assert "better than a random one" in better and "worse than 1,200 random kernels" in worse


def test_the_scores_of_a_fine_tuning_are_read_too():
    content = {
        "task": "ptb-xl",
        "protocol": "finetuned",
        "validation": evaluated(0.9),
        "test": evaluated(0.8),
        "model": "x",
    }
    result = Result.from_json(content)
    assert result.outcomes[0].scores["macro_auroc"] == 0.8 and result.validation["macro_auroc"] == 0.9
    assert not result.is_compared and result.verdicts() == []


def test_kinds_are_told_by_the_score_that_decides():
    assert [kind_of({kind.score: 1} if kind.score else {}).name for kind in KINDS] == [kind.name for kind in KINDS]


@pytest.mark.parametrize(
    "broken",
    [{"pretrained": {}}, {"pretrained": 1}, {"pretrained": {"linear": 1}}, {"command": "evaluate 'a"}, {"task": None}]
    + [{"random_encoder": {"linear": {"macro_zmae": 1.0}}}],
)
def test_scores_that_somebody_broke_are_one_sentence(broken, tmp_path):
    content = metrics(**broken)
    if content["task"] is None:
        del content["task"]
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="metrics.json, got none") as caught:
        read_result(tmp_path / "metrics.json")
    assert "\n" not in str(caught.value)


def evaluated_of(labels, of, records):
    per_class = {str(number): 0.8 for number in range(labels)}
    excluded = {str(number): "0 positive" for number in range(labels, of)}
    return evaluated(0.8, per_class=per_class, excluded=excluded, num_test_records=records)


def test_a_headline_says_what_it_is_a_mean_of():
    found = evaluated_of(3, 26, 120)
    assert "3 of 26 labels, 120 records" in Outcome("finetuned", found).headline(found)


def test_there_is_no_headline_of_a_handful_of_records():
    found = evaluated_of(3, 26, 4)
    said = Outcome("finetuned", found).headline(found)
    assert "0.8" not in said and "3 of 26 labels, 4 records" in said and str(FEWEST_RECORDS) in said
    enough = evaluated_of(3, 26, FEWEST_RECORDS)
    assert "0.800" in Outcome("finetuned", enough).headline(enough)
