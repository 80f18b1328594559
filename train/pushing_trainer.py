"""A `Trainer` whose pushes hold what a person needs and nothing that is unpickled."""

import dataclasses
import logging
import shlex
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi, ModelCard
from transformers import Trainer
from transformers.trainer_utils import HubStrategy, SaveStrategy

from .data_source import declared_source
from .hub_client import plain_errors
from .licences import is_settled
from .model_upload import open_model_repository, upload_model
from .report import DataSource
from .shared_folder import ARGUMENTS_NAME, CARD_NAME, SharedFolder, read_shared_folder, shared_arguments

logger = logging.getLogger("ecg_transformers")


class PushingTrainer(Trainer):
    """[`~transformers.Trainer`] with `push_to_hub=True` as this library means it.

    Every push is one commit of weights, configuration, feature extractor, code, card, training arguments as JSON and
    a picture; pickles (`training_args.bin`, optimiser states) stay at home. The licence of the training data, the
    token and the repository are looked at before the training starts. Pushes during training run beside it: one that
    fails is logged, and a later one sends what it lacked.

    Args:
        data ([`~ecg_transformers.train.report.DataSource`], *optional*):
            The recordings; by default what `train_dataset` declares.
        args, kwargs: As in [`~transformers.Trainer`]; `args` is an [`EcgTrainingArguments`].
    """

    def __init__(self, *args, data: DataSource | None = None, **kwargs):
        self.data = data
        self.card = None
        """The card that goes out; `None` until the run is done, when [`draft_card`] makes one of what is known."""
        self._pushes: list[Future] = []
        self._executor: ThreadPoolExecutor | None = None
        super().__init__(*args, **kwargs)

    def draft_card(self, model_id: str) -> ModelCard:
        """The card of a run that goes on; each kind of training has its own."""
        raise NotImplementedError

    def recordings(self) -> DataSource:
        """Where the training data comes from, with the licence that `data_licence` states."""
        if self.data is None:
            self.data = declared_source(self.train_dataset)
        if self.args.data_licence is not None:
            return dataclasses.replace(self.data, licence=self.args.data_licence)
        return self.data

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Looks at all that could stop a push, and creates the repository."""
        if not self.is_world_process_zero():
            return
        args, licence = self.args, self.recordings().licence
        if not is_settled(licence):
            raise ValueError(
                f"push_to_hub: the licence of the training data is not settled: it is {licence!r}. Look it up where "
                "the recordings come from, and if it allows you to publish weights that were trained on them, state "
                'it: --data_licence "CC BY 4.0". Nothing has been trained.'
            )
        if args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            raise ValueError(
                f"hub_strategy={args.hub_strategy.value!r} publishes pickled optimiser states. Use 'every_save' or "
                "'end', and keep checkpoints on your own disks."
            )
        self._hub = HfApi(token=args.hub_token if token is None else token)
        name = Path(args.output_dir).absolute().name if args.hub_model_id is None else args.hub_model_id
        with plain_errors(name, self._hub.endpoint, "model"):
            if "/" not in name:
                name = f"{self._hub.whoami()['name']}/{name}"
            config = self.model.config.to_dict() | {"architectures": [type(self.model).__name__]}
            private = args.hub_private_repo if private is None else private
            open_model_repository(self._hub, name, config, args.hub_revision, private)
        self.hub_model_id = name

    def create_model_card(self, license: str | None = None, tags: str | list[str] | None = None, **header) -> None:
        """Writes the card into the output folder: the finished one, or one of what is known so far.

        Args:
            license (`str`, *optional*): Licence of the weights.
            tags (`str` or `list[str]`, *optional*): More tags.
            header: Other fields of the card's header, such as `language` or `base_model`.
        """
        if not self.is_world_process_zero():
            return
        if license is not None:
            self.args.weights_licence = license
        card = self._current_card()
        more_tags = [tags] if isinstance(tags, str) else tags or []
        card.data.tags = list(dict.fromkeys([*(card.data.tags or []), *more_tags]))
        for name, value in header.items():
            if value is not None:
                card.data[name] = value
        card.save(Path(self.args.output_dir) / CARD_NAME)

    def _current_card(self) -> ModelCard:
        return self.draft_card(Path(self.args.output_dir).name) if self.card is None else self.card

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **header,
    ) -> CommitInfo | Future | None:
        """Saves the model and pushes it. Arguments as in [`~transformers.Trainer.push_to_hub`]; `header` goes to
        [`create_model_card`]."""
        if self.hub_model_id is None or token is not None or private is not None:
            self.init_hf_repo(token, private)
        self.save_model(_internal_call=True)
        self.create_model_card(**header)
        return self.publish(commit_message, blocking, revision)

    def publish(
        self, commit_message: str = "End of training", blocking: bool = True, revision: str | None = None
    ) -> CommitInfo | Future | None:
        """Pushes the output folder as it is.

        Returns:
            `CommitInfo`, `None` where nothing was lacking; with `blocking=False` a `Future` of it.

        Raises:
            ValueError: for what the Hub refuses. Everything is saved then, and the message says how to send it.
        """
        if not self.is_world_process_zero():
            return None
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self._finish_current_push()
        shared = self._with_arguments(read_shared_folder(self.args.output_dir))
        if blocking:
            return self._upload(shared, commit_message, revision)
        return self._submit(self._upload, shared, commit_message, revision)

    def _with_arguments(self, shared: SharedFolder) -> SharedFolder:
        return dataclasses.replace(shared, texts=shared.texts | {ARGUMENTS_NAME: shared_arguments(self.args)})

    def _upload(self, shared: SharedFolder, message: str, revision: str | None = None) -> CommitInfo | None:
        folder, repo_id = self.args.output_dir, self.hub_model_id
        words = ["ecg-transformers", "push", "--folder", folder, "--repo_id", repo_id]
        revision = self.args.hub_revision if revision is None else revision
        words += ["--revision", revision] if revision is not None else []
        again = f"What is saved stays; when the run has ended, `{shlex.join(words)}` sends it."
        licence, weights_licence = self.recordings().licence, self.args.weights_licence
        with plain_errors(repo_id, self._hub.endpoint, "model", again):
            private = self.args.hub_private_repo
            repository = open_model_repository(self._hub, repo_id, shared.config, revision, private)
            return upload_model(self._hub, repository, shared, message, licence, weights_licence)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Pushes a checkpoint beside the training. Its weights are copied first: it may be deleted meanwhile."""
        args = self.args
        if not self.is_world_process_zero() or args.hub_strategy == HubStrategy.END:
            return
        if not args.hub_always_push and not all(push.done() for push in self._pushes):
            return
        self.callback_handler.on_push_begin(args, self.state, self.control)
        self._report_failures()
        shared = self._with_arguments(read_shared_folder(checkpoint_folder, card=str(self._current_card())))
        copies = Path(tempfile.mkdtemp(prefix=".push-", dir=args.output_dir))
        weights = {name: Path(shutil.copyfile(path, copies / name)) for name, path in shared.weights.items()}
        shared = dataclasses.replace(shared, weights=weights)
        in_steps = args.save_strategy == SaveStrategy.STEPS
        at = f"step {self.state.global_step}" if in_steps else f"epoch {int(self.state.epoch)}"
        self._submit(self._upload_copies, shared, f"Training in progress, {at}", copies)

    def _submit(self, upload: Callable, *args) -> Future:
        """One after the other; Python ends when all are done."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="push")
        self._pushes.append(self._executor.submit(upload, *args))
        return self._pushes[-1]

    def _upload_copies(self, shared: SharedFolder, message: str, copies: Path) -> CommitInfo | None:
        try:
            return self._upload(shared, message)
        finally:
            shutil.rmtree(copies)

    def _finish_current_push(self) -> None:
        """Waits for the pushes that run beside the training."""
        if not all(push.done() for push in self._pushes):
            logger.info("Waiting for the push of a checkpoint ...")
        self._report_failures(wait=True)

    def _report_failures(self, wait: bool = False):
        """A push that failed during training does not stop it: a later one sends what it lacked."""
        done = [push for push in self._pushes if wait or push.done()]
        self._pushes = [push for push in self._pushes if push not in done]
        for push in done:
            if (error := push.exception()) is not None:
                logger.warning("A push during training failed: %s", error)
