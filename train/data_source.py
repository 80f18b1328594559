"""Where the recordings of a run come from, for cards and pages."""

from .report import DataSource


def data_source(dataset, name: str, licence: str | None = None) -> DataSource:
    """Where the recordings of a dataset of [`load_ecg`] come from, as its corpus declares it, or with this licence."""
    info = dataset.info
    return DataSource(
        name=info.description or name,
        licence=licence or info.license or None,
        citation=info.citation or "No citation is known.",
        url=info.homepage or None,
        dataset_id=name,
    )


def declared_source(dataset) -> DataSource:
    """The same where nobody names the corpus; a dataset that declares nothing has no licence."""
    import datasets

    if isinstance(dataset, (datasets.Dataset, datasets.IterableDataset)):
        source = data_source(dataset, dataset.info.dataset_name or "own recordings")
        return source if dataset.info.dataset_name else DataSource(source.name, source.licence, source.citation)
    return DataSource("Own recordings", None, "No citation is known.")
