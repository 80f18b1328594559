"""Training, probes and the command line. Nothing heavy is imported before it is asked for, so that help is quick."""

_EXPORTS = {"EcgSslTrainer": "trainer", "SslTrainingArguments": "arguments"}

__all__ = ["EcgSslTrainer", "SslTrainingArguments"]


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
