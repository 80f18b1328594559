import io
import re

import numpy as np
import pytest
from matplotlib import _pylab_helpers
from matplotlib.figure import Figure
from PIL import Image

from ecg_transformers.data import load_ecg
from ecg_transformers.modeling.leads import INDEPENDENT_LEADS, STANDARD_LEADS
from ecg_transformers.train.report.ecg_paper import (
    LEFT_MM,
    MM_PER_INCH,
    RIGHT_MM,
    draw_preview,
    plot_ecg_paper,
    plot_recording,
    save_figure,
)

SAMPLING_RATE = 100  # Hz


def ecg_mv(num_leads, seconds=10):
    """A spike of 1 mV every second in every lead."""
    signal = np.zeros((num_leads, seconds * SAMPLING_RATE))
    signal[:, 50::SAMPLING_RATE] = 1.0
    return signal


def traces(figure: Figure, num_samples: int):
    return [line for line in figure.axes[0].lines if len(line.get_xdata()) == num_samples]


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


def test_lead_without_a_sample_is_marked_as_not_recorded():
    signal = ecg_mv(2)
    signal[1] = np.nan
    texts = plot_ecg_paper(signal, ("I", "II"), SAMPLING_RATE).axes[0].texts
    assert sum(text.get_text() == "not recorded" for text in texts) == 1


def test_twelve_leads_come_in_the_clinical_layout_and_others_in_rows():
    twelve = plot_recording(ecg_mv(12, 30), STANDARD_LEADS[::-1], SAMPLING_RATE, "title")
    assert len(traces(twelve, 250)) == 12 and len(traces(twelve, 1000)) == 1  # the first ten seconds
    two = plot_recording(ecg_mv(2), ("MLII", "V5"), SAMPLING_RATE, "title")
    assert len(traces(two, 1000)) == 2 and two.texts[0].get_text() == "title"


def test_an_offset_is_taken_out_and_said():
    signal = ecg_mv(2)
    signal[1] += 40.0
    figure = plot_recording(signal, ("I", "II"), SAMPLING_RATE, "title")
    upper, lower = traces(figure, 1000)
    assert np.ptp(lower.get_ydata()) == pytest.approx(np.ptp(upper.get_ydata()))
    assert upper.get_ydata().min() > lower.get_ydata().max()
    assert "moved to zero: II" in figure.texts[0].get_text()


def test_the_recording_that_is_drawn_is_not_changed():
    signal = ecg_mv(2) + 3.0
    signal[0, 3] = np.inf
    before = signal.copy()
    plot_recording(signal, ("I", "II"), SAMPLING_RATE, "title")
    assert (signal == before).all()


def test_a_saved_png_is_true_to_scale_at_its_dpi(tmp_path):
    figure = plot_recording(ecg_mv(12), STANDARD_LEADS, SAMPLING_RATE, "title")
    path = save_figure(figure, tmp_path / "new folder" / "ecg.PNG", dpi=200)
    with Image.open(path) as image:
        dpi, size = image.info["dpi"], image.size
    assert dpi == pytest.approx((200, 200), rel=1e-3)
    width_mm = LEFT_MM + 250 + RIGHT_MM
    assert size[0] / dpi[0] * MM_PER_INCH == pytest.approx(width_mm, abs=0.2)


@pytest.mark.parametrize("num_leads", [2, 15])
def test_a_preview_is_a_small_picture_of_a_real_recording(num_leads):
    ecg = next(iter(load_ecg("ptb-xl-sample")))["ecg"]
    ecg |= {"signal": np.resize(ecg["signal"], (num_leads, 1000)), "leads": [f"X{n}" for n in range(num_leads)]}
    content = draw_preview(ecg)
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG" and (image.width == 480 or image.height == 360)
        assert image.width <= 480 and image.height <= 360 and image.convert("L").getextrema()[0] < 60
    assert len(content) < 18_000 and content == draw_preview(ecg)


def test_a_recording_without_a_unit_has_no_preview():
    ecg = {"signal": ecg_mv(2), "leads": ["I", "II"], "sampling_rate": SAMPLING_RATE}
    assert draw_preview(ecg | {"unit": "dimensionless"}) is None and draw_preview(ecg | {"unit": "mV"})


def test_a_saved_svg_has_its_size_in_print(tmp_path):
    figure = plot_recording(ecg_mv(2), ("I", "II"), SAMPLING_RATE, "title")
    text = save_figure(figure, tmp_path / "ecg.svg").read_text()
    width_pt = float(re.search(r'width="([\d.]+)pt"', text)[1])
    assert width_pt / 72 * MM_PER_INCH == pytest.approx(LEFT_MM + 250 + RIGHT_MM, abs=0.01)


def test_another_ending_and_a_folder_that_is_a_file_are_refused(tmp_path):
    figure = plot_recording(ecg_mv(2), ("I", "II"), SAMPLING_RATE, "title")
    with pytest.raises(ValueError, match=r"\.png, \.svg or \.pdf"):
        save_figure(figure, tmp_path / "ecg.gif")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="Cannot write to"):
        save_figure(figure, tmp_path / "file" / "ecg.png")


def test_drawing_leaves_no_pyplot_figure_behind():
    plot_recording(ecg_mv(2), ("I", "II"), SAMPLING_RATE, "title")
    assert not _pylab_helpers.Gcf.figs
