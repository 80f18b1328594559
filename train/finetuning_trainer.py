"""The `Trainer` of a fine-tuning that pushes: the stock one, with the card of a classifier."""

from pathlib import Path

from huggingface_hub import ModelCard

from .finetuned_card import render_finetuned_card
from .pushing_trainer import PushingTrainer


class FineTuningTrainer(PushingTrainer):
    """[`~transformers.Trainer`] for `finetune` with `push_to_hub=True`: nothing but the pushes differs."""

    def draft_card(self, model_id: str) -> ModelCard:
        return render_finetuned_card(
            self.model.config,
            self.processing_class,
            model_id,
            Path(self.model.name_or_path).name,
            self.recordings(),
            license=self.args.weights_licence,
        )
