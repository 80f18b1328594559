"""`pipeline("ecg-classification")` and `pipeline("ecg-feature-extraction")`: recordings in, scores or features out.

A recording is anything that says what it holds; nothing is guessed. Of a recording longer than the model's input all
windows count: their logits (or features) are averaged. One that is too short is an error, unless the model's feature
extractor pads. The pipelines are registered when `ecg_transformers.modeling` is imported, and ship with every saved
model: `pipeline("ecg-classification", model=ID, trust_remote_code=True)` needs `transformers` alone.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, MappingView, Set, Sized
from itertools import islice
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset
from transformers import Pipeline

from .calibration import calibration_for, calibration_of, names_classifier
from .feature_extraction_ecg import CALL_SETTINGS, average_windows
from .recording_input import DeclaredRecording, cut, read_recordings

MULTI_LABEL, SINGLE_LABEL, REGRESSION = "multi_label_classification", "single_label_classification", "regression"
FUNCTIONS = {MULTI_LABEL: "sigmoid", SINGLE_LABEL: "softmax", REGRESSION: "none"}
ARRAY_KEYS = ("array", "sampling_rate", "leads", "unit", "gain", "offset", "electrode_placement")
AN_ARRAY = "{'array': ..., 'sampling_rate': Hz, 'leads': [...], 'unit': 'mV'}"
FILE_KEYS = ("sampling_rate", "leads", "unit", "axes", "step", "rename_leads", "dataset", "skip_lines")
WINDOWS_PER_PASS = 64
"""A day of ECG is thousands of windows, which would not fit into memory at once."""

Windows = dict[str, Any]  # what the model reads of some recordings, and `num_windows` of each


class EcgPipeline(Pipeline):
    """Base of both pipelines: reading, windows, batches. A subclass says what the model gives for a window."""

    _load_feature_extractor = True
    _load_tokenizer = False
    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.feature_extractor is None:
            raise ValueError(
                f"{type(self).__name__} needs the feature extractor that belongs to the model: pass feature_extractor="
                "EcgFeatureExtractor.from_pretrained(...)."
            )

    def __call__(self, inputs: Any, **kwargs) -> Any:
        r"""
        Args:
            inputs:
                A recording: `{"array": (num_leads, num_samples), "sampling_rate": Hz, "leads": [...], "unit": "mV"}`
                (and `gain`, `offset`, `electrode_placement`, as in [`EcgFeatureExtractor`]); a row of `load_ecg`, or
                its column `ecg`; an `EcgRecord`; or, where `ecg-transformers` is installed, the path of a file. Or
                several: a list, a `datasets.Dataset`, a `KeyDataset`, a generator.
            batch_size (`int`, *optional*, defaults to 1), num_workers (`int`, *optional*, defaults to 0):
                Recordings that go through the model together; processes that read them.
            missing_leads, derive_limb_leads, nan_policy, short_records, long_records, resample_to_length (*optional*):
                Settings of the feature extractor for this call: which recordings are taken (`missing_leads="mask"`),
                and which windows of a longer one (`long_records="center"`). By default those by which the model was
                evaluated and calibrated.
            windows (`bool`, *optional*, defaults to `False`):
                Whether each window of a recording is told apart, all of them unless `long_records` says otherwise: a
                list of `{"start_seconds": float, ...}` with `"scores"` or `"features"`. Quality and calibration stay
                those of the whole recording.
            sampling_rate, leads, unit, gain, offset, electrode_placement (*optional*):
                Statement on bare arrays, as beside an array; and `sampling_rate`, `leads`, `unit`, `axes`, `step`,
                `rename_leads`, `dataset`, `skip_lines`: what a file does not say, as in `read_recording`.

        Returns:
            The output for a recording; of a list a list; of a dataset or generator an iterator, which reads as it
            goes.

        Raises:
            ValueError: for a recording that does not say what it holds, is too short, or lacks what the model reads;
                in a list, its number (from 0) is named.
        """
        inputs = rows_of_columns(inputs)
        if isinstance(inputs, list | tuple | Set | MappingView):
            inputs = list(inputs)
            if not inputs:
                return []
        elif not is_recording(inputs) and not isinstance(inputs, Dataset) and isinstance(inputs, Iterable):
            inputs = _Rows(inputs) if isinstance(inputs, Sized) else (item for item in inputs)
        return super().__call__(inputs, **kwargs)

    def preprocess(
        self,
        input_: Any,
        number: int | None = None,
        settings: Mapping[str, Any] | None = None,
        declared: Mapping[str, Any] | None = None,
    ) -> Windows:
        """The windows of one recording, and what the checks found; `number` is its place among several."""
        name = "The recording" if number is None else f"Item {number}"
        if isinstance(input_, Mapping) and input_.get("record_id") is not None:
            name += f" ({input_['record_id']})"
        elif isinstance(input_, str | os.PathLike):
            name += f" ({os.fspath(input_)})"
        try:
            return self._windows_of([input_], settings, declared)
        except (OSError, ValueError) as error:
            reason = str(error)  # of a batch of one, which the feature extractor calls "Record 0"
            reason = reason.replace("Record 0", name) if "Record 0" in reason else f"{name}: {reason}"
            raise ValueError(cut(reason)) from error

    def preprocess_batch(
        self,
        items: list[Any],
        numbers: Iterable[int],
        settings: Mapping[str, Any] | None = None,
        declared: Mapping[str, Any] | None = None,
    ) -> Windows | ValueError:
        """The windows of several recordings, which the feature extractor takes together; or why there are none."""
        try:
            return self._windows_of(items, settings, declared)
        except (OSError, ValueError):  # the one that is wrong, by its number
            processed = [
                _or_error(self.preprocess, item, number, {"settings": settings, "declared": declared})
                for item, number in zip(items, numbers, strict=True)
            ]
            return _concatenate(processed)

    def _windows_of(
        self, items: list[Any], settings: Mapping[str, Any] | None, declared: Mapping[str, Any] | None
    ) -> Windows:
        extractor = self.feature_extractor.changed(**settings or {})
        recordings = []
        for item in items:
            recording, stated = read_input(item, declared or {})
            found = read_recordings(recording, **stated)
            if len(found) > 1:
                raise ValueError("An array of several recordings. Pass a list with one dictionary for each.")
            recordings += found
        features, checks = extractor(recordings), extractor.check(recordings)
        windows = {key: features[key] for key in extractor.model_input_names if key in features}
        record_of = features.get("window_record", torch.arange(len(recordings)))
        return windows | {"num_windows": record_of.bincount().tolist(), "checks": checks}

    def _forward(self, input_tensors: Windows, **forward_params) -> list[dict[str, Any]]:
        """Output of the model for the windows of each recording, `(num_windows, ...)`, and its checks."""
        counts = input_tensors["num_windows"]
        windows = {key: value for key, value in input_tensors.items() if key not in ("num_windows", "checks")}
        outputs = []
        for start in range(0, sum(counts), WINDOWS_PER_PASS):
            part = {key: value[start : start + WINDOWS_PER_PASS] for key, value in windows.items()}
            outputs.append(self.window_outputs(part, **forward_params))
        found = torch.cat(outputs).float().split(counts)
        return [{"values": of, "checks": checks} for of, checks in zip(found, input_tensors["checks"], strict=True)]

    def _ensure_tensor_on_device(self, inputs: Any, device: torch.device) -> Any:
        """Moves tensors alone: the base class would walk through the checks, lists of plain values."""
        if isinstance(inputs, list):
            return [self._ensure_tensor_on_device(each, device) for each in inputs]
        return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in inputs.items()}

    def run_single(self, inputs, preprocess_params, forward_params, postprocess_params) -> Any:
        outputs = self.forward(self.preprocess(inputs, **preprocess_params), **forward_params)
        return self.postprocess(outputs[0], **postprocess_params)

    def get_iterator(
        self, inputs, num_workers, batch_size, preprocess_params, forward_params, postprocess_params
    ) -> Iterator:
        if isinstance(inputs, Sized):
            batches = _BatchesOfItems(inputs, batch_size, self.preprocess_batch, preprocess_params)
        else:
            batches = _BatchesOfStream(inputs, batch_size, self.preprocess_batch, preprocess_params)
            num_workers = min(num_workers, 1)
        for batch in DataLoader(batches, batch_size=None, num_workers=num_workers, collate_fn=_unchanged):
            if isinstance(batch, ValueError):
                raise batch
            for output in self.forward(batch, **forward_params):
                yield self.postprocess(output, **postprocess_params)

    def _sanitize_parameters(self, windows: bool | None = None, **others) -> tuple[dict, dict, dict]:
        if windows not in (None, True, False):
            raise ValueError(f"Expected windows to be True or False, got {windows!r}.")
        if windows and others.get("long_records") is None:
            others["long_records"] = "all"
        given = {name: value for name, value in others.items() if value is not None}
        settings = {name: given.pop(name) for name in CALL_SETTINGS if name in given}
        declared = {name: given.pop(name) for name in (*ARRAY_KEYS[1:], *FILE_KEYS) if name in given}
        if given:
            raise ValueError(
                f"{type(self).__name__} has no setting {sorted(given)}. A call takes {list(CALL_SETTINGS)} of the "
                "feature extractor; another one is given as pipeline(..., feature_extractor=...)."
            )
        if settings and self.feature_extractor is not None:
            self.feature_extractor.changed(**settings)  # a wrong value is told before anything is read
        preprocess_params = {"settings": settings, "declared": declared}
        postprocess_params = {} if windows is None else {"windows": windows}
        return {name: value for name, value in preprocess_params.items() if value}, {}, postprocess_params


class EcgClassificationPipeline(EcgPipeline):
    r"""
    Scores of the classes of a recording, by `pipeline("ecg-classification", model=...)`.

    **Calibration.** Where `config.calibration` holds a temperature for the model's labels (`finetune` stores that of
    the validation split), the scores are those after temperature scaling, and with several labels a record each has
    `above_threshold`, by the threshold that was best on the validation split (`None` for a label without one).
    Otherwise the scores are what the sigmoid or softmax makes of the logits: they rank, but are no probabilities to
    be taken at their word. So they are where the recording is not what the calibration was measured on (leads that are
    missing or flat, another electrode placement, other windows): then `above_threshold` is `None`, and `quality` says
    why.

    **Quality.** The recording is checked as it was declared, before filter and normalisation. Where something was
    found, each row has `quality`, a list of `{"name": str, "leads": list, "sentence": str}`; of a clean recording it
    has none. Of a recording without a signal, or in a wrong unit, no label is above its threshold: `above_threshold`
    is `None`.

    Call arguments beside those of [`EcgPipeline`]:
        top_k (`int`, *optional*): How many labels; all of them by default. Not for a regression.
        function_to_apply (`str`, *optional*):
            `"sigmoid"`, `"softmax"` or `"none"` instead of what `config.problem_type` says; then uncalibrated.

    Returns for each recording a list of `{"label": str, "score": float}`, the most probable first. Of a regression
    the values of the targets, in their order, in the unit that their names state.

    Example:

    ```python
    >>> from transformers import pipeline
    >>> import ecg_transformers.modeling

    >>> classify = pipeline("ecg-classification", model="classifier")
    >>> classify({"array": signal, "sampling_rate": 500, "leads": ["I", "II"], "unit": "mV"}, top_k=1)
    [{'label': 'NORM', 'score': 0.91, 'above_threshold': True}]
    ```
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        names = self.model.config.architectures or [type(self.model).__name__]
        if not any(map(names_classifier, names)):
            raise ValueError(
                f"{self.model.name_or_path or 'The model'} was saved as {', '.join(names)} and has no trained "
                "classifier: its scores would be random. Fine-tune it first (ecg-transformers finetune), or use "
                'pipeline("ecg-feature-extraction").'
            )

    def _sanitize_parameters(
        self, top_k: int | None = None, function_to_apply: str | None = None, **others
    ) -> tuple[dict, dict, dict]:
        preprocess_params, forward_params, postprocess_params = super()._sanitize_parameters(**others)
        is_regression = self.model.config.problem_type == REGRESSION
        is_count = isinstance(top_k, Integral) and not isinstance(top_k, bool) and top_k >= 1
        if top_k is not None and (is_regression or not is_count):
            raise ValueError(
                f"Expected top_k to be a whole number of at least 1, and of a classifier, got {top_k!r}: leave it out "
                "for all."
            )
        if function_to_apply is not None and function_to_apply not in FUNCTIONS.values():
            raise ValueError(f"Expected function_to_apply of {sorted(FUNCTIONS.values())}, got {function_to_apply!r}.")
        given = {"top_k": top_k, "function_to_apply": function_to_apply}
        postprocess_params |= {key: value for key, value in given.items() if value is not None}
        return preprocess_params, forward_params, postprocess_params

    def window_outputs(self, windows: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.model(**windows).logits

    def postprocess(
        self,
        model_outputs: dict[str, Any],
        top_k: int | None = None,
        function_to_apply: str | None = None,
        windows: bool = False,
    ) -> list[dict[str, Any]]:
        checks, values = model_outputs["checks"], model_outputs["values"]
        if not windows:
            return self._scores(values, checks, top_k, function_to_apply)
        return [
            {"start_seconds": start, "scores": self._scores(window[None], checks, top_k, function_to_apply)}
            for start, window in zip(checks["window_seconds"], values, strict=True)
        ]

    def _scores(
        self, values: torch.Tensor, checks: dict[str, Any], top_k: int | None, function_to_apply: str | None
    ) -> list[dict[str, Any]]:
        """Rows of the mean logits of some windows, `(num_windows, num_labels)`."""
        config = self.model.config
        usual = FUNCTIONS.get(config.problem_type)
        function = function_to_apply or usual
        if function is None:
            raise ValueError(
                "The model's configuration does not say what its labels are. Set config.problem_type to "
                f"{MULTI_LABEL!r}, {SINGLE_LABEL!r} or {REGRESSION!r}, or pass function_to_apply."
            )
        id2label = config.id2label
        labels = [id2label[number] for number in range(len(id2label))]
        calibration, reason = {}, None
        if function == usual != "none":
            calibration, reason = calibration_for(config, self.feature_extractor, checks)
            calibration = calibration or {}
        logits = average_windows(values, torch.zeros(len(values), dtype=torch.long))[0].double()
        logits = logits / calibration.get("temperature", 1.0)
        scores = logits.sigmoid() if function == "sigmoid" else logits.softmax(0) if function == "softmax" else logits
        found = [{"label": label, "score": score} for label, score in zip(labels, scores.tolist(), strict=True)]
        is_off = checks["is_meaningless"] or (reason is not None and bool(calibration_of(config).get("thresholds")))
        thresholds = calibration.get("thresholds")
        if function != "none" and (thresholds or is_off):
            for row in found:
                threshold = None if is_off else thresholds.get(row["label"])
                row["above_threshold"] = None if threshold is None else row["score"] >= threshold
        quality = list(checks["findings"])
        if reason is not None:
            quality.append({"name": "not_calibrated", "leads": [], "sentence": reason})
        if quality:
            for row in found:
                row["quality"] = quality
        if config.problem_type == REGRESSION:
            return found
        return sorted(found, key=lambda row: -row["score"])[:top_k]


class EcgFeatureExtractionPipeline(EcgPipeline):
    r"""
    Features of a recording, by `pipeline("ecg-feature-extraction", model=...)`.

    Call arguments beside those of [`EcgPipeline`]:
        return_tokens (`bool`, *optional*, defaults to `False`): The hidden state of every token instead.

    Returns for each recording a float32 array: `pooler_output` `(hidden_size,)`, averaged over its windows; or with
    `return_tokens` `last_hidden_state` `(num_windows, num_registers + tokens, hidden_size)`.
    """

    def _sanitize_parameters(self, return_tokens: bool | None = None, **others) -> tuple[dict, dict, dict]:
        preprocess_params, forward_params, postprocess_params = super()._sanitize_parameters(**others)
        if return_tokens not in (None, True, False):
            raise ValueError(f"Expected return_tokens to be True or False, got {return_tokens!r}.")
        if return_tokens is not None:
            forward_params = {"return_tokens": return_tokens}
            postprocess_params = postprocess_params | forward_params
        return preprocess_params, forward_params, postprocess_params

    def window_outputs(self, windows: dict[str, torch.Tensor], return_tokens: bool = False) -> torch.Tensor:
        outputs = self.model(**windows)
        return outputs.last_hidden_state if return_tokens else outputs.pooler_output

    def postprocess(
        self, model_outputs: dict[str, Any], return_tokens: bool = False, windows: bool = False
    ) -> np.ndarray | list[dict[str, Any]]:
        values = model_outputs["values"]
        if windows:
            starts = model_outputs["checks"]["window_seconds"]
            return [{"start_seconds": s, "features": of.numpy()} for s, of in zip(starts, values, strict=True)]
        return (values if return_tokens else values.mean(dim=0)).numpy()


class _Rows(Dataset):
    """Anything with a length and places, such as a `datasets.Dataset`, as what the base class streams."""

    def __init__(self, rows: Any):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Any:
        return self.rows[number]


class _BatchesOfItems(Dataset):
    """Batches of anything with a length and places, processed."""

    def __init__(self, items: Any, batch_size: int, process: Callable[..., Windows | ValueError], params: dict):
        self.items, self.batch_size, self.process, self.params = items, batch_size, process, params

    def __len__(self) -> int:
        return -(-len(self.items) // self.batch_size)

    def __getitem__(self, number: int) -> Windows | ValueError:
        start = number * self.batch_size
        numbers = range(start, min(start + self.batch_size, len(self.items)))
        return self.process([self.items[item] for item in numbers], numbers, **self.params)


class _BatchesOfStream(IterableDataset):
    """Batches of what comes one after the other, processed."""

    def __init__(self, items: Any, batch_size: int, process: Callable[..., Windows | ValueError], params: dict):
        self.items, self.batch_size, self.process, self.params = items, batch_size, process, params

    def __iter__(self) -> Iterator[Windows | ValueError]:
        items, start = iter(self.items), 0
        while batch := list(islice(items, self.batch_size)):
            yield self.process(batch, range(start, start + len(batch)), **self.params)
            start += len(batch)


def _or_error(process: Callable[..., Windows], item: Any, number: int, params: dict) -> Windows | ValueError:
    """The windows, or the sentence why there are none: a worker that raises it would put its trace-back before it."""
    try:
        return process(item, number=number, **params)
    except ValueError as error:
        return error


def _unchanged(batch: Windows | ValueError) -> Windows | ValueError:
    """A batch as it is, where the loader would make numbers of numpy to tensors."""
    return batch


def _concatenate(items: list[Windows | ValueError]) -> Windows | ValueError:
    for item in items:
        if isinstance(item, ValueError):
            return item
    lists = {key: [value for item in items for value in item[key]] for key in ("num_windows", "checks")}
    return {key: torch.cat([item[key] for item in items]) for key in items[0] if key not in lists} | lists


def rows_of_columns(inputs: Any) -> Any:
    """The rows of a slice of a dataset, which has a list for each column; anything else as it is."""
    if isinstance(inputs, Mapping) and isinstance(inputs.get("ecg"), list):
        return [dict(zip(inputs, values, strict=True)) for values in zip(*inputs.values(), strict=True)]
    return inputs


def is_recording(inputs: Any) -> bool:
    """Returns `True` for one recording, `False` for several."""
    return isinstance(inputs, Mapping | str | bytes | os.PathLike | np.ndarray | torch.Tensor | DeclaredRecording)


def read_input(item: Any, declared: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Reads what the feature extractor takes, and what has to be declared with it."""
    if isinstance(item, str | os.PathLike):
        return _read_file(os.fspath(item), declared), {}
    if (isinstance(item, Mapping) and {"ecg", "signal"} & set(item)) or isinstance(item, DeclaredRecording):
        return item, dict(declared)
    if declared and isinstance(item, np.ndarray | torch.Tensor):
        item = {"array": item}
    if not isinstance(item, Mapping) or "array" not in item:
        came = f"the keys {sorted(map(str, item))}" if isinstance(item, Mapping) else type(item).__name__
        raise ValueError(f"Expected {AN_ARRAY}, a row of load_ecg, an EcgRecord or the path of a file, got {came}.")
    unknown = sorted(str(key) for key in set(item) - set(ARRAY_KEYS) - {"record_id"})
    if unknown:
        raise ValueError(f"Expected the keys {list(ARRAY_KEYS)} beside an array, got {unknown} too.")
    twice = sorted(set(declared) & {key for key in item if item[key] is not None})
    if twice:
        raise ValueError(f"{twice} are declared beside the array and in the call. Leave them out of the call.")
    declared = {key: item[key] for key in ARRAY_KEYS[1:] if key in item} | dict(declared)
    only_of_files = sorted(set(declared) - set(ARRAY_KEYS))
    if only_of_files:
        raise ValueError(f"{only_of_files} are for files, this is an array. Leave them out of the call.")
    return item["array"], declared


def _read_file(path: str, declared: Mapping[str, Any]) -> Any:
    try:
        from ecg_transformers.data import read_recording
    except ModuleNotFoundError as error:
        raise ValueError(
            "Reading files needs the package ecg-transformers, installed from its source. Or read "
            f"{path} yourself and pass {AN_ARRAY}."
        ) from error
    only_of_arrays = sorted(set(declared) - set(FILE_KEYS))
    if only_of_arrays:
        raise ValueError(f"{only_of_arrays} are for arrays, this is a file. Leave them out of the call.")
    return read_recording(path, **declared)
