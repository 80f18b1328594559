import base64

import pytest
from matplotlib import _pylab_helpers

from ecg_transformers.train.report.plots import figure_to_bytes, figure_to_data_uri, plot_training_curve

HISTORY = [{"loss": 0.3, "step": 10}, {"loss": 0.2, "step": 20}]


def test_training_curve_draws_the_logged_steps_of_each_series():
    history = [
        {"loss": 0.3, "step": 10},
        {"loss": 0.2, "step": 20, "effective_rank": 9.0, "feature_std": 0.5},
        {"train_runtime": 3.0, "step": 20},
    ]
    figure = plot_training_curve(history)
    drawn = {axes.get_ylabel(): axes.lines[0].get_xydata().tolist() for axes in figure.axes}
    assert drawn == {"loss": [[10, 0.3], [20, 0.2]], "effective rank": [[20, 9.0]], "feature std": [[20, 0.5]]}


@pytest.mark.parametrize("image_format, start", [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_figure_becomes_a_data_uri_with_the_same_bytes_each_time(image_format, start):
    figure = plot_training_curve(HISTORY)
    uri = figure_to_data_uri(figure, image_format)
    image = base64.b64decode(uri.split(",")[1])
    assert image.startswith(start)
    assert image == figure_to_bytes(figure, image_format)


def test_drawing_leaves_no_pyplot_figure_behind():
    plot_training_curve(HISTORY)
    assert not _pylab_helpers.Gcf.figs
