"""The common model tests of `transformers` on every family. Slow by being many: 0.1 s each."""

import unittest
from unittest.mock import patch

import pytest
import torch

from ecg_transformers import modeling
from ecg_transformers.modeling.conv_stem import ChannelsLastConv1d

from .model_tests import EcgModelTests, skipped

pytestmark = pytest.mark.slow

PREDICTOR = {
    "predictor_hidden_size": 16,
    "predictor_num_hidden_layers": 1,
    "predictor_num_attention_heads": 2,
    "predictor_intermediate_size": 32,
}
DECODER = {
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
}
TEACHER_COMES_FIRST = (
    "The layer that this test watches, the first, is the teacher's, which runs without gradient and checkpoints "
    "nothing; where the student comes first (EcgJepaForPreTrainingTest) it runs"
)
STATES_OF_BLOCKS = "Its hidden states are those of its blocks, with the lengths and widths of their stages"
PROJECTOR = {"projector_hidden_size": 16, "projection_size": 8, "num_slices": 8}


def encoder_and_heads(family: str) -> tuple[type, ...]:
    endings = ("Model", "ForSequenceClassification", "ForTokenClassification", "ForEmbedding")
    return tuple(getattr(modeling, f"{family}{ending}") for ending in endings)


class EcgViTModelTest(EcgModelTests, unittest.TestCase):
    config_class = modeling.EcgViTConfig
    all_model_classes = encoder_and_heads("EcgViT")


class EcgViTOfAllLeadsModelTest(EcgModelTests, unittest.TestCase):
    """Every option that brings parameters of its own."""

    config_class = modeling.EcgViTConfig
    config_fields = {
        "patching": "all_leads",
        "attention_pattern": "full",
        "position_embedding": "learned",
        "patch_norm": True,
        "num_registers": 1,
        "qkv_bias": True,
        "layer_scale_init_value": 0.1,
        "classifier_pooling": "attentive",
    }
    all_model_classes = encoder_and_heads("EcgViT")


class EcgJepaModelTest(EcgModelTests, unittest.TestCase):
    config_class = modeling.EcgJepaConfig
    config_fields = PREDICTOR | {"mask_type": "random", "mask_ratio": (0.3, 0.5)}
    all_model_classes = encoder_and_heads("EcgJepa")


class EcgJepaForPreTrainingTest(EcgModelTests, unittest.TestCase):
    config_class = modeling.EcgJepaConfig
    config_fields = EcgJepaModelTest.config_fields
    all_model_classes = (modeling.EcgJepaForPreTraining,)
    hides_patches = drops_hidden_tokens = True
    # The teacher is frozen. Older releases unfreeze it and then miss its gradient; tests/modeling looks for both.
    test_all_params_have_gradient = False


class EcgJepaOfTheTeacherForPreTrainingTest(EcgJepaForPreTrainingTest):
    """`ecg_vit` is the teacher, as Weimann and Conrad evaluate it."""

    config_fields = EcgJepaModelTest.config_fields | {
        "evaluated_encoder": "teacher",
        "initializer": "weimann",
        "patching": "all_leads",
        "attention_pattern": "full",
        "position_embedding": "sincos_interleaved",
        "num_registers": 1,
    }

    test_training_gradient_checkpointing = skipped(TEACHER_COMES_FIRST)
    test_training_gradient_checkpointing_use_reentrant_false = skipped(TEACHER_COMES_FIRST)
    test_training_gradient_checkpointing_use_reentrant_true = skipped(TEACHER_COMES_FIRST)


STEM = {"stem_widths": (8, 16), "stem_depths": (1, 2), "stem_strides": (5, 1)}


class EcgViTWithAStemModelTest(EcgModelTests, unittest.TestCase):
    config_class = modeling.EcgViTConfig
    config_fields = STEM | {"stem": "conv", "pooling": "statistics", "pooled_stages": (0,)}
    all_model_classes = encoder_and_heads("EcgViT")

    def test_model_get_set_embeddings(self):
        """What is got is the first convolution."""
        for model_class in self.all_model_classes:
            model = model_class(self.model_tester.get_config())
            new = ChannelsLastConv1d(1, 8, 9, 5)
            model.set_input_embeddings(new)
            self.assertIs(model.get_input_embeddings(), new)
            self.assertIsNone(model.get_output_embeddings())


class EcgConvModelTest(EcgViTWithAStemModelTest):
    config_class = modeling.EcgConvConfig
    config_fields = STEM | {"num_hidden_layers": 0}
    config_test_fields = {"stem_widths": [64, 32]}
    all_model_classes = encoder_and_heads("EcgConv")
    has_attentions = False

    test_hidden_states_output = skipped(STATES_OF_BLOCKS)
    test_can_capture_specific_layers_hidden_states = skipped(STATES_OF_BLOCKS)


class KernelResponseModelTest(EcgConvModelTest):
    config_class = modeling.KernelResponseConfig
    config_fields = EcgConvModelTest.config_fields | {"num_kernels": 6, "target_size": 2, "view_samples": 20}
    all_model_classes = encoder_and_heads("KernelResponse")


class KernelResponseForPreTrainingTest(KernelResponseModelTest):
    all_model_classes = (modeling.KernelResponseForPreTraining,)

    test_batching_equivalence = skipped(
        "Before its targets are fitted, the batch itself is what they are measured with"
    )


class HidingTests(EcgModelTests):
    hides_patches = True


class MaskedAutoencoderTests(EcgModelTests):
    hides_patches = drops_hidden_tokens = True

    def test_model_outputs_equivalence(self):
        """Which patches are hidden is an output of bools; the common test subtracts outputs and would raise."""
        for model_class in self.all_model_classes:
            config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
            model, inputs = model_class(config).eval(), self._prepare_for_class(inputs, model_class)
            for wanted in (
                {},
                {"output_hidden_states": True},
                {"output_hidden_states": True, "output_attentions": True},
            ):
                with torch.no_grad():
                    outputs = model(**inputs, **wanted)
                    torch.testing.assert_close(model(**inputs, **wanted, return_dict=False), outputs.to_tuple())
                self.assertTrue(set(outputs) >= {"loss", *(name.removeprefix("output_") for name in wanted)})


class CodebookTests(EcgModelTests):
    def test_init_weights_can_init_buffers(self):
        """The codebook is a buffer that is drawn at random; without spread two draws compare."""
        with patch("ecg_transformers.modeling.vector_quantizer.PUBLISHED_INIT_STD", 0.0):
            super().test_init_weights_can_init_buffers()


class CodebookHeadTests(CodebookTests):
    # Heads that read hidden states freeze the projection to latents; see the teacher above.
    test_all_params_have_gradient = False


STATE_SPACES = {
    "num_stem_layers": 2,
    "state_size": 4,
    "dropout": 0.0,
    "memory_seconds": (1, 1),
}  # no spread to draw from


class StateSpaceTests(EcgModelTests):
    """Tokens are no patches that could be dropped, and there is no attention."""

    has_attentions = False


class OfAFrozenTeacherTests(StateSpaceTests):
    test_all_params_have_gradient = False  # see above


class EcgS4ModelTest(StateSpaceTests, unittest.TestCase):
    config_class = modeling.EcgS4Config
    config_fields = STATE_SPACES
    all_model_classes = encoder_and_heads("EcgS4")


class EcgLeNepaOnStateSpacesForPreTrainingTest(StateSpaceTests, unittest.TestCase):
    config_class = modeling.EcgLeNepaConfig
    config_fields = PROJECTOR | STATE_SPACES | {"trunk": "s4"}
    all_model_classes = (modeling.EcgLeNepaForPreTraining,)


# The fields of a family, the tests of its encoder with heads, and those of its pretraining model.
FAMILIES = {
    "SigRegJepa": (
        PREDICTOR | PROJECTOR | {"mask_ratio": (0.4, 0.6), "min_segment_patches": 2},
        EcgModelTests,
        HidingTests,
    ),
    "LeJepa": (PROJECTOR | {"num_views": 2}, EcgModelTests, EcgModelTests),
    "StMem": (DECODER | {"head_dim": 8}, EcgModelTests, MaskedAutoencoderTests),
    "Mtae": (DECODER | {"head_dim": 8}, EcgModelTests, MaskedAutoencoderTests),
    "Mlae": (DECODER | {"head_dim": 8, "patch_size": 40}, EcgModelTests, MaskedAutoencoderTests),
    "EcgVqVae": (DECODER | {"latent_size": 8, "num_codes": 16}, CodebookHeadTests, CodebookTests),
    "EcgCpc": (STATE_SPACES | {"num_negatives": 4}, StateSpaceTests, StateSpaceTests),
    "EcgS4Jepa": (
        STATE_SPACES | {"predictor_state_size": 4, "num_mask_blocks": 2},
        StateSpaceTests,
        OfAFrozenTeacherTests,
    ),
    "EcgLeNepa": (PROJECTOR, EcgModelTests, EcgModelTests),
}
for family, (fields, *tests) in FAMILIES.items():
    models = {"Model": encoder_and_heads(family), "ForPreTraining": (getattr(modeling, f"{family}ForPreTraining"),)}
    for (ending, classes), kind in zip(models.items(), tests, strict=True):
        attributes = {"config_class": getattr(modeling, f"{family}Config"), "config_fields": fields}
        attributes |= {"all_model_classes": classes, "__module__": __name__}
        globals()[f"{family}{ending}Test"] = type(f"{family}{ending}Test", (kind, unittest.TestCase), attributes)
