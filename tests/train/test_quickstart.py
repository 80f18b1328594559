import json

from transformers import AutoFeatureExtractor, AutoModel

from ecg_transformers.data import load_ecg
from ecg_transformers.train.cli import main


def test_quickstart_leaves_a_checkpoint_a_report_and_a_page(tmp_path, capsys):
    folder = tmp_path / "quickstart"
    assert main(["quickstart", "--max_steps", "2", "--output_dir", str(folder)]) == 0

    report = json.loads((folder / "report.json").read_text())
    for encoder in ("random_encoder", "pretrained"):
        result = report[encoder]["linear"]
        low, high = result["macro_auroc_ci95"]
        assert 0.0 < low <= result["macro_auroc"] <= high < 1.0
    low, high = report["difference"]["linear"]["ci95"]
    difference = report["pretrained"]["linear"]["macro_auroc"] - report["random_encoder"]["linear"]["macro_auroc"]
    assert abs(report["difference"]["linear"]["macro_auroc"] - difference) < 1e-9 and low <= high
    assert report["seconds"] > 0 and report["max_steps"] == 2 and "torch" in report["versions"]

    page = (folder / "report.html").read_text()
    assert page.count("data:image") >= 3 and "http://" not in page and "<script" not in page
    assert (folder / "README.md").read_text().startswith("---\n")
    model, extractor = AutoModel.from_pretrained(folder), AutoFeatureExtractor.from_pretrained(folder)
    inputs = extractor(load_ecg("ptb-xl-sample", split="test")[0]["ecg"])
    assert model(**inputs).pooler_output.shape[1] == model.config.hidden_size
    printed = capsys.readouterr().err
    assert printed.count("ecg-transformers ") >= 3 and "Next:" in printed
