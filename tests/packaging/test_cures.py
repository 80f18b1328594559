"""Every cure that a message names works where it is read: taken literally, from the source and from real runs."""

import ast
import dataclasses
import functools
import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import pipeline

from ecg_transformers.data import load_ecg, read_recording
from ecg_transformers.data.corpora import CORPORA
from ecg_transformers.modeling import EcgFeatureExtractor, EcgViTForSequenceClassification
from ecg_transformers.modeling.feature_extraction_ecg import CALL_SETTINGS
from ecg_transformers.train.arguments import SslTrainingArguments
from ecg_transformers.train.cli import FREE_FLAGS, build_parser, main
from ecg_transformers.train.finetune import FineTuningArguments
from ecg_transformers.train.settings import MODEL_TYPES, extractor_field_names, model_field_names

from ..train.conftest import tiny_encoder

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("modeling", "data", "train", "hub")
VALUE = r"(?P<value>'[^']*'|\"[^\"]*\"|True|False|\d+(?:\.\d+)?)?"
ARGUMENT = re.compile(  # a shape or a fact, `name={}`, is none, nor is the form `key=value`
    rf"(?<![\w./=<-])(?P<name>[a-z][a-z_]+)=(?!\{{|value){VALUE}(?P<where>[^.,;]* the feature extractor)?"
)
FLAG = re.compile(r"--([a-z_]+)")


def text_of(node):
    """A string of the source; what is put into it is `{}`."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join("{}" if isinstance(part, ast.FormattedValue) else text_of(part) for part in node.values)
    return ""


@functools.cache
def messages():
    """`(file, syntax tree, sentence)` of what is raised, logged or named a cure."""
    found = []
    for package in PACKAGES:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                is_log = isinstance(node, ast.Call) and ast.unparse(node.func).startswith("logger.")
                is_cure = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("cure", "reason")
                if isinstance(node, ast.Raise) or is_log or is_cure:
                    inner = {
                        id(part)
                        for joined in ast.walk(node)
                        if isinstance(joined, ast.JoinedStr)
                        for part in joined.values
                    }
                    strings = [part for part in ast.walk(node) if id(part) not in inner]
                    found += [(path, tree, text_of(part)) for part in strings if text_of(part)]
    return found


def parameters_in(tree):
    """Names of the parameters of the functions, and of the fields of the classes, of a module."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            names |= {argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)}
        if isinstance(node, ast.ClassDef):
            names |= {part.target.id for part in node.body if isinstance(part, ast.AnnAssign)}
    return names


def public_parameters():
    names = {
        name
        for kind in (SslTrainingArguments, FineTuningArguments)
        for name in (field.name for field in dataclasses.fields(kind))
    }
    for corpus in CORPORA.values():
        names |= set(corpus.options)
    for function in (read_recording, load_ecg, EcgFeatureExtractor.__call__, torch.nn.Module.to):
        names |= set(inspect.signature(function).parameters)
    return names.union(*map(model_field_names, MODEL_TYPES)) | {
        "dtype",
        "feature_extractor",
        "processing_class",
        "trust_remote_code",
    }


def test_every_argument_that_a_message_names_exists():
    public, count = public_parameters(), 0
    for path, tree, sentence in messages():
        for match in ARGUMENT.finditer(sentence):
            name = match["name"]
            if path.name == "configuration_ecg_fm.py" or path.name.startswith("convert_"):
                continue  # which speak of the files of others
            count += 1
            assert name in public | parameters_in(tree) | extractor_field_names(), (path, sentence)
    assert count > 40


def test_every_setting_of_the_feature_extractor_that_a_message_names_is_taken():
    """By a call, or where the message says so, by the constructor, with the value that it states."""
    extractor, taken = EcgFeatureExtractor(), set()
    for path, _, sentence in messages():
        for match in ARGUMENT.finditer(sentence):
            name = match["name"]
            if name not in extractor_field_names() or match["value"] is None or path.parent.name == "formats":
                continue
            value = ast.literal_eval(match["value"])
            if match["where"] is None and name in CALL_SETTINGS:
                assert vars(extractor.changed(**{name: value}))[name] == value, sentence
                taken.add(name)
            elif match["where"] is not None:
                assert vars(EcgFeatureExtractor(**{name: value}))[name] == value, sentence
    assert {"missing_leads", "nan_policy", "short_records", "derive_limb_leads", "resample_to_length"} <= taken


def test_every_flag_that_a_message_names_exists():
    commands = next(action for action in build_parser()._actions if action.dest == "command").choices
    known = {flag for command in commands.values() for action in command._actions for flag in action.option_strings}
    free = {field.name for kind in (SslTrainingArguments, FineTuningArguments) for field in dataclasses.fields(kind)}
    assert FREE_FLAGS
    for path, _, sentence in messages():
        for name in FLAG.findall(re.sub(r"hf upload .*", "", sentence)):
            if path.name not in ("space_page.py", "flags.py"):  # CSS; and the sentences of others
                assert f"--{name}" in known or name in free, (path, sentence)


LEADS = ("I", "II", "III")
RATE, SECONDS = 100, 6


def beats(num_leads, seconds=SECONDS):
    phase = np.arange(RATE * seconds) / RATE % 1
    beat = np.exp(-(((phase - 0.3) / 0.03) ** 2)) + 0.05 * np.sin(2 * np.pi * phase)
    return np.outer(1 + np.arange(num_leads), beat)


def with_gap():
    signal = beats(3)
    signal[1, 50:60] = np.nan
    return signal


CASES = {
    "derive_limb_leads": (beats(2), ("I", "II"), {"derive_limb_leads": False}),
    "missing_leads": (beats(2), ("II", "III"), {}),
    "nan_policy": (with_gap(), LEADS, {}),
    "short_records": (beats(3, seconds=4), LEADS, {}),
    "resample_to_length": (beats(3, seconds=8), LEADS, {"resample_to_length": True}),
}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    fields = {"leads": LEADS, "patch_size": 50, "problem_type": "multi_label_classification"}
    tiny_encoder(folder, EcgViTForSequenceClassification, **fields)
    return folder


def extractor_of(case):
    return EcgFeatureExtractor(leads=LEADS, sampling_rate=RATE, num_samples=500, **CASES[case][2])


def cure_in(sentence, name):
    """What the sentence says of an argument, as keyword arguments."""
    match = re.search(rf"{name}={VALUE}", sentence)
    assert match and match["value"], sentence
    return {name: ast.literal_eval(match["value"])}


@pytest.mark.parametrize("case", CASES)
def test_the_cure_works_in_the_call_of_the_feature_extractor(case):
    signal, leads, _ = CASES[case]
    declared = {"sampling_rate": RATE, "leads": leads, "unit": "mV"}
    with pytest.raises(ValueError) as caught:
        extractor_of(case)(signal, **declared)
    inputs = extractor_of(case)(signal, **declared, **cure_in(str(caught.value), case))
    assert inputs["input_values"].shape[1:] == (3, 500)


@pytest.mark.parametrize("case", CASES)
def test_the_cure_works_in_the_call_of_the_pipeline(case, model_folder):
    signal, leads, _ = CASES[case]
    recording = {"array": signal, "sampling_rate": RATE, "leads": leads, "unit": "mV"}
    model = EcgViTForSequenceClassification.from_pretrained(model_folder)
    classify = pipeline("ecg-classification", model=model, feature_extractor=extractor_of(case))
    with pytest.raises(ValueError) as caught:
        classify(recording)
    assert len(classify(recording, **cure_in(str(caught.value), case))) == 2


def write_folder(folder, signal, leads, declared=True):
    """A folder of arrays for `ecgfolder`, two records."""
    folder.mkdir()
    for number in range(2):
        np.save(folder / f"{number}.npy", signal)
    (folder / "records.csv").write_text("path\n0.npy\n1.npy\n")
    facts = {"leads": list(leads), "sampling_rate": RATE, "unit": "mV", "axes": "lead,sample"}
    words = [f"{name}={value if isinstance(value, str | int) else str(value)}" for name, value in facts.items()]
    return [word.replace("'", '"') for word in words] if declared else []


def run_embed(model_folder, corpus, output, options, *more):
    command = ["embed", "--model", str(model_folder), "--dataset", "ecgfolder", "--data_dir", str(corpus)]
    options = ["--options", *options] if options else []
    return main([*command, *options, "--output_dir", str(output), *more])


@pytest.mark.parametrize("case", ["missing_leads", "nan_policy", "short_records", "derive_limb_leads"])
def test_the_cure_works_as_a_flag_of_a_command(case, model_folder, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    extractor_of(case).save_pretrained(model_folder)
    signal, leads, _ = CASES[case]
    options = write_folder(tmp_path / "corpus", signal, leads)
    assert run_embed(model_folder, tmp_path / "corpus", tmp_path / "out", options) == 1
    said = capfd.readouterr().err
    assert f"{case}='" not in said and f"{case}=True" not in said  # no Python
    flag = re.search(rf"--{case} \w+|--feature_extractor {case}=\w+", said)
    assert flag, said
    assert run_embed(model_folder, tmp_path / "corpus", tmp_path / "out", options, *flag[0].split()) == 0


def test_what_files_do_not_say_is_asked_for_as_options_of_the_corpus(model_folder, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    EcgFeatureExtractor(leads=LEADS, sampling_rate=RATE, num_samples=500).save_pretrained(model_folder)
    write_folder(tmp_path / "corpus", beats(3), LEADS)
    assert run_embed(model_folder, tmp_path / "corpus", tmp_path / "out", []) == 1
    asked = re.search(r"pass --options ((?:\w+=\.\.\. ?)+)", capfd.readouterr().err)
    names = [word.split("=")[0] for word in asked[1].split()]
    facts = {"leads": '["I", "II", "III"]', "sampling_rate": "100", "unit": "mV", "axes": "lead,sample"}
    options = [f"{name}={facts[name]}" for name in names]
    assert run_embed(model_folder, tmp_path / "corpus", tmp_path / "out", options) == 0


def test_what_a_file_does_not_say_is_asked_for_as_flags_of_info(tmp_path, capfd):
    np.save(tmp_path / "r.npy", beats(3))
    assert main(["info", str(tmp_path / "r.npy")]) == 1
    asked = re.findall(r"--(\w+) \.\.\.", capfd.readouterr().err)
    facts = {"leads": LEADS, "sampling_rate": ["100"], "unit": ["mV"], "axes": ["lead,sample"]}
    assert set(asked) == set(facts)
    flags = [word for name in asked for word in (f"--{name}", *facts[name])]
    assert main(["info", str(tmp_path / "r.npy"), *flags]) == 0
