import base64

import numpy as np
import pytest
from matplotlib import _pylab_helpers
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ecg_transformers.modeling.leads import INDEPENDENT_LEADS, STANDARD_LEADS
from ecg_transformers.train.plots import (
    MM_PER_INCH,
    figure_to_bytes,
    figure_to_data_uri,
    plot_auroc_bars,
    plot_ecg_paper,
    plot_training_curve,
)

SAMPLING_RATE = 100  # Hz


def ecg_mv(num_leads, seconds=10):
    """A spike of 1 mV every second in every lead."""
    signal = np.zeros((num_leads, seconds * SAMPLING_RATE))
    signal[:, 50::SAMPLING_RATE] = 1.0
    return signal


def traces(figure: Figure, num_samples: int):
    return [line for line in figure.axes[0].lines if len(line.get_xdata()) == num_samples]


def shaded(figure: Figure):
    return [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]


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


def test_ecg_paper_is_true_to_scale():
    figure = plot_ecg_paper(ecg_mv(8), INDEPENDENT_LEADS, SAMPLING_RATE)
    axes = figure.axes[0]
    figure.canvas.draw()
    to_mm = MM_PER_INCH / figure.dpi
    (left, low), (right, high) = axes.transData.transform([(0, 0), (25, 10)]) * to_mm
    assert right - left == pytest.approx(25, rel=1e-3) and high - low == pytest.approx(10, rel=1e-3)
    trace = traces(figure, 1000)[0]
    assert trace.get_xdata()[SAMPLING_RATE] - trace.get_xdata()[0] == pytest.approx(25)  # one second
    assert np.ptp(trace.get_ydata()) == pytest.approx(10)  # one millivolt


@pytest.mark.parametrize("leads", [STANDARD_LEADS, INDEPENDENT_LEADS, ("II",)])
def test_row_layout_draws_every_lead_by_name_from_top_to_bottom(leads):
    figure = plot_ecg_paper(ecg_mv(len(leads)), leads, SAMPLING_RATE)
    heights = {text.get_text(): text.get_position()[1] for text in figure.axes[0].texts}
    assert len(traces(figure, 1000)) == len(leads)
    drawn = [heights[lead] for lead in leads]
    assert drawn == sorted(drawn, reverse=True)


def test_clinical_layout_draws_a_quarter_of_each_lead_and_lead_ii_whole():
    figure = plot_ecg_paper(ecg_mv(12), STANDARD_LEADS, SAMPLING_RATE, layout="clinical")
    assert len(traces(figure, 250)) == 12 and len(traces(figure, 1000)) == 1


def test_clinical_layout_of_eight_leads_is_refused_with_the_missing_ones():
    with pytest.raises(ValueError, match="'III', 'aVR', 'aVL', 'aVF'"):
        plot_ecg_paper(ecg_mv(8), INDEPENDENT_LEADS, SAMPLING_RATE, layout="clinical")


def test_tall_neighbours_do_not_touch():
    signal = ecg_mv(2)
    signal[0, 50] = -2.5
    signal[1, 50] = 2.0
    upper, lower = traces(plot_ecg_paper(signal, ("I", "II"), SAMPLING_RATE), 1000)
    assert upper.get_ydata().min() > lower.get_ydata().max()


def test_hidden_patches_are_shaded_where_they_are_and_counted():
    hidden = np.zeros(25, dtype=bool)
    hidden[[2, 10]] = True
    figure = plot_ecg_paper(ecg_mv(8), INDEPENDENT_LEADS, SAMPLING_RATE, hidden=hidden, patch_size=40)
    start = traces(figure, 1000)[0].get_xdata()[0]
    assert len(shaded(figure)) == 2 * 8
    assert {round(patch.get_x() - start) for patch in shaded(figure)} == {20, 100}  # patches of 0.4 s are 10 mm
    assert any("8% of the patches" in text.get_text() for text in figure.axes[0].texts)


def test_mask_of_leads_by_columns_shades_single_leads():
    hidden = np.zeros((8, 25), dtype=bool)
    hidden[3, 4] = True
    figure = plot_ecg_paper(ecg_mv(8), INDEPENDENT_LEADS, SAMPLING_RATE, hidden=hidden, patch_size=40)
    (patch,) = shaded(figure)
    baseline = traces(figure, 1000)[3].get_ydata()[0]
    assert patch.get_y() < baseline < patch.get_y() + patch.get_height()


def test_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\(25,\)"):
        plot_ecg_paper(ecg_mv(8), INDEPENDENT_LEADS, SAMPLING_RATE, hidden=np.ones(24, dtype=bool), patch_size=40)


def test_lead_without_a_sample_is_marked_as_not_recorded():
    signal = ecg_mv(2)
    signal[1] = np.nan
    texts = plot_ecg_paper(signal, ("I", "II"), SAMPLING_RATE).axes[0].texts
    assert sum(text.get_text() == "not recorded" for text in texts) == 1


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
    plot_ecg_paper(ecg_mv(2), ("I", "II"), SAMPLING_RATE)
    assert not _pylab_helpers.Gcf.figs
