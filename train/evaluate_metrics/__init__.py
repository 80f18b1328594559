"""The field's metrics: pure functions (`*_scores.py`), and the same as `evaluate.Metric` modules that load offline.

Each module also loads by its path, `evaluate.load(metric_path("delineation"))`. `evaluate` is imported only when a
module is asked for: it takes seconds, and training needs the functions alone.
"""

from importlib import import_module
from pathlib import Path

METRICS = {
    "ecg_classification": "EcgClassification",
    "calibration": "Calibration",
    "cinc2021_challenge": "Cinc2021Challenge",
    "delineation": "Delineation",
}

__all__ = ["METRICS", "ecg_metric", "metric_path"]


def ecg_metric(name: str, keep_in_memory: bool = True, **options):
    """A metric as an `evaluate.Metric`, made from its class: no file look-up, no network.

    Args:
        name (`str`): One of `METRICS`.
        keep_in_memory (`bool`, *optional*, defaults to `True`):
            Whether what is added stays in memory. `False` writes it to the cache of `evaluate`, which several
            processes (`num_process`) need.
        options: Passed to `evaluate.Metric`, e.g. `experiment_id`.
    """
    _check(name)
    module = import_module(f".{name}", __name__)
    return getattr(module, METRICS[name])(keep_in_memory=keep_in_memory, **options)


def metric_path(name: str) -> str:
    """The file of a metric, for `evaluate.load`."""
    _check(name)
    return str(Path(__file__).parent / f"{name}.py")


def _check(name: str):
    if name not in METRICS:
        raise ValueError(f"Expected a metric among {list(METRICS)}, got {name!r}.")
