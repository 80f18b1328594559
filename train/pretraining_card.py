"""The card of a pretraining, while it goes on and when it is done."""

from huggingface_hub import ModelCard
from transformers import Trainer

from ecg_transformers.modeling import EcgJepaForPreTraining

from .model_card import render_model_card
from .report import DataSource
from .run_costs import RunCosts


def training_facts(trainer: Trainer) -> dict[str, str | int | float]:
    """What was trained and how, by readable names."""
    args = trainer.args
    facts = {
        "Training (steps)": trainer.state.global_step,
        "Batch (recordings)": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "Parameters of the encoder": sum(parameter.numel() for parameter in trainer.model.ecg_vit.parameters()),
        "Learning rate": args.learning_rate,
        "Weight decay": args.weight_decay,
        "Seed": args.seed,
    }
    if isinstance(trainer.model, EcgJepaForPreTraining):
        facts["Momentum of the teacher"] = f"{args.ema_start} to {args.ema_end}"
    return facts


def pretraining_card(
    trainer: Trainer, model_id: str, data: DataSource, split: str, costs: RunCosts | None = None
) -> ModelCard:
    """The card of what a Trainer has made so far.

    Args:
        trainer ([`EcgSslTrainer`]): During or after `train()`.
        model_id (`str`): Name on the Hub, or of the folder.
        data (`DataSource`), split (`str`), costs (`RunCosts`, *optional*): As in [`render_model_card`].
    """
    return render_model_card(
        config=trainer.model.config,
        feature_extractor=trainer.processing_class,
        model_id=model_id,
        data=data,
        split=split,
        training=training_facts(trainer),
        license=trainer.args.weights_licence,
        costs=costs,
    )
