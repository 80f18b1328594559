import base64

import pytest
from matplotlib import _pylab_helpers

from ecg_transformers.train.report.plots import (
    figure_to_bytes,
    figure_to_data_uri,
    plot_auroc_bars,
    plot_training_curve,
)


def comparison():
    def result(macro):
        per_class = {"NORM": macro + 0.02, "MI": macro - 0.02}
        return {
            "macro_auroc": macro,
            "macro_auroc_ci95": [macro - 0.05, macro + 0.04],
            "per_class": per_class,
            "per_class_ci95": {name: [value - 0.06, value + 0.05] for name, value in per_class.items()},
        }

    return {"random_encoder": {"linear": result(0.6)}, "pretrained": {"linear": result(0.8)}}


def test_training_curve_draws_the_logged_steps_of_each_series():
    history = [
        {"loss": 0.3, "step": 10},
        {"loss": 0.2, "step": 20, "effective_rank": 9.0, "feature_std": 0.5},
        {"train_runtime": 3.0, "step": 20},
    ]
    figure = plot_training_curve(history)
    drawn = {axes.get_ylabel(): axes.lines[0].get_xydata().tolist() for axes in figure.axes}
    assert drawn == {"loss": [[10, 0.3], [20, 0.2]], "effective rank": [[20, 9.0]], "feature std": [[20, 0.5]]}


def test_training_curve_without_a_monitor_shows_the_loss_alone():
    figure = plot_training_curve([{"loss": 0.3, "step": 10}, {"loss": 0.2, "step": 20}])
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss"]


def test_auroc_bars_show_macro_and_labels_of_both_encoders():
    axes = plot_auroc_bars(comparison()).axes[0]
    tops = [round(patch.get_y() + patch.get_height(), 6) for patch in axes.patches]
    assert tops == [0.6, 0.62, 0.58, 0.8, 0.82, 0.78]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["macro", "NORM", "MI"]


@pytest.mark.parametrize("image_format, start", [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_figure_becomes_a_data_uri_with_the_same_bytes_each_time(image_format, start):
    figure = plot_auroc_bars(comparison())
    uri = figure_to_data_uri(figure, image_format)
    image = base64.b64decode(uri.split(",")[1])
    assert image.startswith(start)
    assert image == figure_to_bytes(figure, image_format)


def test_drawing_leaves_no_pyplot_figure_behind():
    plot_auroc_bars(comparison())
    assert not _pylab_helpers.Gcf.figs
