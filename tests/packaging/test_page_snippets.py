"""The Python snippets of every page of the documentation run, in order, and do what the page says."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat
from transformers import AutoModelForSequenceClassification

from ecg_transformers.data import load_ecg, prepare_corpus
from ecg_transformers.data.corpus import DataSource
from ecg_transformers.modeling import EcgViTForSequenceClassification
from ecg_transformers.train.cli import main
from ecg_transformers.train.evaluation import protocols, run
from ecg_transformers.train.evaluation.run import ProtocolOptions, evaluate_encoder
from ecg_transformers.train.publishing.model_card import CardFacts, write_card
from ecg_transformers.train.results import write_json
from ecg_transformers.train.tasks.targets import load_task

from ..data.formats.test_aecg_reader import digits_of, document, sequence, series
from ..hub.conftest import hub as hub  # the fixture
from ..hub.test_convert_ecg_founder import published_state
from ..train.conftest import tiny_encoder
from .snippets import ROOT, page_text, run_snippets, snippets_of

RECORDS = ROOT / "tests" / "fixtures" / "wfdb" / "ptb-xl"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_the_snippets_of_convert_run():
    torch.save({"state_dict": published_state()}, "12_lead_ECGFounder.pth")
    Path("records").mkdir()
    headers = sorted((RECORDS / "records100").glob("**/*.hea"))[:2]
    for header in headers:
        for path in (header, header.with_suffix(".dat")):
            shutil.copy(path, "records")
            shutil.copy(path, ".")
    page = page_text("convert.md").replace("record.hea", headers[0].name)
    snippets = snippets_of(page)
    assert len(snippets) == 3
    names = run_snippets(snippets)
    assert names["output"].pooler_output.shape == (1, 20)
    assert names["table"].features.shape == names["random_table"].features.shape == (2, 20)
    assert not np.allclose(names["table"].features, names["random_table"].features)
    embedded = names["table"].features[names["table"].record_ids.index(headers[0].stem)]
    np.testing.assert_allclose(names["output"].pooler_output[0], embedded, atol=1e-4)


def test_the_snippets_of_corpora_run():
    names = run_snippets(snippets_of(page_text("corpora.md")))
    assert {row["record_id"] for row in names["mixture"]} == {
        row["record_id"] for part in (names["first"], names["second"]) for row in part
    }


@pytest.mark.slow
def test_the_snippets_of_delineation_run(shared_data_dir):
    contract = {"leads": ("I", "II"), "sampling_rate": 50, "num_samples": 500}
    tiny_encoder("model", **contract, patch_size=50)
    Path("ludb/data").mkdir(parents=True)
    shutil.copy(shared_data_dir / "ludb" / "ludb.csv", "ludb")
    for subject in range(1, 6):  # one of each fold
        for path in (shared_data_dir / "ludb" / "data").glob(f"{subject}.*"):
            shutil.copy(path, "ludb/data")
    snippets = snippets_of(page_text("delineation.md"))
    assert len(snippets) == 3
    names = run_snippets([snippet.replace("max_steps=200", "max_steps=2") for snippet in snippets])
    evaluated = names["result"]["pretrained"]["delineation_linear"]
    assert names["again"]["per_point"] == evaluated["per_point"] and names["again"]["miou"] == evaluated["miou"]
    assert np.isfinite(names["marked"]["heart_rate_bpm"]).all()
    assert len(names["targets"]["qt_interval_ms"]) == len(names["others"]) == len(names["predicted"])


def test_the_snippets_of_evaluate_run(monkeypatch):
    monkeypatch.setattr(run, "KERNELS", {"random_kernels": 24})  # faster
    monkeypatch.setattr(protocols, "cross_validated_C", lambda *args: 0.01)  # 25 fits fewer a model
    model, extractor = tiny_encoder("model", extractor={"normalization": "lead"})
    splits = load_task("ptb-xl-sample")
    evaluation = evaluate_encoder(model, extractor, splits, ["linear"], [], ProtocolOptions(Path("evaluation")))
    write_json(evaluation.facts, Path("evaluation/metrics.json"))
    evaluation.write_predictions(Path("evaluation/predictions.parquet"))
    snippets = snippets_of(page_text("evaluate.md"))
    assert len(snippets) == 3
    names = run_snippets(snippets)
    assert names["area"] == pytest.approx(names["metrics"]["pretrained"]["linear"]["macro_auroc"])
    assert 0 < names["error"] < 40


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    """What the snippets leave behind, with a small classifier of untrained weights."""
    folder = tmp_path_factory.mktemp("explain")
    fields = {"leads": ["I", "II", "V1", "V5"], "num_samples": 250, "patch_size": 50, "id2label": {0: "NORM", 1: "CD"}}
    tiny_encoder(folder / "classifier", EcgViTForSequenceClassification, {"long_records": "all"}, **fields)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return run_snippets(snippets_of(page_text("explain.md"))) | {"folder": folder}


def test_the_snippets_of_explain_run_and_draw(explained):
    assert (explained["folder"] / "explain.png").stat().st_size > 10_000
    assert "raises it" not in (explained["folder"] / "map.svg").read_text()  # shares
    assert explained["recording"]["record_id"] == "00157"
    assert explained["explanation"].target == "the output CD"


def test_maps_have_the_shapes_and_sums_that_explain_states(explained):
    assert explained["explanation"].values.shape == (12, 1000)
    assert explained["found"].attributions.shape == (4, 4, 250)
    assert explained["found"].completeness_error.shape == (4,)
    assert explained["shares"].shape == (4, 4, 5)
    assert np.nansum(explained["rollout"].values) == pytest.approx(1.0)
    torch.testing.assert_close(explained["shares"].sum(dim=(1, 2)), torch.ones(4))


def test_the_snippets_of_fine_tune_run(tmp_path):
    snippets = snippets_of(page_text("fine_tune.md"))
    assert len(snippets) == 4
    names = run_snippets(snippets[:3])
    assert names["low"] <= names["metrics"]["test"]["macro_auroc"] <= names["high"]
    assert names["scores"].shape == (5,) and len(names["inputs"]["input_values"]) == 2
    if importlib.util.find_spec("peft") is not None:
        run_snippets([snippets[3]], names)
        assert (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size < 20_000
        merged = AutoModelForSequenceClassification.from_pretrained("merged").eval()
        given = names["inputs"]["input_values"]
        torch.testing.assert_close(merged(given).logits, names["adapted"].eval()(input_values=given).logits)


def test_the_snippets_of_formats_run(capsys):
    steps = np.arange(12 * 50).reshape(12, 50)
    Path("0001.xml").write_text(document(series("".join(sequence(lead, digits_of(lead)) for lead in ("I", "II")))))
    np.save("0001.npy", steps / 1000)
    savemat("0001.mat", {"val": steps.astype(np.int16), "other": steps})
    for name, leads in (("icu", ("II", "V", "ABP")), ("holter", ("MLII",))):
        lines = [
            f"{name}.dat 16 {100 if lead == 'ABP' else 1000}/{'mmHg' if lead == 'ABP' else 'mV'} 16 0 0 0 0 {lead}"
            for lead in leads
        ]
        Path(f"{name}.hea").write_text("\n".join([f"{name} {len(leads)} 500 50", *lines]))
        steps[: len(leads)].T.astype("<i2").tofile(f"{name}.dat")
    np.savetxt("0001.csv", steps[:3].T, delimiter=",", header="I,II,V1", comments="")
    np.save("all.npy", np.stack([steps.T, steps.T + 1]) / 1000)
    snippets = snippets_of(page_text("formats.md"))
    assert len(snippets) == 4
    names, read = {}, []
    run_snippets([snippets[0]], names)
    assert names["record"].leads == ("I", "II") and names["record"].to_millivolts().dtype == np.float32
    reader = names["read_recording"]
    names["read_recording"] = lambda *args, **options: (read.append(reader(*args, **options)), read[-1])[1]
    run_snippets(snippets[1:], names)
    assert [record.leads for record in read[:3]] == [("II", "V"), ("V",), ("II",)]
    assert [record.leads for record in read[3:]] == [tuple(names["twelve"])] * 2 + [("I", "II")]
    for record in read[3:]:
        np.testing.assert_allclose(record.to_millivolts(), steps[: len(record.leads)] / 1000, rtol=1e-5)
    assert capsys.readouterr().out.split() == ["all-0", "all-1"]


def test_the_snippets_of_metrics_give_what_the_page_says():
    names = run_snippets(snippets_of(page_text("metrics.md")))
    assert type(names["metric"]).__name__ == type(names["same"]).__name__
    assert names["calibration"]["nll_scaled"] < names["calibration"]["nll"]
    assert names["calibration"]["temperature"] == names["temperature"]
    assert names["perfect"]["challenge_metric"] == pytest.approx(1)
    assert names["delineation"]["per_point"]["T_offset"]["mean_ms"] == 4.0
    assert names["overlap"]["miou"] == 1


PIPELINES = snippets_of(page_text("pipelines_and_export.md"))


def test_the_snippets_of_pipelines_run():
    assert len(PIPELINES) == 6
    names = run_snippets(PIPELINES[:5])
    assert len(names["first"]) == 5 and set(names["first"][0]) == {"label", "score", "above_threshold"}
    assert names["features"].shape == (32,) and names["tokens"].shape == (2, 40, 32)


@pytest.mark.slow
def test_the_exported_file_gives_the_scores_of_the_pipeline():
    names = run_snippets(PIPELINES)
    expected = {row["label"]: row["score"] for row in names["classify"](names["recording"])}
    assert dict(zip(names["classes"], names["scores"], strict=True)) == pytest.approx(expected, abs=1e-5)


def test_the_snippets_of_prepare_run(tmp_path):
    prepare_corpus("ptb-xl", RECORDS, "prepared/ptb-xl")
    headers = sorted(RECORDS.glob("**/*.hea"))[:2]
    for header in headers:
        for file in (header, header.with_suffix(".dat")):
            shutil.copy(file, tmp_path)
    (tmp_path / "RECORDS").write_text("".join(f"{header.stem}\n" for header in headers))
    page = page_text("prepare_and_stream.md")
    for said, instead in {
        "hf://datasets/owner/ptb-xl": "prepared/ptb-xl",
        "https://physionet.org/files/ludb/1.0.1/": f"{tmp_path.as_uri()}/",
    }.items():
        assert f'"{said}"' in page
        page = page.replace(f'"{said}"', f'"{instead}"')
    snippets = snippets_of(page)
    assert len(snippets) == 4
    whole = load_ecg("prepared", "prepared/ptb-xl", split="all")
    names = {"rank": 0, "world_size": 2, "ptb_xl": whole, "code_15": whole}
    run_snippets([snippets[0]], names)
    assert names["classes"] == ("CD", "HYP", "MI", "NORM", "STTC")
    assert [row["record_id"] for row in names["train"]] and set(names["train"].features) == set(whole.features)
    run_snippets([snippets[1]], names)
    assert [row["record_id"] for row in names["stream"]] == [header.stem for header in headers]
    run_snippets(snippets[2:], names)
    assert [row["record_id"] for row in names["stream"]] == [headers[0].stem]
    assert {row["record_id"] for row in names["mixture"]} == set(whole["record_id"])


@pytest.mark.slow
def test_the_snippets_of_share_run(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_owner")
    (tmp_path / "records").symlink_to(RECORDS)
    model, extractor = tiny_encoder("encoder", num_samples=400)
    facts = CardFacts("pretrained", DataSource("PTB-XL", "CC BY 4.0", "Wagner"))
    write_card("encoder", facts, model.config, extractor)
    torch.set_num_threads(1)
    snippets = snippets_of(page_text("share.md").replace("OWNER/", "owner/"))
    assert len(snippets) == 5
    names = run_snippets(snippets)
    assert {repo_id for _, repo_id in hub.repos} == {"owner/encoder", "owner/run", "owner/recordings"}
    assert hub.repos["models", "owner/encoder"].private and hub.repos["datasets", "owner/recordings"].private
    messages = list(hub.repos["models", "owner/run"].messages.values())
    assert "Training in progress, step 1" in messages and messages[-1] == "End of training"
    assert names["encoder"].config.hidden_size == 16 and names["row"]["ecg"]["sampling_rate"] == 100


def test_the_snippets_of_your_own_data_run(tmp_path, capsys):
    snippets = snippets_of(page_text("your_own_data.md"))
    assert len(snippets) == 2
    names = run_snippets(snippets)
    assert (tmp_path / "finetuned" / "model.safetensors").exists()
    assert names["trainer"].state.global_step == 2
    command = ["info", "recordings", "--dataset", "ecgfolder", "--options", "label_separator=;", "--max_records", "5"]
    assert main(command) == 0
    assert "looked at       5 recordings" in capsys.readouterr().out
