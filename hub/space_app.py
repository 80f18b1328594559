"""The page of a Space, by gradio: pick or upload a recording, see its trace, the model's scores, what they depend on,
and the carried recordings that the model finds most alike.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from transformers.utils import logging as transformers_logging

from ecg_transformers.data import EcgRecord
from ecg_transformers.data.formats.limits import missing_library

from .space_model import SpaceModel
from .space_page import CSS, METHODS, Shown, SpacePage, load_page, markdown_text
from .space_uploads import (
    AXES,
    FIELDS,
    MAX_MEGABYTES,
    MAX_RATE,
    MAX_SECONDS,
    UNITS,
    Declaration,
    make_folder,
    read_apart,
    read_upload,
)

KEEP_SECONDS = 1800  # uploads and recordings in memory, at most
MAX_SESSIONS = 24  # whose recordings are kept, up to 38 MB each
MAX_WAITING = 64
BANNER = (
    "<strong>Research software, not a medical device.</strong> Nothing here is a diagnosis, and nobody has tested it "
    "for one. Upload only recordings that you may share, without names."
)
SOURCE = (
    "Samples and neighbours: [PTB-XL](https://physionet.org/content/ptb-xl/) (Wagner et al., Scientific Data 2020, "
    "doi:10.1038/s41597-020-0495-6), first 500 records, licence "
    "[CC BY 4.0](https://creativecommons.org/licenses/by/4.0/). Made with `ecg-transformers` (Apache-2.0)."
)


def build_app(model: str | os.PathLike, neighbours: str | os.PathLike, title: str, revision: str | None = None):
    """The page as `gradio.Blocks`, of what `ecg-transformers space` wrote; [`launch_app`] serves it."""
    gradio = _import_gradio()
    folder = make_folder(KEEP_SECONDS)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    page = load_page(model, neighbours, revision, read=_reader(folder))
    with gradio.Blocks(
        title=title, analytics_enabled=False, delete_cache=(KEEP_SECONDS, KEEP_SECONDS), fill_width=True
    ) as app:
        gradio.Markdown(f"# {markdown_text(title)}\n\n{_what_it_does(page.model)}")
        gradio.HTML(f'<div class="ecg-banner" role="note">{BANNER}</div>')
        with gradio.Tabs():
            with gradio.Tab("Samples"):
                names = list(page.samples)
                sample = gradio.Radio(names, value=names[0], label="From the test fold of PTB-XL", elem_id="sample")
            with gradio.Tab("Upload"):
                submit, upload = _upload_tab(gradio)
        results = _results(gradio, page.model)
        gradio.Markdown(SOURCE)
        _connect(gradio, app, page, (sample, submit, upload), results)
    return app.queue(max_size=MAX_WAITING)


def _reader(folder: Path) -> Callable[..., EcgRecord]:
    """Reader of uploads: a process with little memory, where the system can limit one."""
    return partial(read_apart, folder) if sys.platform == "linux" else read_upload


def _results(gradio, model: SpaceModel) -> dict[str, Any]:
    """Parts of the page on a recording, by name."""
    has_classes = model.is_classifier
    parts = {"shown": gradio.State(None, time_to_live=KEEP_SECONDS), "message": gradio.HTML(elem_id="message")}
    with gradio.Column(visible=False, elem_id="results") as parts["results"]:
        gradio.Markdown("## Recording")
        parts["trace"] = gradio.HTML(elem_id="trace")
        is_regression = model.is_regression
        gradio.Markdown("## Estimates" if is_regression else "## Class probabilities", visible=has_classes)
        parts["scores"] = gradio.HTML(elem_id="scores", visible=has_classes)
        gradio.Markdown("## What the output depends on")
        with gradio.Row():
            parts["method"] = gradio.Radio(list(METHODS), value=next(iter(METHODS)), label="Method", elem_id="method")
            parts["target"] = gradio.Dropdown(
                model.classes, label="Class (of integrated gradients)", elem_id="target", visible=has_classes
            )
        parts["explanation"] = gradio.HTML(elem_id="explanation")
        gradio.Markdown(
            "## Most alike to the model\n\nThe recordings of PTB-XL's training folds that the model places nearest, "
            "with their labels. Distance: 0 is the same direction of features, 1 unrelated."
        )
        parts["neighbours"] = gradio.HTML(elem_id="neighbours")
    return parts


def _connect(gradio, app, page: SpacePage, inputs: tuple, parts: dict[str, Any]):
    """Trace and scores come first, map and neighbours follow, because they take longer."""
    sample, submit, (files, *declared) = inputs
    shown, explanation, neighbours = (parts[name] for name in ("shown", "explanation", "neighbours"))

    def show(opened: tuple[Shown | None, str]) -> dict:
        recording, error = opened
        if not error:
            found, error = page.alone(lambda: (page.trace(recording), *page.scores(recording)))
        if error:
            return {shown: None, parts["message"]: error, parts["results"]: gradio.update(visible=False)}
        pieces = dict(zip((parts["trace"], parts["scores"], parts["target"]), found, strict=True))
        visible = {parts["results"]: gradio.update(visible=True), parts["message"]: ""}
        return pieces | visible | {shown: recording, explanation: "", neighbours: ""}

    def show_sample(name: str) -> dict:
        return show(page.guarded(page.open_sample, name))

    def show_upload(paths: list[str] | None, mask_missing_leads: bool, *values) -> dict:
        stated = Declaration(**dict(zip(FIELDS, values, strict=True)))
        return show(page.guarded(page.open_upload, paths, mask_missing_leads, stated))

    def explain(recording: Shown | None, method: str, target: str | None) -> str:
        return page.piece(page.explanation, recording, method, target)

    def find_neighbours(recording: Shown | None) -> str:
        return page.piece(page.nearest, recording)

    quiet = {"api_visibility": "private", "trigger_mode": "always_last"}
    outputs = [part for name, part in parts.items() if name != "method"]
    settings = quiet | {"outputs": outputs, "show_progress_on": [parts["message"]]}
    starts = [
        app.load(show_sample, [sample], **settings),
        sample.input(show_sample, [sample], **settings),
        submit.click(show_upload, [files, *declared], **settings),
    ]
    explained = quiet | {"inputs": [shown, parts["method"], parts["target"]], "outputs": [explanation]}
    for start in starts:
        start.then(explain, **explained).then(find_neighbours, [shown], [neighbours], **quiet)
    gradio.on([parts["method"].input, parts["target"].input], explain, **explained)


def launch_app(app, **settings):
    """Serves the page, on a Space or here; no link to share, nothing fetched from elsewhere."""
    gradio = _import_gradio()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that uploads are removed at the end
    transformers_logging.set_verbosity_error()
    logging.getLogger("ecg_transformers").setLevel(logging.ERROR)
    theme = gradio.themes.Default(
        primary_hue="sky", neutral_hue="slate", font=["system-ui", "sans-serif"], font_mono=["monospace"]
    )
    app.launch(
        theme=theme,
        css=CSS,
        max_file_size=MAX_MEGABYTES * 2**20,
        state_session_capacity=MAX_SESSIONS,
        share=False,
        ssr_mode=False,
        footer_links=[],
        **settings,
    )


def _upload_tab(gradio):
    """The button; and files, checkbox and fields, those in the order of `FIELDS`."""
    upload = gradio.File(file_count="multiple", label="A recording", elem_id="upload", height=140)
    gradio.Markdown(
        f"WFDB (`.hea` and `.dat` together), EDF, DICOM, HL7 aECG, GE MUSE, Philips, CSV, Parquet, npy, npz, MATLAB; "
        f"up to {MAX_MEGABYTES} MB, {MAX_SECONDS} s and {MAX_RATE} Hz. Your files are deleted within the hour."
    )
    with gradio.Accordion("What the file does not say (CSV and arrays)", open=False, elem_id="declared"):
        with gradio.Row():
            rate = gradio.Textbox(label=FIELDS["sampling_rate"], placeholder="500", elem_id="rate", min_width=140)
            unit = gradio.Dropdown(list(UNITS), value=None, label=FIELDS["unit"], elem_id="unit", min_width=140)
            leads = gradio.Textbox(
                label=FIELDS["leads"], placeholder="I, II, V1 (if no header line)", elem_id="leads", min_width=200
            )
        with gradio.Row():
            axes = gradio.Dropdown(list(AXES), value=None, label=f"{FIELDS['axes']} (npy, npz, MATLAB)", min_width=140)
            step = gradio.Textbox(label=f"{FIELDS['step']} (unit per step, of whole numbers)", min_width=140)
            array = gradio.Textbox(label=f"{FIELDS['dataset']} (if there are several)", min_width=200)
    mask = gradio.Checkbox(False, label="Go on without missing leads (masked, by name)", elem_id="mask")
    button = gradio.Button("Read the recording", variant="primary", elem_id="submit")
    return button, [upload, mask, rate, unit, leads, axes, step, array]


def _what_it_does(model: SpaceModel) -> str:
    extractor = model.feature_extractor
    reads = (
        f"It reads {extractor.num_samples / extractor.sampling_rate:g} s at {extractor.sampling_rate:g} Hz of the "
        f"leads {', '.join(extractor.leads)}."
    )
    classes = ", ".join(map(markdown_text, model.classes))
    if model.is_regression:
        return f"A model that predicts numbers from electrocardiograms: {classes}. {reads}"
    if model.is_classifier:
        return f"A model that predicts classes of electrocardiograms: {classes}. {reads}"
    return f"An encoder of electrocardiograms. It has no classes: see what it finds alike. {reads}"


def _import_gradio():
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported: nothing is reported to anyone
    try:
        import gradio
    except ImportError as error:
        raise missing_library("gradio", "space") from error
    return gradio
