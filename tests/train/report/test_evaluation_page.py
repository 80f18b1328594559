"""The page of a small evaluation, evaluated by the project itself: three labels, sixty test records."""

import copy
import re
import subprocess
from functools import cache
from html.parser import HTMLParser
from shutil import which

import numpy as np
import pytest
from matplotlib.figure import Figure

from ecg_transformers.data import load_ecg
from ecg_transformers.data.corpus import DataSource
from ecg_transformers.train.features import EmbeddingTable
from ecg_transformers.train.predictions import Predictions, ProtocolResult, compare_results
from ecg_transformers.train.report import examples as page_examples
from ecg_transformers.train.report import kinds as page_kinds
from ecg_transformers.train.report import page as page_elements
from ecg_transformers.train.report import projection as page_projection
from ecg_transformers.train.report import settings as page_settings
from ecg_transformers.train.report.evaluation_page import evaluation_page
from ecg_transformers.train.report.page import ReportFigure, render_page
from ecg_transformers.train.results import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Result

EMPTY_PICTURE = "data:image/png;base64,iVBORw0KGgo="
BROWSER = next(filter(None, map(which, ("chromium", "chromium-browser", "google-chrome"))), None)

LABELS = ("NORM", "MI", "<script>alert(1)</script>")
DATA = DataSource("PTB-XL", "CC BY 4.0", "Wagner et al., Sci Data 2020;7:154", "https://physionet.org/content/ptb-xl/")


def make_result(protocol="linear", strength=1.0, problem_type=MULTI_LABEL, seed=0, num_records=60):
    """Scores that know the truth the better the larger `strength`."""
    generator = np.random.default_rng(seed)

    def part(split, size):
        generator = np.random.default_rng([seed, len(split)])
        if problem_type == REGRESSION:
            labels = generator.normal((70, 90), (10, 8), size=(size, 2))
            scores = labels + np.random.default_rng(3).normal(size=labels.shape) * 5 / strength
        elif problem_type == SINGLE_LABEL:
            labels = np.eye(3, dtype=np.int8)[np.arange(size) % 3]
            logits = strength * labels + np.random.default_rng(3).normal(size=labels.shape)
            scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        else:
            labels = (generator.random((size, 3)) < (0.5, 0.3, 0.2)).astype(np.int8)
            labels[0], labels[1] = 1, 0
            scores = 1 / (1 + np.exp(-(strength * (2 * labels - 1) + np.random.default_rng(3).normal(size=(size, 3)))))
        ids = [f"{split}-{number}" for number in range(size)]
        return Predictions(scores, labels, ids, [f"{split}-p{number // 2}" for number in range(size)])

    names = LABELS if problem_type != REGRESSION else ("heart rate (bpm)", "QRS duration (ms)")
    train = (generator.random((80, 3)) < 0.4).astype(np.int8)
    if problem_type == SINGLE_LABEL:
        train = np.eye(3, dtype=np.int8)[np.arange(80) % 3]
    if problem_type == REGRESSION:
        train = generator.normal((70, 90), (10, 8), size=(80, 2))
    details = {"C": 0.1 * strength, "history": [1, 2]}
    return ProtocolResult(
        protocol, names, problem_type, train, part("validation", 40), part("test", num_records), details
    )


def make_evaluation(problem_type=MULTI_LABEL, protocols=("linear", "knn")):
    """`metrics.json` and the results that it was evaluated from; protocols differ in name alone."""
    scored, results = copy.deepcopy(evaluated(problem_type))
    metrics = {key: {protocol: copy.deepcopy(scored[key]) for protocol in protocols} for key in scored}
    metrics |= {
        "task": "ptb-xl superdiagnostic",
        "problem_type": problem_type,
        "label_names": list(results["pretrained"].label_names),
        "model": "runs/tiny",
        "splits": {"train": "folds 1-8", "validation": "fold 9", "test": "fold 10"},
        "command": "ecg-transformers evaluate --model runs/tiny",
        "versions": {"torch": "2.11.0"},
        "seconds": 12.3,
    }
    return metrics, {(encoder, name): result for encoder, result in results.items() for name in protocols}


@cache
def evaluated(problem_type):
    """Evaluations and difference of both encoders, and their results."""
    strengths = {"random_encoder": 0.5, "pretrained": 1.0}
    results = {encoder: make_result("linear", strength, problem_type) for encoder, strength in strengths.items()}
    scored = {encoder: result.evaluate(num_resamples=20) for encoder, result in results.items()}
    scored["difference"] = compare_results(results["pretrained"], results["random_encoder"], num_resamples=20)
    return scored, results


def make_features(result, hidden_size=6):
    test, generator = result.test, np.random.default_rng(1)
    labels = [[name for name, is_so in zip(LABELS, row, strict=True) if is_so] for row in test.labels]
    return EmbeddingTable(
        generator.normal(size=(len(labels), hidden_size)).astype(np.float32),
        test.record_ids,
        test.patient_ids,
        labels,
        [10] * len(labels),
    )


def make_report(**changes):
    metrics, results = make_evaluation()
    fields = {"data": DATA, "facts": {"Method": "ECG-JEPA"}, "predictions": results}
    result = Result.from_json(changes.pop("metrics", metrics))
    return {"result": result} | fields | changes


def render(report):
    return render_page(evaluation_page(**report))


def setting_entry(setting, value, label, pretrained=0.8, **facts):
    """An entry as the settings make them."""
    scored = {"macro_auroc": pretrained, "macro_auroc_ci95": [pretrained - 0.05, pretrained + 0.04], "C": [0.1]}
    return {
        "setting": setting,
        "group": None,
        "value": value,
        "label": label,
        "pretrained": scored,
        "random_encoder": scored | {"macro_auroc": 0.612, "macro_auroc_ci95": [0.55, 0.65]},
        "difference": {"macro_auroc": pretrained - 0.612, "ci95": [0.01, 0.3], "p_value": 0.03},
        "num_train_records": 80,
        "excluded": {},
    } | facts


class Page(HTMLParser):
    """What a page holds: tags that are open, what it would fetch or link to, and its headings."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text):
        super().__init__()
        self.open, self.fetched, self.links, self.ids, self.images, self.headers = [], [], [], set(), [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        self.fetched += [attrs[name] for name in ("src", "srcset", "data", "background") if name in attrs]
        self.fetched += [f"<{tag}>"] if tag in ("link", "script", "iframe", "object", "base") else []
        self.links += [attrs["href"]] if "href" in attrs else []
        self.ids |= {attrs["id"]} if "id" in attrs else set()
        self.images += [attrs.get("alt")] if tag == "img" else []
        self.headers += [attrs.get("scope")] if tag == "th" else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def text_of(page):
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


DRAWING = {page_kinds: ("label_bars", "roc", "precision_recall", "reliability", "errors")}
DRAWING |= {page_projection: ("projection",), page_settings: ("setting",)}


@pytest.fixture(autouse=True, scope="module")
def undrawn():
    """Drawing takes most of the time of a page, and most tests read its words."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_elements, "figure_to_data_uri", lambda *_: EMPTY_PICTURE)
        for module, names in DRAWING.items():
            for name in names:
                patch.setattr(module, f"plot_{name}", lambda *_: None)
        patch.setattr(page_examples, "plot_recording", lambda *_: None)
        yield patch


def full_report():
    """With all that is drawn, settings included."""
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot([0, 1])
    metrics, results = make_evaluation()
    features = {encoder: make_features(results[encoder, "linear"]) for encoder in ("random_encoder", "pretrained")}
    metrics["settings"] = {
        "low_shot": [
            setting_entry("low_shot", 0.1, "10 % of the training records", 0.7, num_draws=5),
            setting_entry("low_shot", 1.0, "100 % of the training records"),
        ],
        "leads": [{"setting": "leads", "group": None, "value": "II", "label": "II", "refused": "no lead II"}],
    }
    explanations = [ReportFigure(figure, "Record 7", "Looked at the T wave.", "A map")]
    return make_report(metrics=metrics, predictions=results, features=features, explanations=explanations)


@pytest.fixture(scope="module")
def page(undrawn):
    return render(full_report())


@pytest.fixture(scope="module")
def drawn_page(undrawn):
    undrawn.undo()  # for the tests of a browser, which are the last
    rows, metrics, results = evaluated_rows()
    return render(full_report() | {"rows": rows, "result": Result.from_json(metrics), "predictions": results})


def test_page_is_well_formed_and_fetches_nothing(page):
    found = Page(page)
    assert found.open == []
    assert found.fetched and all(source.startswith("data:image/") for source in found.fetched)
    assert "url(" not in page and "@import" not in page and "http-equiv" in page
    assert all(link == DATA.url or link[1:] in found.ids for link in found.links)


def test_every_picture_has_words_and_every_header_of_a_table_a_scope(page):
    found = Page(page)
    assert all(found.images) and set(found.headers) == {"col", "row"}


def test_random_encoder_stands_above_the_pretrained_one_with_intervals_and_difference(page):
    metrics, _ = make_evaluation()
    random, pretrained = (metrics[encoder]["linear"] for encoder in ("random_encoder", "pretrained"))
    difference = metrics["difference"]["linear"]
    text = text_of(page)
    random_row = text.index(f"Random encoder {random['macro_auroc']:.3f} {random['macro_auroc_ci95'][0]:.3f} to ")
    pretrained_row = text.index(f"Pretrained encoder {pretrained['macro_auroc']:.3f} ")
    assert random_row < pretrained_row < text.index(f"Difference {difference['macro_auroc']:+.3f} ")
    assert f"{difference['ci95'][0]:+.3f} to {difference['ci95'][1]:+.3f}" in text


@pytest.mark.parametrize("encoder", ["random_encoder", "pretrained"])
@pytest.mark.parametrize("protocol", ["linear", "knn"])
def test_page_has_every_score_of_the_metrics_with_three_digits(page, encoder, protocol):
    scored, text = make_evaluation()[0][encoder][protocol], text_of(page)
    numbers = [scored[key] for key in ("macro_auroc", "macro_auprc", "macro_f1_at_0.5", "macro_f1_tuned")]
    numbers += [scored[key] for key in ("ece", "ece_scaled", "brier", "brier_scaled", "temperature")]
    numbers += [*scored["macro_auroc_ci95"], *scored["per_class"].values(), *scored["per_class_auprc"].values()]
    numbers += [bound for bounds in scored["per_class_ci95"].values() for bound in bounds]
    numbers += scored["thresholds"].values() if encoder == "pretrained" else []
    assert [number for number in numbers if f"{number:.3f}" not in text] == []


def test_text_from_outside_is_escaped(page):
    assert "<script>" not in page and "&lt;script&gt;alert(1)" in page


def test_settings_are_told_with_the_random_encoder_and_what_was_refused(page):
    text = text_of(page)
    assert "10 % of the training records 0.612 0.550 to 0.650 0.700 0.650 to 0.740 +0.088" in text
    assert "not run – – no lead II" in text and "Noise" not in text


def test_what_was_not_measured_does_not_appear():
    text = text_of(render(make_report()))
    for absent in ("Features on a plane", "Attention", "Few labels", "Delineation", "Identity", "right and wrong"):
        assert absent not in text, absent


def test_labels_left_out_are_named_with_their_reason():
    metrics, results = make_evaluation(protocols=("linear",))
    metrics["pretrained"]["linear"]["excluded"] = {"HYP": "test set: 0 positive of 60 records"}
    text = text_of(render(make_report(metrics=metrics, predictions=results)))
    assert "Label HYP (hypertrophy): test set: 0 positive of 60 records" in text


def test_protocol_without_random_encoder_or_words_is_refused():
    metrics, _ = make_evaluation(protocols=("linear",))
    del metrics["random_encoder"]["linear"]
    with pytest.raises(ValueError, match="random encoder beside"):
        render(make_report(metrics=metrics, predictions={}))
    with pytest.raises(ValueError, match="'lineair'"):
        render(make_report(metrics=make_evaluation(protocols=("lineair",))[0], predictions={}))


def test_single_label_task_shows_accuracy_and_the_most_probable_class():
    metrics, results = make_evaluation(SINGLE_LABEL, ("linear",))
    text = text_of(render(make_report(metrics=metrics, predictions=results)))
    scored = metrics["pretrained"]["linear"]
    assert "one logistic regression for all classes" in text and "exactly one label a record" in text
    assert f"{scored['accuracy']:.3f}" in text and f"{scored['macro_f1_argmax']:.3f}" in text
    assert "Macro F1 at 0.5" not in text


def test_regression_shows_errors_beside_those_of_the_training_mean():
    metrics, results = make_evaluation(REGRESSION, ("linear",))
    text = text_of(render(make_report(metrics=metrics, predictions=results)))
    found = metrics["pretrained"]["linear"]["per_target"]["heart rate (bpm)"]
    assert f"heart rate (bpm): training mean {found['train_mean_mae']:.2f}" in text
    assert f"heart rate (bpm): pretrained encoder {found['mae']:.2f}" in text
    assert f"{found['bias']:+.3f} ± {found['sd']:.2f}" in text
    assert "Bland-Altman" in text and "the pretrained encoder is better than a random one" in text


def test_delineation_identity_and_clusters_show_chance_and_random_encoder():
    point = {"sensitivity": 0.912, "ppv": None, "mean_ms": -3.21, "sd_ms": 14.2, "num_references": 140}
    waves = {
        "per_point": {"P_onset": point},
        "iou": {"P": 0.5},
        "miou": 0.6,
        "miou_waves": 0.55,
        "tolerance_ms": 150.0,
    }
    change = {"difference": 0.02, "ci95": [-0.01, 0.05], "p_value": 0.2}
    identity = {"recall_at_1": 0.4, "recall_at_1_ci95": [0.3, 0.5], "chance": {"recall_at_1": 0.011}}
    identity |= {"num_queries": 30, "num_query_patients": 14, "num_gallery_records": 494}
    clusters = {"nmi": 0.2, "nmi_ci95": [0.1, 0.3], "nmi_chance": 0.095, "ari": 0.1, "ari_chance": -0.0001}
    clusters |= {"silhouette": None, "davies_bouldin": None, "num_clusters": 0, "num_noise": 55}
    found = {"k-means": clusters, "num_test_records": 55, "num_test_patients": 50, "num_left_out": 9}
    metrics, _ = make_evaluation(protocols=("linear",))
    for encoder in ("random_encoder", "pretrained"):
        metrics[encoder] |= {"zero-shot-cluster": found, "delineation_linear": waves, "identity": identity}
    metrics["difference"]["delineation_linear"] = {"miou": change, "miou_waves": change}
    text = text_of(render(make_report(metrics=metrics, predictions={})))
    assert "P onset: random encoder 140 0.912 – -3.2 ± 14.2" in text and "within 150 ms" in text
    assert "delineation_linear: these test records do not separate" in text
    assert "Chance 0.011 Random encoder 0.400 0.300 to 0.500" in text
    assert "k-means: random encoder 0.200 0.100 to 0.300 chance 0.095 0.100 chance 0.000 – – 0 55 records" in text


def test_published_numbers_stand_below_ours_with_their_source():
    published = [{"model": "Kim", "protocol": "linear", "value": 0.912, "interval": (0.9, 0.92), "source": "arXiv"}]
    text = text_of(render(make_report(published=published, published_notes=["The same split."])))
    ours = text.index("Pretrained encoder (this page) linear")
    assert ours < text.index("Kim linear 0.912 0.900 to 0.920 arXiv") and "The same split." in text


def evaluated_rows():
    """Twelve recordings that the package carries, and an evaluation of them."""
    rows = load_ecg("ptb-xl-sample", split="test", decode=False).select(range(12))
    result = make_result(num_records=12)
    test = Predictions(result.test.scores, result.test.labels, rows["record_id"][:], rows["patient_id"][:])
    result = ProtocolResult("linear", LABELS, MULTI_LABEL, result.train_labels, result.validation, test)
    metrics, _ = make_evaluation(protocols=("linear",))
    return rows, metrics, {("pretrained", "linear"): result}


def test_examples_are_drawn_from_the_rows_with_truth_and_scores():
    rows, metrics, results = evaluated_rows()
    page = render(make_report(metrics=metrics, predictions=results, rows=rows))
    assert "True positive: " in page and "Electrocardiogram of record" in page and "Truth: " in page


def browse(page, tmp_path, *flags):
    path = tmp_path / "shown.html"
    path.write_text(page, encoding="utf-8")
    common = "--headless=new --no-sandbox --disable-gpu --hide-scrollbars --disable-background-networking"
    common += " --disable-component-update --disable-sync --no-first-run --enable-logging=stderr"
    command = [BROWSER, *common.split(), f"--user-data-dir={tmp_path / 'profile'}", *flags, path.as_uri()]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome is installed")
def test_browser_shows_the_page_without_errors(drawn_page, tmp_path):
    from matplotlib.image import imread

    assert len(drawn_page) < 6e6
    run = browse(drawn_page, tmp_path, "--window-size=1100,1500", f"--screenshot={tmp_path / 'page.png'}")
    assert "CONSOLE" not in run.stderr, run.stderr
    pixels = imread(tmp_path / "page.png")[..., :3]
    assert pixels.shape[:2] == (1500, 1100)
    for part in np.array_split(pixels, 3):  # no part of it is blank
        assert part.std() > 0.03


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome is installed")
@pytest.mark.parametrize("width", [390, 1100])
def test_page_does_not_scroll_sideways(drawn_page, tmp_path, width):
    framed = drawn_page.replace("&", "&amp;").replace('"', "&quot;")
    measure = "this.contentDocument.documentElement.scrollWidth"
    frame = (
        f'<iframe width="{width}" height="900" style="border:0" onload="document.title={measure}" srcdoc="{framed}">'
    )
    run = browse(f"<!doctype html><title>0</title>{frame}</iframe>", tmp_path, "--dump-dom")
    assert re.search(r"<title>(\d+)</title>", run.stdout)[1] == str(width)
