"""No authors' file becomes another model than the one it holds: what is missing, wrong or damaged is named."""

import numpy as np
import pytest
import torch

from ecg_transformers.hub.convert import SOURCES, convert_file
from ecg_transformers.hub.convert_kim import convert_kim_checkpoint, kim_state_dict
from ecg_transformers.hub.convert_lejepa import convert_lejepa_checkpoint, lejepa_feature_extractor, lejepa_state_dict
from ecg_transformers.hub.convert_other_architectures import convert_ecg_founder_checkpoint
from ecg_transformers.hub.convert_st_mem import convert_st_mem_checkpoint
from ecg_transformers.hub.convert_weimann import (
    convert_weimann_checkpoint,
    weimann_feature_extractor,
    weimann_state_dict,
)
from ecg_transformers.modeling import EcgJepaConfig, EcgJepaForPreTraining, EcgViTConfig, EcgViTModel
from ecg_transformers.modeling.configuration_lejepa import LeJepaConfig
from ecg_transformers.modeling.modeling_lejepa import LeJepaForPreTraining

from .test_convert_ecg_fm import published_state as ecg_fm_state
from .test_convert_ecg_founder import published_state as ecg_founder_state
from .test_convert_hubert_ecg import published as hubert_ecg
from .test_convert_lejepa import probe_file

GIVEN = {
    "kim": {"num_attention_heads": 4, "predictor_num_attention_heads": 3},
    "st-mem": {"num_attention_heads": 6, "num_hidden_layers": 1}
    | {"decoder_num_attention_heads": 4, "decoder_num_hidden_layers": 1},
    "hubert-ecg": {"num_attention_heads": 4},
    "ecg-fm": {"num_attention_heads": 4},
}
CHECKED = sorted(set(SOURCES) - {"ecg-cpc"})
"""Sources whose files are held against their own settings here; `test_convert_ecg_cpc.py` has the other."""
LAST_BLOCK = {
    "kim": "encoder.encoder_blocks.blocks.2.",
    "weimann": "encoder.blocks.2.",
    "lejepa-ecg": "encoder.blocks.2.",
    "hubert-ecg": "encoder.layers.1.",
    "ecg-fm": "encoder.layers.1.",
    "ecg-founder": "stage_list.2.block_list.1.",
}


class MadeWhenAsked(dict):
    """Values made by functions, so that a golden file that is not carried concerns its own source alone."""

    def __init__(self, makers):
        super().__init__()
        self.makers = makers

    def __missing__(self, key):
        self[key] = self.makers[key]()
        return self[key]


@pytest.fixture
def files(golden, golden_facts):
    """A whole file of every source, small, as its authors' code writes it."""

    def stored(name, prefix):
        return {key.removeprefix(prefix): value for key, value in golden(name).items() if key.startswith(prefix)}

    def of_lejepa():
        channels = ["I", "II", "V1", "V2", "V3", "V4", "V5", "V6"]
        config = golden_facts("lejepa_ecg_small")["config"] | {"channels": channels}
        return {"model": stored("lejepa_ecg_small", "state_dict."), "config": config}

    def of_weimann():
        return {"model": stored("weimann_small", "state/"), "config": golden_facts("weimann_small")["config"]}

    return MadeWhenAsked(
        {
            "kim": lambda: {"encoder": stored("kim_small", "state/"), "epoch": 100},
            "weimann": of_weimann,
            "lejepa-ecg": of_lejepa,
            "st-mem": lambda: {"model": stored("st_mem", "state_dict."), "epoch": 1},
            "hubert-ecg": lambda: {"model_state_dict": hubert_ecg()[1]},
            "ecg-fm": lambda: {"model": ecg_fm_state()},
            "ecg-founder": lambda: {"state_dict": ecg_founder_state()},
        }
    )


def state_of(file):
    return next(value for value in file.values() if isinstance(value, dict) and len(value) > 30)


def convert(source, file):
    given = GIVEN.get(source, {})
    return SOURCES[source].convert(file, **given)


def published_kim(**sizes):
    config = {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 8, "num_attention_heads": 16}
    return kim_state_dict(EcgViTModel(EcgViTConfig(**config | sizes)))


PRETRAINING_ONLY = ("mask_emb", "quantizer", "project_q", "final_proj", "label_embedding", "masked_spec_embed")


def weights_of(state):
    """Names of the tensors that a file cannot do without."""
    copies = ("to_patch_embedding",) if "mask_embedding" in state else ()  # ST-MEM has these twice
    keys = [key for key in sorted(state) if not key.startswith(PRETRAINING_ONLY + copies)]
    return [key for key in keys if ".bn" not in key and "first_bn" not in key and "num_batches" not in key]


# --- damaged ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", CHECKED)
@pytest.mark.parametrize("damage", ["nan", "infinite", "whole numbers", "complex", "number", "sparse"])
def test_a_tensor_that_is_no_finite_real_weight_is_named(files, source, damage):
    file = files[source]
    assert convert(source, file)
    state = state_of(file)
    key = next(key for key in sorted(state) if state[key].ndim == 2 and "num_batches" not in key)
    bad = state[key].clone()
    if damage in ("nan", "infinite"):
        bad[-1, -1] = float("nan") if damage == "nan" else -float("inf")
    else:
        bad = {"whole numbers": bad.long, "complex": bad.cfloat, "number": lambda: 3, "sparse": bad.to_sparse}[
            damage
        ]()
    state[key] = bad
    with pytest.raises(ValueError, match=f"'{key}'"):
        convert(source, file)


@pytest.mark.parametrize("source", CHECKED)
@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 17])
def test_a_lone_number_in_place_of_a_weight_is_an_error_that_names_it(files, source, every):
    file, state = files[source], state_of(files[source])
    for key in weights_of(state)[::every]:
        with pytest.raises(ValueError, match=key.replace(".", r"\.")):
            convert(source, file | {name_of(file): state | {key: torch.tensor(1.0)}})


def name_of(file):
    return next(name for name, value in file.items() if isinstance(value, dict) and len(value) > 30)


def without(file, prefix):
    """The file without the tensors of a prefix."""
    kept = {key: tensor for key, tensor in state_of(file).items() if not key.startswith(prefix)}
    assert len(kept) < len(state_of(file))
    return file | {name_of(file): kept}


# --- what does not fit ---------------------------------------------------------------------------------------------


BIASES = {
    "kim": "encoder.norm.bias",
    "weimann": "encoder.norm.weight",
    "lejepa-ecg": "encoder.blocks.0.norm1.bias",
    "st-mem": "encoder.norm.bias",
    "hubert-ecg": "encoder.layer_norm.bias",
    "ecg-fm": "encoder.layers.1.fc2.bias",
    "ecg-founder": "stage_list.2.block_list.1.se_fc2.bias",
}
"""A tensor of each source from which no size is read."""


@pytest.mark.parametrize("source", CHECKED)
def test_missing_unexpected_and_misshapen_tensors_are_listed(files, source):
    file, key, state = files[source], BIASES[source], dict(state_of(files[source]))
    tensor = state.pop(key)
    with pytest.raises(ValueError, match=rf"Missing keys: \['{key}'\]. Unexpected keys: \['encoder.extra'\]"):
        convert(source, file | {name_of(file): state | {"encoder.extra": tensor}})
    with pytest.raises(ValueError, match=rf"Shapes expected and found: .*{key}.*\({len(tensor)},\), \(3,\)"):
        convert(source, file | {name_of(file): state | {key: tensor[:3]}})


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("kim", "ECG-JEPA .Kim."),
        ("weimann", "ECG-JEPA .Weimann."),
        ("lejepa-ecg", "LeJEPA-ECG"),
        ("st-mem", "ST-MEM, MTAE or MLAE"),
        ("hubert-ecg", "HuBERT-ECG"),
        ("ecg-fm", "ECG-FM"),
        ("ecg-founder", "ECGFounder"),
    ],
)
def test_a_file_of_another_project_is_refused(source, name):
    for file in ({"model": {"W_P.weight": torch.zeros(1)}}, {"weight": torch.zeros(1)}):
        with pytest.raises(ValueError, match=f"no {name} checkpoint"):
            SOURCES[source].convert(file)


WAYS_BACK = {"kim": kim_state_dict, "weimann": weimann_state_dict, "lejepa-ecg": lejepa_state_dict}


@pytest.mark.parametrize("source", WAYS_BACK)
def test_the_way_back_is_bit_exact(files, source):
    state = state_of(files[source])
    back = WAYS_BACK[source](convert(source, files[source]))
    assert back.keys() == state.keys()
    for name, tensor in state.items():
        if name.endswith("pos_embed"):  # a table that we compute anew
            torch.testing.assert_close(back[name], tensor, atol=1e-6, rtol=0)
        else:
            assert torch.equal(back[name], tensor), name


@pytest.mark.parametrize(
    ("source", "name"),
    [("kim", "encoder.pos_embed"), ("st-mem", "encoder.pos_embedding"), ("st-mem", "decoder_pos_embed")],
)
def test_a_foreign_position_table_is_refused(files, source, name):
    state = state_of(files[source])
    state[name] = state[name].roll(1, -2)
    with pytest.raises(ValueError, match=f"position table '{name}' differs"):
        convert(source, files[source])


# --- incomplete ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", CHECKED)
@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 17])
def test_every_missing_tensor_is_an_error_in_a_sentence(files, source, every):
    for key in weights_of(state_of(files[source]))[::every]:
        with pytest.raises(ValueError, match="."):
            convert(source, without(files[source], key))


@pytest.mark.parametrize("source", LAST_BLOCK)
def test_a_gap_between_the_blocks_is_named(files, source):
    first = LAST_BLOCK[source].replace(".2.", ".0.") if source != "ecg-founder" else "stage_list.0.block_list.0."
    first = first.replace("layers.1.", "layers.0.")
    with pytest.raises(ValueError, match=r"The block \S+ is missing|no .* checkpoint: expected the key|Missing keys"):
        convert(source, without(files[source], first))


@pytest.mark.slow
def test_a_published_size_has_its_published_depth_unless_a_flag_says_otherwise():
    state = published_kim(num_hidden_layers=11)
    with pytest.raises(ValueError, match=r"11 layers .*width 768 has 12\..*num_hidden_layers=11"):
        convert_kim_checkpoint({"encoder": state})
    with pytest.raises(ValueError, match="width 768 and 11 layers.*Give num_attention_heads"):
        convert_kim_checkpoint(state, num_hidden_layers=11)
    assert convert_kim_checkpoint(state, num_hidden_layers=11, num_attention_heads=16).config.num_hidden_layers == 11
    with pytest.raises(ValueError, match="num_hidden_layers=12 was given .* but the file has 11"):
        convert_kim_checkpoint(state, num_hidden_layers=12)
    config = convert_kim_checkpoint(published_kim()).config
    assert (config.num_hidden_layers, config.num_attention_heads) == (12, 16)


def test_heads_are_those_of_exactly_the_published_size(files):
    for source, flags in (("kim", "num_attention_heads"), ("st-mem", "num_attention_heads")):
        with pytest.raises(ValueError, match=f"Give {flags}"):
            SOURCES[source].convert(files[source], **{"num_hidden_layers": 1} if source == "st-mem" else {})
    with pytest.raises(ValueError, match="Give predictor_num_attention_heads"):
        convert_kim_checkpoint(files["kim"], num_attention_heads=4)
    lejepa = files["lejepa-ecg"]
    del lejepa["config"]["num_heads"]
    with pytest.raises(ValueError, match="Give num_attention_heads"):
        convert_lejepa_checkpoint(lejepa)
    with pytest.raises(ValueError, match="1152 rows, no multiple of three times 5 heads"):
        convert_st_mem_checkpoint(files["st-mem"], **GIVEN["st-mem"] | {"num_attention_heads": 5})


@pytest.mark.parametrize("source", ["weimann", "lejepa-ecg"])
def test_registers_that_are_missing_are_no_smaller_model(files, source):
    file = files[source]
    expected = file["config"]["num_registers"]
    for prefix in ("encoder.registers", "target_encoder.registers"):
        file = without(file, prefix) if prefix in file["model"] else file
    with pytest.raises(ValueError, match=f"num_registers is {expected} in its settings and 0 by its tensors"):
        convert(source, file)
    bare = {"num_attention_heads": 4, "leads": file["config"]["channels"]}
    predictor = {"predictor_num_attention_heads": 3} if source == "weimann" else {}
    with pytest.raises(ValueError, match=r"0 register tokens .* expected 1.*--num_registers 0"):
        SOURCES[source].convert(file["model"], **bare, **predictor)
    assert SOURCES[source].convert(file["model"], **bare, **predictor, num_registers=0).config.num_registers == 0


def test_a_missing_predictor_teacher_or_projector_is_told(files):
    with pytest.raises(ValueError, match="lacks the tensor 'predictor.embed.weight'"):
        convert_weimann_checkpoint(without(files["weimann"], "predictor.embed"))
    with pytest.raises(ValueError, match="Expected a teacher, a projector or a head"):
        convert_weimann_checkpoint(without(without(files["weimann"], "predictor."), "target_encoder."))
    with pytest.raises(ValueError, match="lacks the tensor 'projector.net.0.weight'"):
        convert_lejepa_checkpoint(without(files["lejepa-ecg"], "projector.net.0"))
    with pytest.raises(ValueError, match="lacks the tensor 'predictor.predictor_embed.weight'"):
        convert_kim_checkpoint(without(files["kim"], "predictor.predictor_embed"), **GIVEN["kim"])
    with pytest.raises(ValueError, match="The block predictor.predictor_blocks.blocks.0 is missing"):
        convert_kim_checkpoint(without(files["kim"], "predictor.predictor_blocks"), **GIVEN["kim"])


def test_a_missing_convolution_is_no_model_of_another_rate():
    state = {key: tensor for key, tensor in hubert_ecg()[1].items() if "conv_layers.4" not in key}
    with pytest.raises(ValueError, match=r"4 convolutions.* for 50 Hz; expected those for 100 Hz.*--sampling_rate 50"):
        convert("hubert-ecg", state)
    assert SOURCES["hubert-ecg"].convert(state, **GIVEN["hubert-ecg"], sampling_rate=50).config.sampling_rate == 50
    stated = {"conv_kernel": [10, 3, 3, 2, 2]}
    with pytest.raises(ValueError, match="conv_kernel"):
        SOURCES["hubert-ecg"].convert({"model_state_dict": state, "model_config": stated}, **GIVEN["hubert-ecg"])
    whole = {"model_state_dict": hubert_ecg()[1], "model_config": {"conv_stride": (4, 2, 2, 2, 2)}}
    kept = SOURCES["hubert-ecg"].convert(whole, **GIVEN["hubert-ecg"]).config.conv_stride
    assert list(kept) == [4, 2, 2, 2, 2]  # a tuple says what a list does
    state = {key: tensor for key, tensor in ecg_fm_state().items() if "conv_layers.3" not in key}
    with pytest.raises(ValueError, match="3 convolutions, the published model 4"):
        convert("ecg-fm", state)
    stated = {"cfg": {"model": {"conv_feature_layers": "[(24, 2, 2)] * 4"}}, "model": state}
    with pytest.raises(ValueError, match="conv_feature_layers"):
        convert("ecg-fm", stated)
    stated["cfg"]["model"]["conv_feature_layers"] = "[(24, 2, 2)] + [(24, 2, 2)] * 2"
    assert convert("ecg-fm", stated).config.conv_dim == (24, 24, 24)


def test_a_published_founder_lacks_no_block():
    state = ecg_founder_state()
    config = SOURCES["ecg-founder"].convert(state).config
    assert config.stage_depths == (2, 1, 2)
    # Wide as the published ones, with fewer stages and blocks.
    convolution = torch.zeros(64, 12, 16)
    wide = {"first_conv.conv.weight": convolution, "dense.weight": torch.zeros(150, 64)}
    wide["stage_list.0.block_list.0.conv2.conv.weight"] = torch.zeros(64, 16, 16)
    with pytest.raises(ValueError, match=r"stages of \[1\] blocks, those of the published model \[2, 2, 2, 3"):
        convert_ecg_founder_checkpoint(wide)
    with pytest.raises(ValueError, match="num_hidden_layers=2 was given .* the file has 1"):
        convert_ecg_founder_checkpoint(wide, num_hidden_layers=2)


# --- contradictions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "setting", "value"),
    [
        ("weimann", "dim", 96),
        ("weimann", "depth", 4),
        ("weimann", "patch_size", 50),
        ("weimann", "num_registers", 2),
        ("weimann", "bias", True),
        ("weimann", "qkv_bias", True),
        ("weimann", "mlp_ratio", 2.0),
        ("weimann", "layer_scale_eps", 0.1),
        ("weimann", "pred_dim", 48),
        ("weimann", "pred_depth", 8),
        ("lejepa-ecg", "dim", 96),
        ("lejepa-ecg", "depth", 4),
        ("lejepa-ecg", "patch_size", 25),
        ("lejepa-ecg", "num_registers", 1),
        ("lejepa-ecg", "bias", False),
        ("lejepa-ecg", "num_channels", 12),
        ("lejepa-ecg", "layer_scale_eps", 0.0),
        ("lejepa-ecg", "proj_hidden_dim", 2048),
        ("lejepa-ecg", "proj_dim", 128),
    ],
)
def test_a_setting_that_contradicts_the_tensors_is_named_with_both(files, source, setting, value):
    files[source]["config"] = files[source]["config"] | {setting: value}
    with pytest.raises(ValueError, match=f"The file contradicts itself: {setting} is {value}"):
        convert(source, files[source])


def test_settings_of_the_other_sources_are_held_against_their_tensors(files):
    for name, value in (("encoder_layers", 12), ("encoder_embed_dim", 768), ("conv_pos", 128), ("in_d", 1)):
        told = {"cfg": {"model": {"encoder_attention_heads": 4, name: value}}, "model": ecg_fm_state()}
        with pytest.raises(ValueError, match=f"{name} is {value} in its settings"):
            SOURCES["ecg-fm"].convert(told)
    for name, value in (("num_hidden_layers", 12), ("hidden_size", 768), ("intermediate_size", 3072)):
        told = {"model_config": {name: value}, "model_state_dict": hubert_ecg()[1]}
        with pytest.raises(ValueError, match=f"{name} is {value} in its settings"):
            SOURCES["hubert-ecg"].convert(told, num_attention_heads=4)
    told = files["st-mem"] | {"config": {"model": {"seq_len": 2500, "norm_pix_loss": False}}}
    with pytest.raises(ValueError, match="seq_len is 2500 in its settings and 2250 by its tensors"):
        convert("st-mem", told)
    told["config"]["model"]["seq_len"] = 2250
    assert not convert("st-mem", told).config.norm_pix_loss


@pytest.mark.parametrize("source", ["weimann", "lejepa-ecg"])
def test_a_flag_that_contradicts_the_file_is_an_error(files, source):
    file = files[source]
    file["config"]["sampling_frequency"] = 500
    wrong = {"num_attention_heads": 3, "num_hidden_layers": 2, "num_registers": 5, "sampling_rate": 250}
    wrong |= {"leads": ["I", "II"], "num_samples": 2500}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=rf"{name}=.* was given|register tokens .* expected {value}"):
            SOURCES[source].convert(file, **{name: value})
    same = {"num_attention_heads": file["config"]["num_heads"], "num_hidden_layers": 3, "sampling_rate": 500}
    assert SOURCES[source].convert(file, **same, leads=list(convert(source, file).config.leads))


def test_a_head_that_its_settings_do_not_name_is_refused():
    file = probe_file("mean")
    file["eval_config"]["attn_pooling"] = True
    with pytest.raises(ValueError, match="attn_pooling is True in its settings and False by its tensors"):
        convert_lejepa_checkpoint(file)


@pytest.mark.parametrize("source", ["weimann", "lejepa-ecg"])
def test_settings_of_another_kind_are_told(files, source):
    file = files[source]
    with pytest.raises(ValueError, match="Expected 'config' of the file to be a dictionary, got NoneType"):
        convert(source, file | {"config": None})
    with pytest.raises(ValueError, match="Expected 'model' of the file to be a dictionary, got list"):
        convert(source, file | {"model": []})
    for name in ("sampling_frequency", "channels", "norm_eps"):
        with pytest.raises(ValueError, match=f"Expected the file to say {name} as it was published .* got None"):
            convert(source, file | {"config": file["config"] | {name: None}})


# --- constants ----------------------------------------------------------------------------------------------------


def test_the_corpus_of_the_file_decides_the_constants(files):
    weimann, lejepa = files["weimann"], files["lejepa-ecg"]
    models = {source: convert(source, files[source]) for source in ("weimann", "lejepa-ecg")}
    extractors = {"weimann": weimann_feature_extractor, "lejepa-ecg": lejepa_feature_extractor}
    for source, file in (("weimann", weimann), ("lejepa-ecg", lejepa)):
        stds = {}
        for corpus in ("mimic-iv-ecg", "ptb-xl"):
            file["config"]["datasets"] = {corpus: 1.0}
            stds[corpus] = extractors[source](models[source], file).lead_stds[0]
        assert stds == {"mimic-iv-ecg": 0.155, "ptb-xl": 0.191}, source
        file["config"]["datasets"] = {"mimic-iv-ecg": 0.7, "ptb-xl": 0.3}
        with pytest.raises(ValueError, match=r"trained on \['mimic-iv-ecg', 'ptb-xl'\], each normalised.*--constants"):
            extractors[source](models[source], file)
        assert extractors[source](models[source], file, dataset="ptb-xl").lead_stds[0] == 0.191
        file["config"]["datasets"] = {"my-hospital": 1.0}
        with pytest.raises(ValueError, match="No constants are known of 'my-hospital'.*--constants"):
            extractors[source](models[source], file)


def test_the_command_takes_the_constants_only_where_they_depend_on_a_corpus(files, tmp_path):
    file = files["weimann"]
    file["config"]["datasets"] = {"mimic-iv-ecg": 0.7, "ptb-xl": 0.3}
    torch.save(file, tmp_path / "chkpt_100.pt")
    with pytest.raises(ValueError, match="--constants"):
        convert_file("weimann", str(tmp_path / "chkpt_100.pt"))
    _, extractor = convert_file("weimann", str(tmp_path / "chkpt_100.pt"), constants="ptb-xl")
    assert extractor.lead_stds[0] == 0.191
    torch.save(files["kim"], tmp_path / "epoch100.pth")
    with pytest.raises(ValueError, match="--constants cannot be set for kim"):
        convert_file("kim", str(tmp_path / "epoch100.pth"), constants="ptb-xl", **GIVEN["kim"])


@pytest.mark.parametrize("values", [np.arange(3) / 10, np.full(12, np.nan), None])
def test_statistics_of_a_probe_that_fit_no_leads_are_refused(values):
    file = probe_file("mean")
    model = convert_lejepa_checkpoint(file)
    file["preprocess"] = {"mean": np.zeros(12)} if values is None else {"mean": np.zeros(12), "std": values}
    with pytest.raises(ValueError, match="'preprocess'"):
        lejepa_feature_extractor(model, file)


def test_half_precision_is_read_as_what_it_is():
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = LeJepaConfig(**sizes, projector_hidden_size=8)
    state = lejepa_state_dict(LeJepaForPreTraining(config))
    halves = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    model = convert_lejepa_checkpoint(halves, num_attention_heads=2)
    assert model.dtype == torch.float32
    assert torch.equal(model.ecg_vit.layers[0].mlp.fc1.weight, halves["encoder.blocks.0.mlp.fc1.weight"].float())


def test_a_whole_weimann_model_of_the_published_size_needs_no_flags():
    config = EcgJepaConfig(
        **{"hidden_size": 192, "num_hidden_layers": 8, "num_attention_heads": 4, "intermediate_size": 8},
        **{"predictor_hidden_size": 96, "predictor_num_hidden_layers": 8, "predictor_num_attention_heads": 4},
        **{"predictor_intermediate_size": 8, "leads": ["I", "II"], "patch_size": 25, "num_registers": 1},
        **{"patching": "all_leads", "attention_pattern": "full", "position_embedding": "sincos_interleaved"},
        **{"position_every_layer": False, "use_bias": False, "layer_norm_bias": False, "mask_type": "segments"},
        **{"evaluated_encoder": "teacher", "initializer": "weimann", "mask_ratio": (0.75, 0.85)},
    )
    state = weimann_state_dict(EcgJepaForPreTraining(config))
    config = convert_weimann_checkpoint(state, leads=["I", "II"]).config
    assert (config.num_attention_heads, config.predictor_num_attention_heads) == (4, 4)
    assert (config.leads, config.sampling_rate) == (("I", "II"), 500)
