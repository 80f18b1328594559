"""The tests of `transformers` itself on our classes: `pytest -m slow tests/conformance`.

They come from the source distribution of the installed version, which has to be fetched before these modules can be
imported. A run without slow tests therefore does not even collect them.
"""


def pytest_ignore_collect(collection_path, config):
    return True if "not slow" in config.option.markexpr else None
