"""Teacher and student: which of two encoders learns, how the other follows, and a teacher that follows nobody.

`teacher="ema"`: the teacher is an exponential moving average of the student. `teacher="random"`: it has initial
weights of its own and keeps them, a control: a method that owes its features to a teacher that learns must beat it.
"""

import torch
from torch import nn

TEACHERS = ("ema", "random")


class TeacherStudentMixin:
    """Base of a [`PreTrainedModel`] with two encoders, named by its properties `trained_encoder` and `target_encoder`.

    `ecg_vit` is the one that is evaluated. The class calls `init_teacher()` when both are there, before `post_init`.
    """

    _has_followed = False
    _last_seen_weight = None
    _steps_without_teacher = 0

    @property
    def trained_encoder(self) -> nn.Module:
        """The student."""
        raise NotImplementedError

    @property
    def target_encoder(self) -> nn.Module:
        """The teacher."""
        raise NotImplementedError

    def init_teacher(self):
        self.has_teacher = self.config.teacher == "ema"
        self.target_encoder.requires_grad_(False)

    def init_weights(self):
        super().init_weights()
        if self.has_teacher:
            self.reset_teacher()

    def _initialize_missing_keys(self, *args, **kwargs):
        # A checkpoint of one encoder is that of `ecg_vit`: teacher = student, and neither of them random.
        other = self.target_encoder if self.trained_encoder is self.ecg_vit else self.trained_encoder
        missing = [name for name, p in other.named_parameters() if not getattr(p, "_is_hf_initialized", False)]
        super()._initialize_missing_keys(*args, **kwargs)
        if self.has_teacher:
            with torch.no_grad():
                for name in missing:
                    other.get_parameter(name).copy_(self.ecg_vit.get_parameter(name))
                if missing:
                    _copy_buffers(self.ecg_vit, other)
        self.target_encoder.requires_grad_(False)  # loading has replaced the parameters by trainable ones

    @torch.no_grad()
    def reset_teacher(self):
        """Makes the teacher a copy of the student."""
        if self.device.type != "meta":
            self.update_teacher(momentum=0.0)
            _copy_buffers(self.trained_encoder, self.target_encoder)

    @torch.no_grad()
    def update_teacher(self, momentum: float):
        """teacher <- momentum * teacher + (1 - momentum) * student, for every parameter, after each optimiser step.

        Raises:
            ValueError: for a random teacher, which stays as it is.
        """
        if not self.has_teacher:
            raise ValueError("teacher='random' never moves. Set teacher='ema' for one that follows the student.")
        teacher, student = list(self.target_encoder.parameters()), list(self.trained_encoder.parameters())
        torch._foreach_lerp_(teacher, student, 1.0 - momentum)
        self._last_seen_weight = None
        self._steps_without_teacher = 0
        self._has_followed = momentum > 0  # at 0 it was made a copy, which is how it begins

    def _check_teacher_follows(self):
        """An optimiser step shows in the weights of the student's last norm; the teacher has to follow each. A GPU is
        asked until the teacher has followed once: after that no step waits."""
        if not self.training or not self.has_teacher or torch.compiler.is_compiling():
            return
        norm = [module for module in self.trained_encoder.modules() if isinstance(module, nn.LayerNorm)][-1]
        weight = norm.weight.detach()
        if self._has_followed and weight.device.type != "cpu":
            return
        if self._last_seen_weight is not None and not torch.equal(weight, self._last_seen_weight):
            self._steps_without_teacher += 1
        self._last_seen_weight = weight.clone()
        if self._steps_without_teacher >= 2:
            raise ValueError(
                "The student has taken 2 optimiser steps and the teacher none: training like this learns nothing. "
                "Train with EcgSslTrainer, or call `model.update_teacher(momentum)` after every optimiser step."
            )


def _copy_buffers(source: nn.Module, target: nn.Module):
    """Copies what is no parameter but belongs to the function: steps of state spaces, statistics of batch norms."""
    for name, buffer in source.named_buffers():
        target.get_buffer(name).copy_(buffer)
