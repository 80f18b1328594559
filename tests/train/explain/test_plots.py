import re

import numpy as np
import pytest
from matplotlib import _pylab_helpers
from matplotlib.collections import QuadMesh

from ecg_transformers.modeling.leads import STANDARD_LEADS
from ecg_transformers.train.explain.plots import NOT_READ, SHARE_COLORS, SIGNED_COLORS, plot_explanation
from ecg_transformers.train.report.ecg_paper import LEFT_MM, MM_PER_INCH, RIGHT_MM, save_figure

SAMPLING_RATE = 100  # Hz
LEADS = ("I", "II", "V2")


def ecg_mv(num_leads=3, seconds=2):
    """A spike of 1 mV every second in every lead."""
    signal = np.zeros((num_leads, seconds * SAMPLING_RATE))
    signal[:, 50::SAMPLING_RATE] = 1.0
    return signal


def meshes(figure):
    """The coloured bands, from top to bottom and from left to right."""
    found = [collection for collection in figure.axes[0].collections if isinstance(collection, QuadMesh)]
    return sorted(found, key=lambda mesh: (-mesh.get_coordinates()[0, 0, 1], mesh.get_coordinates()[0, 0, 0]))


def words(figure):
    bars = [text for axes in figure.axes[1:] for text in (*axes.texts, *axes.get_xticklabels())]
    return [text.get_text() for text in (*figure.texts, *bars)]


def hot(lead, column, num_columns=8, value=1.0):
    values = np.zeros((3, num_columns))
    values[lead, column] = value
    return values


def test_colour_lies_under_its_lead_and_its_time():
    """Patches of 250 ms; the sixth of lead II lies between 1.25 s and 1.5 s, where the trace of lead II is."""
    figure = plot_explanation(ecg_mv(), LEADS, SAMPLING_RATE, hot(1, 5))
    bands = [mesh.get_array().filled(np.nan).ravel() for mesh in meshes(figure)]
    assert [band.any() for band in bands] == [False, True, False] and np.flatnonzero(bands[1]) == [5]
    edges = meshes(figure)[1].get_coordinates()
    np.testing.assert_allclose(edges[0, [5, 6], 0] - LEFT_MM, [1.25 * 25, 1.5 * 25])
    baseline = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 200][1].get_ydata()[0]
    assert edges[0, 0, 1] < baseline < edges[1, 0, 1]


def test_the_paper_is_true_to_scale_above_bar_and_caption():
    figure = plot_explanation(ecg_mv(), LEADS, SAMPLING_RATE, hot(0, 0), title="title", caption="word " * 60)
    figure.canvas.draw()
    (left, low), (right, high) = figure.axes[0].transData.transform([(0, 0), (25, 10)]) * MM_PER_INCH / figure.dpi
    assert right - left == pytest.approx(25, rel=1e-3) and high - low == pytest.approx(10, rel=1e-3)
    extents = [text.get_window_extent() for text in figure.texts]
    assert min(box.y0 for box in extents) > 0 and max(box.x1 for box in extents) < figure.bbox.x1
    assert all(not one.overlaps(other) for n, one in enumerate(extents) for other in extents[:n])
    paper = figure.axes[0].get_window_extent()
    assert not any(paper.overlaps(box) for box in extents)


def test_columns_finer_than_a_small_box_are_added_up():
    values = np.random.default_rng(0).normal(size=(3, 200))
    figure = plot_explanation(ecg_mv(), LEADS, SAMPLING_RATE, values)
    boxes = np.stack([mesh.get_array().ravel() for mesh in meshes(figure)])
    np.testing.assert_allclose(boxes, values.reshape(3, 50, 4).sum(axis=-1))  # 4 samples are 40 ms
    assert "Colours: per 40 ms." in words(figure)


def test_what_was_not_read_is_grey():
    values = hot(0, 0)
    values[2], values[1, 6:] = np.nan, np.nan
    mask = [
        np.ma.getmaskarray(mesh.get_array()).ravel() for mesh in meshes(plot_explanation(ecg_mv(), LEADS, 100, values))
    ]
    assert not mask[0].any() and mask[2].all() and mask[1].tolist() == [False] * 6 + [True] * 2
    mesh = meshes(plot_explanation(ecg_mv(), LEADS, 100, values))[2]
    assert np.allclose(mesh.cmap(np.ma.masked), [int(NOT_READ[n : n + 2], 16) / 255 for n in (1, 3, 5)] + [1.0])


def test_one_row_is_drawn_behind_every_lead():
    figure = plot_explanation(ecg_mv(), LEADS, SAMPLING_RATE, np.linspace(0, 1, 8)[None], signed=False)
    bands = [mesh.get_array().ravel() for mesh in meshes(figure)]
    assert len(bands) == 3 and all((band == bands[0]).all() for band in bands)


def test_the_clinical_layout_shows_each_lead_where_it_is_drawn():
    values = np.arange(12.0)[:, None] + np.arange(40.0) * 100
    figure = plot_explanation(ecg_mv(12, 4), STANDARD_LEADS, SAMPLING_RATE, values, layout="clinical")
    found = [mesh.get_array().ravel() for mesh in meshes(figure)]
    assert [len(band) for band in found] == [10] * 12 + [40]
    lead_v1 = found[2]  # the third column of the first row: from 2 s
    np.testing.assert_array_equal(lead_v1, values[6, 20:30])


def test_the_bar_says_what_its_colours_mean():
    signed = words(plot_explanation(ecg_mv(), LEADS, SAMPLING_RATE, hot(0, 0, value=-0.25)))
    assert {"lowers it", "raises it", "\N{MINUS SIGN}0.25", "0", "+0.25", "Colours: per 250 ms."} <= set(signed)
    shares = words(plot_explanation(ecg_mv(), LEADS, SAMPLING_RATE, hot(0, 0, value=0.25), signed=False))
    assert {"none", "most", "0", "25.00%"} <= set(shares)


def lightness(color):
    """L* of CIELAB of an sRGB colour."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3])
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return 116 * np.cbrt(luminance) - 16


def test_equal_steps_of_the_map_are_equal_steps_of_lightness():
    for colors in (
        SHARE_COLORS,
        lambda share: SIGNED_COLORS(0.5 - share / 2),
        lambda share: SIGNED_COLORS(0.5 + share / 2),
    ):
        steps = -np.diff([lightness(colors(share)) for share in np.linspace(0, 1, 6)])
        assert steps.min() > 0.75 * steps.max() > 0
    assert abs(lightness(SIGNED_COLORS(0.0)) - lightness(SIGNED_COLORS(1.0))) < 3  # no sign looks larger
    assert lightness(SIGNED_COLORS(1.0)) > 55  # a black trace stays readable


@pytest.mark.parametrize(
    ("values", "signed", "message"),
    [
        (np.zeros((2, 8)), True, r"a map of shape \(3, num_columns\)"),
        (np.zeros(8), True, r"got \(8,\)"),
        (-np.ones((3, 8)), False, "without negative values"),
    ],
)
def test_a_map_that_does_not_fit_is_refused(values, signed, message):
    with pytest.raises(ValueError, match=message):
        plot_explanation(ecg_mv(), LEADS, SAMPLING_RATE, values, signed)


def test_a_map_of_zeros_is_drawn_white():
    (band, *_) = meshes(plot_explanation(ecg_mv(), LEADS, SAMPLING_RATE, np.zeros((3, 8))))
    assert np.allclose(band.cmap(band.norm(band.get_array())), 1.0, atol=0.01)


def test_a_saved_svg_has_its_size_in_print_and_its_words(tmp_path):
    figure = plot_explanation(ecg_mv(), LEADS, SAMPLING_RATE, hot(0, 0), caption="what it is")
    text = save_figure(figure, tmp_path / "map.svg").read_text()
    width_pt = float(re.search(r'width="([\d.]+)pt"', text)[1])
    assert width_pt / 72 * MM_PER_INCH == pytest.approx(LEFT_MM + 50 + RIGHT_MM, abs=0.01)
    assert "what it is -->" in text and "<!-- raises it -->" in text
    assert not _pylab_helpers.Gcf.figs
