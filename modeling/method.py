"""Words for a method: its configuration class names it, says how it learns, when to use it, and who published it."""

from dataclasses import dataclass

from transformers import PreTrainedConfig


@dataclass(frozen=True)
class Method:
    """Origin of the weights of a model, for cards and pages: the attribute `method` of a configuration class.

    Args:
        name (`str`): Name of the method.
        description (`str`): A sentence or two that say how it learns.
        use_when (`str`, *optional*): A sentence that begins with "Use it when".
        paper (`str`, *optional*): Authors, title and year.
        url (`str`, *optional*): Address of the paper.
    """

    name: str
    description: str
    use_when: str | None = None
    paper: str | None = None
    url: str | None = None


def method_of(config: PreTrainedConfig) -> Method:
    """Reads the method from the class of a configuration; a class that states none has only its `model_type`."""
    if "method" in vars(type(config)):
        return config.method
    return Method(name=config.model_type, description="A method from outside of ecg-transformers.")
