"""Tiny models and inputs for the common model tests of `transformers`, and which of these do not apply to signals."""

import unittest
from unittest.mock import patch

import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES, MODEL_MAPPING_NAMES

from .transformers_suite import ConfigTester, ModelTesterMixin

LEADS = ("I", "II", "V1", "V2")
TINY = {
    "leads": LEADS,
    "sampling_rate": 100,
    "num_samples": 40,
    "patch_size": 5,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "embedding_size": 8,
    "embedding_hidden_size": 8,
}
NO_VOCABULARY = "Patches of a signal are projected: there is no vocabulary and no table of token embeddings"


def skipped(reason: str):
    """Returns a test that does not apply, and says why."""
    return unittest.skip(reason)(lambda self: None)


class EcgModelTester:
    """What the common tests ask of a model tester; lengths are those of the hidden states of `model_class`."""

    batch_size = 4
    is_training = True
    num_masks = 3

    def __init__(self, config_class, fields: dict, drops_hidden_tokens: bool):
        self.config_class, self.fields = config_class, TINY | fields
        config = self.get_config()
        self.hidden_size = config.hidden_size
        self.num_hidden_layers = config.num_hidden_layers
        self.num_attention_heads = config.num_attention_heads
        num_rows = config.num_position_rows
        self.mask_length = num_rows if config.num_columns == 1 else config.num_columns
        num_visible = self.mask_length - (self.num_masks if drops_hidden_tokens else 0)
        num_prefix = 2 * num_rows if config.lead_separators else config.num_registers
        self.seq_length = num_prefix + num_visible * (1 if config.num_columns == 1 else num_rows)

    def get_config(self):
        return self.config_class(**self.fields)

    def prepare_config_and_inputs_for_common(self):
        config = self.get_config()
        return config, {"input_values": torch.randn(self.batch_size, len(config.leads), config.num_samples)}

    def mask(self) -> torch.Tensor:
        return (torch.arange(self.mask_length) < self.num_masks)[None]


class EcgModelTests(ModelTesterMixin):
    """The common tests of one family: of its encoder and the heads on it, or of its pretraining model."""

    config_class = None
    config_fields = {}
    # Whether the pretraining model hides patches, and whether its encoder reads the visible ones alone.
    hides_patches = False
    drops_hidden_tokens = False
    # What the test of a configuration has to set besides, for its width of 32.
    config_test_fields = {}
    # Asked of models since 2023; ours have no line of copyright that would tell their year.
    test_can_init_all_missing_weights_before_2023 = True

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        names = {"Model": MODEL_MAPPING_NAMES}
        names["ForSequenceClassification"] = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
        for model_class in cls.all_model_classes:
            for ending, mapping in names.items():
                if model_class.__name__.endswith(ending):
                    cls.enterClassContext(patch.dict(mapping, {cls.config_class.model_type: model_class.__name__}))

    def setUp(self):
        self.model_tester = EcgModelTester(self.config_class, self.config_fields, self.drops_hidden_tokens)
        self.config_tester = ConfigTester(
            self,
            config_class=self.config_class,
            has_text_modality=False,
            hidden_size=32,
            num_attention_heads=4,
            **self.config_test_fields,
        )

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class)
        batch, num_leads, num_samples = inputs["input_values"].shape
        if model_class.__name__.endswith("ForPreTraining"):
            if self.hides_patches:
                inputs.setdefault("bool_masked_pos", self.model_tester.mask())
        elif "bool_masked_pos" in inputs and self.model_tester.get_config().num_columns == 1:
            inputs["bool_masked_pos"] = inputs["bool_masked_pos"][..., None]  # the encoder's grid: leads x 1
        if return_labels and model_class.__name__.endswith("ForSequenceClassification"):
            inputs["labels"] = torch.zeros(batch, dtype=torch.long)
        elif return_labels and model_class.__name__.endswith("ForTokenClassification"):
            inputs["labels"] = torch.zeros(batch, num_leads, num_samples, dtype=torch.long)
        elif return_labels and model_class.__name__.endswith("ForEmbedding"):
            inputs["labels"] = torch.arange(batch) % 2
        return inputs

    def test_config(self):
        self.config_tester.run_common_tests()

    def test_model_get_set_embeddings(self):
        """As the models of images have it: what is got is the projection of patches."""
        for model_class in self.all_model_classes:
            model = model_class(self.model_tester.get_config())
            self.assertIsInstance(model.get_input_embeddings(), torch.nn.Linear)
            new = torch.nn.Linear(5, 16)
            model.set_input_embeddings(new)
            self.assertIs(model.get_input_embeddings(), new)
            self.assertIsNone(model.get_output_embeddings())

    test_model_weights_reload_no_missing_tied_weights = skipped(
        "It loads a folder without the encoder's weights, which is refused: they would be random"
    )
    test_resize_tokens_embeddings = skipped(NO_VOCABULARY)
    test_resize_embeddings_untied = skipped(NO_VOCABULARY)
    test_resize_embeddings_untied_no_reinit_on_post_init = skipped(NO_VOCABULARY)
    test_inputs_embeds = skipped(NO_VOCABULARY)
    test_inputs_embeds_matches_input_ids = skipped(NO_VOCABULARY)
    test_load_with_mismatched_shapes = skipped(
        f"{NO_VOCABULARY}, whose size this test changes; another test loads heads of another size"
    )
