from pathlib import Path

import pytest

from ecg_transformers.train.cli import main
from ecg_transformers.train.pretrain import last_parts

TINY = (
    "--hidden_size 16 --num_hidden_layers 1 --num_attention_heads 2 --head_dim 8 --intermediate_size 32 "
    "--decoder_hidden_size 16 --decoder_num_hidden_layers 1 --decoder_num_attention_heads 2 "
    "--decoder_intermediate_size 32 --max_steps 2 --logging_steps 1 --per_device_train_batch_size 4 --use_cpu true "
    "--disable_tqdm true"
).split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("mtae")
    command = ["pretrain", "--config", "mtae_cpu", *TINY, "--online_probe_steps", "2"]
    assert main([*command, "--output_dir", str(path)]) == 0
    return path


def test_pretraining_leaves_a_card_that_names_method_data_and_licence(folder):
    card = (folder / "README.md").read_text()
    assert "masked time autoencoder" in card and "CC BY 4.0" in card and "No results were measured" in card


def test_pretraining_leaves_a_page_with_curves_reconstructions_and_the_command(folder):
    page = (folder / "training.html").read_text()
    assert page.count("<figure ") + page.count("<figure>") == 3
    assert "ecg-transformers pretrain --config mtae_cpu" in page
    assert "Probe validation macro auroc (last)" in page and "Loss (last)" in page


def test_the_last_value_of_every_part_is_kept():
    history = [{"loss": 2.0, "perplexity": 3.0, "step": 1}, {"loss": 1.0, "perplexity": 4.0, "step": 2}, {"eval": 9.0}]
    assert last_parts(history) == {"Loss (last)": 1.0, "Perplexity (last)": 4.0}


def test_corpora_are_mixed_by_their_weights_from_the_command_line(tmp_path):
    records = Path(__file__).parents[1] / "fixtures" / "wfdb" / "ptb-xl"
    command = ["pretrain", "--config", "mtae_cpu", *TINY, "--mix", "ptb-xl-sample::0.9", f"wfdb:{records}:0.1"]
    assert main([*command, "--output_dir", str(tmp_path / "model")]) == 0
    card = (tmp_path / "model" / "README.md").read_text()
    assert "(CC BY 4.0) + a folder of WFDB records" in card and "license_name: unknown" in card


def test_a_mixture_that_is_none_is_named(tmp_path, capsys):
    command = ["pretrain", "--config", "kernel_response_cpu", "--output_dir", str(tmp_path / "model"), "--mix"]
    with pytest.raises(SystemExit):
        main([*command, "ptb-xl=folder"])
    assert "expected NAME:DIR:WEIGHT" in capsys.readouterr().err
