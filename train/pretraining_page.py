"""What a pretraining run leaves beside its weights: a model card and a page with the curves of the training."""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from ecg_transformers.modeling.modeling_st_mem import MaskedAutoencoderForPreTraining

from .methods import method_of
from .online_probe import PROBE_PREFIX
from .plots import plot_training_curve
from .pretraining_card import pretraining_card, training_facts
from .reconstructions import reconstruction_figures
from .report import DataSource, Report, ReportFigure, write_report
from .run_costs import run_costs
from .trainer import EcgSslTrainer


def method_figures(trainer: EcgSslTrainer, dataset: Iterable[dict], num_records: int = 2) -> list[ReportFigure]:
    """What the trained model makes of the first recordings, for methods that reconstruct the signal."""
    if not isinstance(trainer.model, MaskedAutoencoderForPreTraining):
        return []
    recordings = [row["ecg"] for row in islice(iter(dataset), num_records)]
    return reconstruction_figures(trainer.model, trainer.processing_class, recordings)


def write_card_and_page(
    trainer: EcgSslTrainer,
    data: DataSource,
    split: str,
    seconds: float,
    command: str,
    figures: Sequence[ReportFigure] = (),
) -> Path:
    """Writes `README.md`, the card, and `training.html` into the output folder of a finished run.

    Args:
        trainer ([`EcgSslTrainer`]): After `train()`.
        data ([`~ecg_transformers.train.report.DataSource`]): The recordings.
        split (`str`): Which of them.
        seconds (`float`): How long the training took.
        command (`str`): What makes the run again.
        figures (`Sequence[ReportFigure]`, *optional*): Pictures besides the curves, such as reconstructions.

    Returns:
        `Path`: The page.
    """
    args, state, config = trainer.args, trainer.state, trainer.model.config
    folder = Path(args.output_dir)
    facts = training_facts(trainer)
    # no path of this machine in what may be shared
    trainer.card = pretraining_card(trainer, folder.name, data, split, run_costs(seconds, args))
    trainer.card.save(folder / "README.md")
    curves = ReportFigure.draw(
        plot_training_curve(state.log_history),
        "Training",
        "The loss alone proves little: watch the rank of the features and their spread between records.",
        "Loss, effective rank and standard deviation of the features over the steps",
    )
    page = Report(
        title=f"{method_of(config).name}: pretraining",
        summary=method_of(config).description,
        facts=facts | {"Training (s)": round(seconds)} | last_parts(state.log_history),
        figures=[curves, *figures],
        data=data,
        reproduce=command,
        next_commands=[
            (
                "judge the frozen features beside those of a random encoder",
                f"ecg-transformers evaluate --model {args.output_dir} --dataset ptb-xl-sample --output_dir evaluation",
            )
        ],
    )
    return write_report(page, folder / "training.html")


def last_parts(log_history: list[dict]) -> dict[str, float]:
    """The last value of everything that training logs beside the schedule, by a readable name."""
    known = {"grad_norm", "learning_rate", "epoch", "step"}
    last = {}
    for entry in log_history:
        if "loss" in entry or any(name.startswith(PROBE_PREFIX) for name in entry):
            last |= {name: value for name, value in entry.items() if name not in known}
    return {f"{name.replace('_', ' ').capitalize()} (last)": value for name, value in last.items()}
