"""The protocol `finetuned`, for two steps of a tiny encoder."""

import dataclasses

from ecg_transformers.train.evaluation.run import finetuned_protocol
from ecg_transformers.train.tasks.labelled_splits import load_labelled_splits

from ..conftest import tiny_encoder


def test_training_records_that_cannot_be_read_are_not_counted(tmp_path):
    splits = load_labelled_splits("ptb-xl-sample")
    rows = [dict(row) for row in splits.train.select(range(64)).with_format(None)]
    for row in rows[60:]:
        row["ecg"] = row["ecg"] | {"signal": row["ecg"]["signal"][:2400]}  # 1 s
    splits = dataclasses.replace(splits, train=splits.train.from_list(rows, features=splits.train.features))
    model, extractor = tiny_encoder(extractor={"normalization": "lead"})
    settings = {"max_steps": 2, "eval_strategy": "steps", "eval_steps": 2, "use_cpu": True, "disable_tqdm": True}
    result = finetuned_protocol(model, extractor, splits, tmp_path, settings=settings)
    assert result.details["steps"] == 2
    assert result.evaluate(num_resamples=10)["num_train_records"] == len(result.train_labels) == 60
