"""What is drawn on the page of an evaluation, against scikit-learn and by hand."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from ecg_transformers.data.corpora.nstdb import NOISES
from ecg_transformers.train.evaluate_metrics.calibration_scores import expected_calibration_error
from ecg_transformers.train.features import EmbeddingTable
from ecg_transformers.train.predictions import Predictions, ProtocolResult
from ecg_transformers.train.report import page
from ecg_transformers.train.report.examples import choose_examples
from ecg_transformers.train.report.figures import (
    evaluated_test,
    mean_precision_recall,
    mean_roc,
    plot_errors,
    plot_label_bars,
    plot_precision_recall,
    plot_reliability,
    plot_roc,
    precision_recall_points,
    reliability_points,
)
from ecg_transformers.train.report.projection import plot_projection, project
from ecg_transformers.train.report.settings import plot_setting
from ecg_transformers.train.results import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Side

NAMES = ("NORM", "MI", "STTC")


def make_result(problem_type=MULTI_LABEL, num_records=40, seed=0):
    """Scores in steps of 0.1, so that many are equal."""
    generator = np.random.default_rng(seed)
    train = np.eye(3, dtype=np.int8)[np.arange(30) % 3]
    if problem_type == MULTI_LABEL:
        labels = (generator.random((num_records, 3)) < 0.4).astype(np.int8)
        scores = np.round(np.clip(0.3 * labels + generator.random(labels.shape) * 0.7, 0.02, 0.98), 1)
    elif problem_type == SINGLE_LABEL:
        labels = np.eye(3, dtype=np.int8)[np.arange(num_records) % 3]
        scores = np.exp(labels + generator.normal(size=labels.shape))
        scores /= scores.sum(axis=1, keepdims=True)
    else:
        train, labels = (generator.normal(60, 10, size=(size, 3)) for size in (30, num_records))
        scores = labels + generator.normal(1, 4, size=labels.shape)
    part = Predictions(scores, labels, [f"r{i}" for i in range(num_records)], [f"p{i}" for i in range(num_records)])
    return ProtocolResult("linear", NAMES, problem_type, train, part, part)


def lines_of(figure, axes=0):
    return {line.get_label(): np.array(line.get_data()) for line in figure.axes[axes].get_lines()}


def test_drawn_roc_curve_is_that_of_scikit_learn():
    result = make_result()
    drawn = lines_of(plot_roc(result))
    for column, name in enumerate(NAMES):
        expected = roc_curve(result.test.labels[:, column], result.test.scores[:, column])[:2]
        np.testing.assert_allclose(drawn[name], expected)


@pytest.mark.parametrize("problem_type", [MULTI_LABEL, SINGLE_LABEL])
def test_area_under_the_mean_roc_curve_is_the_macro_auroc(problem_type):
    result = make_result(problem_type)
    rates, heights = lines_of(plot_roc(result))["macro mean"]
    macro = roc_auc_score(result.test.labels, result.test.scores, average="macro")
    assert np.trapezoid(heights, rates) == pytest.approx(macro, abs=1e-12)
    assert macro == pytest.approx(result.evaluate(num_resamples=5)["macro_auroc"])


def test_area_under_the_steps_of_precision_is_the_macro_average_precision():
    result = make_result()
    labels, scores = result.test.labels, result.test.scores
    drawn = lines_of(plot_precision_recall(result))
    for column, name in enumerate(NAMES):
        expected = average_precision_score(labels[:, column], scores[:, column])
        assert np.trapezoid(drawn[name][1], drawn[name][0]) == pytest.approx(expected, abs=1e-12)
    macro = average_precision_score(labels, scores, average="macro")
    assert np.trapezoid(*drawn["macro mean"][::-1]) == pytest.approx(macro, abs=1e-12)


def test_mean_curves_of_one_label_are_its_curve():
    labels, scores = np.array([0, 1, 0, 1, 1, 0]), np.array([0.1, 0.4, 0.4, 0.8, 0.9, 0.95])
    curve = roc_curve(labels, scores)[:2]
    assert np.trapezoid(*mean_roc([curve])[::-1]) == pytest.approx(roc_auc_score(labels, scores))
    points = precision_recall_points(labels, scores)
    np.testing.assert_allclose(mean_precision_recall([points]), points)


def test_labels_that_cannot_be_evaluated_are_not_drawn():
    result = make_result()
    result.train_labels[:, 1] = 0  # never learned
    result.test.labels[:, 2] = 0  # never positive
    assert evaluated_test(result)[0] == ["NORM"]
    assert {"MI", "STTC"} & set(lines_of(plot_roc(result))) == set()


def test_curves_are_of_the_records_that_the_table_evaluates_where_training_lacks_a_class():
    result = make_result(SINGLE_LABEL)
    result.train_labels[:, 2] = 0
    names, labels, scores = evaluated_test(result)
    assert len(names) == 2 and len(scores) == len(result.test.scores)
    areas = [roc_auc_score(labels[:, column], scores[:, column]) for column in range(2)]
    assert np.mean(areas) == pytest.approx(result.evaluate(num_resamples=5)["macro_auroc"])


def test_reliability_is_that_of_the_calibration_error():
    result = make_result(SINGLE_LABEL)
    found = reliability_points(result)
    distance = np.nansum(found["count"] * np.abs(found["frequency"] - found["probability"])) / found["count"].sum()
    correct = result.test.labels.argmax(axis=1) == result.test.scores.argmax(axis=1)
    expected = expected_calibration_error(correct.astype(float), result.test.scores.max(axis=1))
    assert distance == pytest.approx(expected) == pytest.approx(result.evaluate(num_resamples=5)["ece"])


def test_temperature_moves_probabilities_towards_a_half_and_is_drawn():
    result = make_result()
    before, after = (reliability_points(result, temperature) for temperature in (None, 1e6))
    assert before["count"].sum() == after["count"].sum() == 120
    assert np.flatnonzero(after["count"]).tolist() == [7]
    drawn = lines_of(plot_reliability(result, 2.0))
    filled = reliability_points(result, 2.0)
    kept = filled["count"] > 0
    expected = (filled["probability"][kept], filled["frequency"][kept])
    np.testing.assert_allclose(drawn["after scaling (T = 2)"], expected)


def test_bars_reach_from_chance_to_the_score_with_their_intervals():
    evaluated = make_result().evaluate(num_resamples=20)
    figure = plot_label_bars(
        [Side("random_encoder", "Random encoder", evaluated), Side("pretrained", "This", evaluated)]
    )
    ends = sorted(round(bar.get_x() + bar.get_width(), 9) for bar in figure.axes[0].patches)
    expected = sorted(round(value, 9) for value in [evaluated["macro_auroc"], *evaluated["per_class"].values()] * 2)
    assert ends == pytest.approx(expected)
    drawn = {tuple(line.get_xdata()) for line in figure.axes[0].get_lines() if len(line.get_xdata()) == 2}
    assert {tuple(bounds) for bounds in evaluated["per_class_ci95"].values()} <= drawn


def test_bland_altman_lines_are_bias_and_limits_of_agreement():
    result = make_result(REGRESSION)
    error = result.test.scores[:, 0] - result.test.labels[:, 0]
    heights = [line.get_ydata()[0] for line in plot_errors(result, 0).axes[1].get_lines()[1:]]
    sd = error.std(ddof=1)
    assert heights == pytest.approx([error.mean(), error.mean() + 1.96 * sd, error.mean() - 1.96 * sd])


def make_table(num_records=12):
    generator = np.random.default_rng(0)
    ids = [f"r{i}" for i in range(num_records)]
    labels = [["NORM"], ["MI"], ["NORM", "MI"], []] * (num_records // 4)
    features = generator.normal(size=(num_records, 5)).astype(np.float32)
    return EmbeddingTable(features, ids, list(ids), labels, [10] * num_records)


def test_projections_draw_every_record_once_and_grey_where_the_class_is_not_one():
    table = make_table()
    figure = plot_projection({"random_encoder": table}, ("NORM", "MI"))
    assert [axes.get_title().split(" (")[0] for axes in figure.axes][:2] == [
        "random encoder: PCA",
        "random encoder: t-SNE",
    ]
    drawn = {line.get_label(): len(line.get_xdata()) for line in figure.axes[0].get_lines()}
    assert drawn == {"several, none or a rarer class": 6, "NORM": 3, "MI": 3}


def test_projection_is_the_same_each_time_and_pca_that_of_the_standardised_features():
    features = make_table().features
    np.testing.assert_array_equal(project(features, "t-SNE")[0], project(features, "t-SNE")[0])
    standardised = (features - features.mean(axis=0)) / features.std(axis=0)
    _, values, _ = np.linalg.svd(standardised, full_matrices=False)
    np.testing.assert_allclose(np.linalg.norm(project(features, "PCA")[0], axis=0), values[:2], rtol=1e-5)


def test_examples_are_the_surest_errors_and_the_surest_success():
    labels = np.array([[1, 0], [0, 1], [1, 0], [0, 1], [1, 1]], dtype=np.int8)
    scores = np.array([[0.9, 0.1], [0.8, 0.9], [0.1, 0.2], [0.6, 0.8], [0.4, 0.7]])
    part = Predictions(scores, labels, [f"r{i}" for i in range(5)], [None] * 5)
    result = ProtocolResult("linear", ("A", "B"), MULTI_LABEL, labels, part, part)
    evaluated = {"per_class": {"A": 0.5, "B": 1.0}, "thresholds": {"A": 0.5, "B": 0.75}}
    found = {(example.label, example.kind): example for example in choose_examples(result, evaluated)}
    assert {key: example.record_id for key, example in found.items()} == {
        ("B", "false negative"): "r4",
        ("B", "true positive"): "r1",
        ("A", "false positive"): "r3",  # not r1, which is there already
        ("A", "false negative"): "r2",
        ("A", "true positive"): "r0",
    }
    assert found["A", "false positive"].words == "Truth: B. Score of A: 0.600 (threshold 0.500). Others: B 0.800."


def entry(setting, value, group=None, **facts):
    evaluated = {"macro_auroc": 0.8, "macro_auroc_ci95": [0.75, 0.84]} | facts
    random = {"macro_auroc": 0.6, "macro_auroc_ci95": [0.55, 0.66]} | facts
    return {"setting": setting, "value": value, "group": group, "pretrained": evaluated, "random_encoder": random}


def test_low_shot_curve_has_fractions_on_a_log_axis_with_draws_and_spread():
    entries = [entry("low_shot", 0.01, draws=[0.5, 0.7], macro_auroc_sd=0.1), entry("low_shot", 1.0)]
    axes = plot_setting("low_shot", entries).axes[0]
    assert axes.get_xscale() == "log" and [tick.get_text() for tick in axes.get_xticklabels()] == ["1 %", "100 %"]
    heights = [tuple(line.get_ydata()) for line in axes.get_lines()]
    assert (0.6, 0.6) in heights and (0.8, 0.8) in heights and (0.5, 0.7) in heights
    low, high = axes.get_ylim()
    assert low < 0.5 and high > 0.84  # draws and intervals lie within


def test_noise_curve_falls_from_clean_to_loud_and_names_are_in_their_order():
    entries = [entry("noise", "clean"), *(entry("noise", ratio, "bw") for ratio in (-6, 24, 6))]
    figure = plot_setting("noise", entries)
    assert figure.axes[0].get_title() == NOISES["bw"] and figure.axes[0].xaxis_inverted()
    assert lines_of(figure)["pretrained encoder"][0].tolist() == [-6, 6, 24]
    names = plot_setting("leads", [entry("leads", "12"), entry("leads", "I")]).axes[0]
    assert [tick.get_text() for tick in names.get_xticklabels()] == ["12", "I"]


def test_chart_of_many_points_becomes_a_png(monkeypatch):
    monkeypatch.setattr(page, "LARGEST_SVG", 20_000)
    few, many = Figure(figsize=(2, 2)), Figure(figsize=(2, 2))
    few.add_axes((0, 0, 1, 1)).plot([0, 1])
    many.add_axes((0, 0, 1, 1)).plot(*np.random.default_rng(0).random((2, 500)), ".")
    kinds = [page.ReportFigure(figure, "", "", "").data_uri.split(";")[0] for figure in (few, many)]
    assert kinds == ["data:image/svg+xml", "data:image/png"]
