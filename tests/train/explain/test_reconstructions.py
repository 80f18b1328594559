import base64

import numpy as np
import pytest
import torch
from matplotlib.colors import same_color

from ecg_transformers.data import load_ecg
from ecg_transformers.modeling import EcgFeatureExtractor
from ecg_transformers.modeling.configuration_st_mem import MlaeConfig, MtaeConfig, StMemConfig
from ecg_transformers.modeling.modeling_st_mem import MlaeForPreTraining, MtaeForPreTraining, StMemForPreTraining
from ecg_transformers.train.explain.reconstructions import explained_share, plot_reconstruction, reconstruction_figures
from ecg_transformers.train.report.plots import BLUE, ORANGE

LEADS = ("I", "II", "V1")
TINY = {
    "leads": LEADS,
    "sampling_rate": 100,
    "num_samples": 500,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "head_dim": 8,
    "intermediate_size": 16,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 16,
    "mask_ratio": 0.6,
}
MODELS = {
    "st_mem": (StMemForPreTraining, StMemConfig, {"patch_size": 50}),
    "mtae": (MtaeForPreTraining, MtaeConfig, {"patch_size": 50}),
    "mlae": (MlaeForPreTraining, MlaeConfig, {}),
}


def tiny_model(method="st_mem", **fields):
    torch.manual_seed(0)
    model_class, config_class, patch = MODELS[method]
    return model_class(config_class(**{**TINY, **patch, **fields}))


def feature_extractor(**settings):
    return EcgFeatureExtractor(**{"leads": LEADS, "sampling_rate": 100, "num_samples": 500, **settings})


@pytest.fixture(scope="module")
def rows():
    recordings = load_ecg("ptb-xl-sample", split="test")
    return [recordings[number] for number in range(2)]


def waves():
    return np.sin(np.arange(1500).reshape(3, 500) / 7.0) * np.array([[1.0], [2.0], [0.5]])


def hidden_patches():
    hidden = np.zeros((3, 10), dtype=bool)
    hidden[0, 2:4] = hidden[1, [0, 9]] = hidden[2, 5:7] = True
    return hidden


def orange_lines(figure):
    return [line for axes in figure.axes for line in axes.lines if same_color(line.get_color(), ORANGE)]


def test_hidden_patches_are_shaded_and_only_they_show_the_reconstruction():
    figure = plot_reconstruction(waves(), waves() + 0.1, hidden_patches(), LEADS, 100, "mV")
    for axes, line, hidden in zip(figure.axes, orange_lines(figure), hidden_patches(), strict=True):
        shades = [patch.get_x() for patch in axes.patches if same_color(patch.get_facecolor()[:3], BLUE)]
        assert shades == pytest.approx(0.5 * np.flatnonzero(hidden))
        drawn = line.get_xdata()[np.isfinite(line.get_ydata()) & np.isfinite(line.get_xdata())]
        assert np.array_equal(np.unique(np.floor(drawn / 0.5 + 1e-9)), np.flatnonzero(hidden))
        assert len(drawn) == 100


def test_the_leads_share_one_scale_with_its_unit():
    figure = plot_reconstruction(waves(), waves(), np.ones((3, 10), dtype=bool), LEADS, 100, "mV")
    assert len({axes.get_ylim() for axes in figure.axes}) == len({axes.get_xlim() for axes in figure.axes}) == 1
    assert [axes.get_ylabel() for axes in figure.axes] == list(LEADS) and figure.get_supylabel() == "mV"
    low, high = figure.axes[0].get_ylim()
    assert low < waves().min() * 0.99 and high > waves().max() * 0.99


def test_a_lead_that_was_not_recorded_is_named_and_empty():
    signal = waves()
    signal[1] = np.nan
    figure = plot_reconstruction(signal, waves(), hidden_patches(), LEADS, 100, "mV")
    assert "not recorded" in [text.get_text() for text in figure.axes[1].texts]
    assert not np.isfinite(orange_lines(figure)[1].get_ydata()).any()


def test_the_explained_share_is_one_for_the_signal_and_zero_for_its_means():
    patches = waves().reshape(3, 10, 50)
    flat = np.broadcast_to(patches.mean(-1, keepdims=True), patches.shape).reshape(3, 500)
    assert explained_share(waves(), waves(), hidden_patches()) == 1.0
    assert explained_share(waves(), flat, hidden_patches()) == pytest.approx(0.0)
    visible = np.where(hidden_patches().repeat(50, axis=1), waves(), 99.0)
    assert explained_share(waves(), visible, hidden_patches()) == 1.0


@pytest.mark.parametrize("method", MODELS)
def test_every_recording_gets_a_figure_for_the_report(method, rows):
    model = tiny_model(method).train()
    figures = reconstruction_figures(model, feature_extractor(normalization="lead"), rows)
    assert [figure.title for figure in figures] == ["Reconstruction 1", "Reconstruction 2"]
    assert all("were hidden from the encoder" in f.caption and "only its shape" in f.caption for f in figures)
    page = base64.b64decode(figures[0].data_uri.split(",")[1]).decode()
    assert "standard deviations of the lead" in page
    assert model.training
    again = reconstruction_figures(model, feature_extractor(normalization="lead"), rows)
    assert [figure.data_uri for figure in again] == [figure.data_uri for figure in figures]


def test_the_caption_speaks_of_level_and_size_only_where_they_are_borrowed(rows):
    figures = reconstruction_figures(tiny_model(norm_pix_loss=False), feature_extractor(), rows[:1])
    assert figures[0].title == "Reconstruction" and "only its shape" not in figures[0].caption


def test_of_several_windows_the_first_is_drawn_and_missing_leads_are_left_out(rows):
    extractor = feature_extractor(long_records="all", missing_leads="mask")
    signal = np.asarray(rows[0]["ecg"]["signal"])[:2]
    record = {**rows[0]["ecg"], "signal": signal, "leads": rows[0]["ecg"]["leads"][:2]}
    figures = reconstruction_figures(tiny_model(), extractor, [record, record])
    assert len(figures) == 2
    assert "not recorded" in base64.b64decode(figures[0].data_uri.split(",")[1]).decode()
