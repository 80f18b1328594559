import json

from transformers import AutoFeatureExtractor, AutoModel

from ecg_transformers.data import load_ecg
from ecg_transformers.train import quickstart
from ecg_transformers.train.cli import main
from ecg_transformers.train.evaluation import protocols, run
from ecg_transformers.train.settings import read_config


def test_quickstart_leaves_a_checkpoint_a_report_and_a_page(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run, "KERNELS", {"random_kernels_126": 12, "random_kernels": 24})  # faster
    monkeypatch.setattr(protocols, "cross_validated_C", lambda *args: 0.01)  # 25 fits fewer a model
    monkeypatch.setattr(
        quickstart, "read_config", lambda name: read_config(name) | {"num_kernels": 24, "fitting_records": 24}
    )
    folder = tmp_path / "quickstart"
    assert main(["quickstart", "--max_steps", "2", "--output_dir", str(folder)]) == 0

    report = json.loads((folder / "report.json").read_text())
    for encoder in ("random_encoder", "pretrained"):
        result = report[encoder]["linear"]
        low, high = result["macro_auroc_ci95"]
        assert 0.0 < low <= result["macro_auroc"] <= high < 1.0
        assert result["num_test_records"] == 484 and result["details"]["num_folds"] == 8
    low, high = report["difference"]["linear"]["ci95"]
    difference = report["pretrained"]["linear"]["macro_auroc"] - report["random_encoder"]["linear"]["macro_auroc"]
    assert abs(report["difference"]["linear"]["macro_auroc"] - difference) < 1e-9 and low <= high
    assert report["seconds"] > 0 and report["max_steps"] == 2 and "torch" in report["versions"]

    page = (folder / "report.html").read_text()
    assert page.count("data:image") >= 3 and "http://" not in page and "<script" not in page
    assert (folder / "README.md").read_text().startswith("---\n")
    model, extractor = AutoModel.from_pretrained(folder), AutoFeatureExtractor.from_pretrained(folder)
    inputs = extractor(load_ecg("ptb-xl-sample", split="test")[0]["ecg"])
    assert model(**inputs).pooler_output.shape[1] == model.config.pooled_size
    printed = capsys.readouterr().err
    assert printed.count("ecg-transformers ") >= 3 and "Next:" in printed
