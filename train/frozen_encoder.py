"""An encoder that stays as it is while a head is trained on it."""

from torch import nn


def freeze_encoder(encoder: nn.Module) -> None:
    """Freezes the weights of an encoder, and what is random in it.

    A [`~transformers.Trainer`] sets the whole model to training before each step; dropout, stochastic depth and
    masking would then act in an encoder that cannot learn from them, and the head would be trained on features that it
    never sees again. The encoder goes back to evaluation before each of its passes, until a weight of it learns again.
    """
    encoder.requires_grad_(False)
    encoder.register_forward_pre_hook(_to_evaluation)


def _to_evaluation(encoder: nn.Module, args: tuple) -> None:
    if encoder.training and not any(parameter.requires_grad for parameter in encoder.parameters()):
        encoder.eval()
