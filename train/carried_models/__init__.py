"""Weights that come with the package, as `save_pretrained` wrote them (docs/carried_models.md)."""

from pathlib import Path

CARRIED_MODELS = ("ecg-small", "ecg-small-superdiagnostic", "ecg-small-delineation")


def carried_model(name: str) -> str:
    """The folder of a model that the package carries, for `from_pretrained`.

    Args:
        name (`str`): `"ecg-small"`, an encoder, `"ecg-small-superdiagnostic"`, a classifier, or
            `"ecg-small-delineation"`, which marks P, QRS and T. Research software, not a medical device.

    Raises:
        ValueError: for another name.

    Example:

    ```python
    >>> from transformers import AutoModel
    >>> from ecg_transformers import carried_model, register

    >>> register()
    >>> AutoModel.from_pretrained(carried_model("ecg-small")).config.pooled_size
    448

    ```
    """
    if name not in CARRIED_MODELS:
        raise ValueError(f"Expected one of the carried models {list(CARRIED_MODELS)}, got {name!r}.")
    return str(Path(__file__).parent / name)
