"""A `Trainer` whose pushes hold everything that a person needs and nothing that is unpickled."""

import atexit
import dataclasses
import json
import logging
import os
import shlex
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, HfApi, ModelCard
from transformers import Trainer
from transformers.trainer_utils import HubStrategy, SaveStrategy

from ecg_transformers.data.corpus import DataSource, declared_source

from .hub_client import look_up, open_model_repository, plain_errors, upload_model
from .licences import require_settled, require_weights_licence
from .model_card import CardFacts, write_card
from .shared_folder import ARGUMENTS_NAME, SharedFolder, published_card, read_shared_folder, shared_arguments

logger = logging.getLogger("ecg_transformers")


class PushingTrainer(Trainer):
    """[`~transformers.Trainer`] with `push_to_hub=True` as this library means it.

    Every push is one commit of weights, configuration, feature extractor, code, card, training arguments as JSON and
    a picture; pickles (`training_args.bin`, optimiser states) stay at home. The licence of the training data, the
    feature extractor, the token and the repository are checked before the training starts. Pushes during training
    run beside it: one that fails, for whatever reason, is logged, and a later one sends what it lacked. Nothing waits
    for the Hub longer than `args.hub_timeout` seconds, the end of Python neither.

    Args:
        data ([`~ecg_transformers.data.corpus.DataSource`], *optional*):
            The recordings; by default what `train_dataset` declares.
        args, kwargs: Arguments of [`~transformers.Trainer`]; `args` is an [`EcgTrainingArguments`].
    """

    def __init__(self, *args, data: DataSource | None = None, **kwargs):
        self.data = data
        self.facts: CardFacts | None = None
        """Facts of the card that goes out; `None` until the run is done, when [`draft_facts`] gives those so far."""
        self.complete_push: Callable[[SharedFolder, bool], SharedFolder] | None = None
        """Adds a picture and scores to a push (its files, whether to run the model). The commands set it to
        [`~ecg_transformers.train.explain.preview.complete_push`]; without it a push has none."""
        self.leaves_pushes = False
        """`True` where `train()` ends without waiting for them, because whoever called it saves the model first."""
        self._pushes: list[tuple[str, Future]] = []
        atexit.register(_wait_at_exit, weakref.ref(self))
        super().__init__(*args, **kwargs)

    def draft_facts(self) -> CardFacts:
        """Facts of a run that goes on; each kind of training has its own."""
        raise NotImplementedError

    def recordings(self) -> DataSource:
        """Source of the training data, with the licence that `data_licence` states."""
        if self.data is None:
            self.data = declared_source(self.train_dataset)
        licence = self.args.data_licence
        return self.data if licence is None else dataclasses.replace(self.data, licence=licence)

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Checks all that could stop a push, and creates the repository."""
        args = self.args
        if self.processing_class is None:
            raise ValueError(
                "push_to_hub: expected processing_class=EcgFeatureExtractor(...), without which nobody knows what to "
                "feed the model. Nothing has been trained."
            )
        if not self.is_world_process_zero():
            return
        require_settled(self.recordings().licence, "training data", "--data_licence", " Nothing has been trained.")
        require_weights_licence(args.weights_licence, " Nothing has been trained.")
        if args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            raise ValueError(
                f"hub_strategy={args.hub_strategy.value!r} publishes pickled optimiser states. Use 'every_save' or "
                "'end', and keep checkpoints on your own disks."
            )
        self._hub = HfApi(token=args.hub_token if token is None else token)
        private = args.hub_private_repo if private is None else private
        opening = _in_thread(self._open_repository, private)
        self.hub_model_id = self._within_timeout(opening, "Nothing has been trained.")

    def _open_repository(self, private: bool | None) -> str:
        args = self.args
        name = Path(args.output_dir).absolute().name if args.hub_model_id is None else args.hub_model_id
        with plain_errors(name, self._hub.endpoint, "model"):
            if "/" not in name:
                name = f"{look_up(self._hub.whoami)['name']}/{name}"
            config = json.loads(self.model.config.to_json_string())  # as it is stored, without what is the default
            config["architectures"] = [type(self.model).__name__]
            open_model_repository(self._hub, name, config, args.hub_revision, private)
        return name

    def _no_answer(self) -> str:
        return f"{self._hub.endpoint} has not answered in {self.args.hub_timeout:g} s (--hub_timeout)."

    def _within_timeout(self, push: Future, otherwise: str = "") -> Any:
        """The result of a thread, if it comes in time."""
        if not wait([push], timeout=self.args.hub_timeout).done:
            raise ValueError(f"{self._no_answer()} {otherwise}")
        return push.result()

    def create_model_card(self, license: str | None = None, tags: str | list[str] | None = None, **header) -> None:
        """Writes the card into the output folder: the finished one, or one of what is known so far. A later push
        renders it anew, with the scores that lie in the folder by then.

        Args:
            license (`str`, *optional*): Licence of the weights.
            tags (`str` or `list[str]`, *optional*): More tags.
            header: Other fields of the card's header, such as `language` or `base_model`.
        """
        if not self.is_world_process_zero():
            return
        if license is not None:
            self.args.weights_licence = license
        header |= {"tags": [tags] if isinstance(tags, str) else tags}
        changes = {"header": {name: value for name, value in header.items() if value}}
        changes["weights_licence"] = self.args.weights_licence
        self.facts = dataclasses.replace(self.facts or self.draft_facts(), **changes)
        write_card(self.args.output_dir, self.facts, self.model.config, self.processing_class)

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
        """Pushes the output folder as it is. What the Hub refuses and what breaks is a `ValueError` that says how to
        send what is saved."""
        if not self.is_world_process_zero():
            return None
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self._finish_current_push()
        revision = self.args.hub_revision if revision is None else revision
        try:
            shared, card = self._prepared(read_shared_folder(self.args.output_dir), with_model=True)
            upload = self._upload, shared, card, commit_message, revision
            if blocking:
                return self._within_timeout(_in_thread(*upload))
        except Exception as error:  # the Hub, the connection, the disk: after all the training, say what remains
            again = self._command(revision)
            raise ValueError(
                f"The push failed: {_sentence(error)} What is saved stays; `{again}` sends it."
            ) from error
        return self._submit("the model", *upload)

    def _command(self, revision: str | None) -> str:
        """Command line that sends the finished run."""
        words = ["ecg-transformers", "push", "--folder", self.args.output_dir, "--repo_id", self.hub_model_id]
        return shlex.join(words + (["--revision", revision] if revision is not None else []))

    def _prepared(self, shared: SharedFolder, with_model: bool) -> tuple[SharedFolder, ModelCard]:
        """The files of a push with picture, scores and arguments, and its card."""
        if self.complete_push is not None:
            shared = self.complete_push(shared, with_model)
        shared = dataclasses.replace(shared, texts=shared.texts | {ARGUMENTS_NAME: shared_arguments(self.args)})
        licences = self.recordings().licence, self.args.weights_licence
        return shared, published_card(shared, self.hub_model_id, *licences, self.model.config)

    def _upload(self, shared: SharedFolder, card: ModelCard, message: str, revision: str | None) -> CommitInfo:
        with plain_errors(self.hub_model_id, self._hub.endpoint, "model", again=""):
            target = self.hub_model_id, shared.config, revision, self.args.hub_private_repo
            return upload_model(self._hub, open_model_repository(self._hub, *target), shared, card, message)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Pushes a checkpoint beside the training, which nothing that happens here may stop."""
        args = self.args
        if not self.is_world_process_zero() or args.hub_strategy == HubStrategy.END:
            return
        if not args.hub_always_push and not all(push.done() for _, push in self._pushes):
            return
        self._report_failures()
        in_steps = args.save_strategy == SaveStrategy.STEPS
        at = f"step {self.state.global_step}" if in_steps else f"epoch {int(self.state.epoch)}"
        try:
            self.callback_handler.on_push_begin(args, self.state, self.control)
            facts = dataclasses.replace(self.facts or self.draft_facts(), ongoing=True)
            shared, card = self._prepared(read_shared_folder(checkpoint_folder, facts=facts), with_model=False)
            shared = _kept(shared, args.output_dir)
        except Exception as error:  # a full disk, a callback, a card: a training is worth more than a push
            self._log_failure(error, at)
            return

        def upload() -> CommitInfo:
            try:
                return self._upload(shared, card, f"Training in progress, {at}", args.hub_revision)
            finally:
                shutil.rmtree(shared.folder, ignore_errors=True)

        self._submit(at, upload)

    def _submit(self, what: str, upload: Callable, *args) -> Future:
        """Runs one push after the other, beside the training."""
        before = [push for _, push in self._pushes]

        def upload_after():
            wait(before)
            return upload(*args)

        self._pushes.append((what, _in_thread(upload_after)))
        return self._pushes[-1][1]

    def _finish_current_push(self) -> None:
        """Waits for the pushes that run beside the training."""
        if self.leaves_pushes and self.is_in_train:
            return
        if not all(push.done() for _, push in self._pushes):
            logger.info("Waiting for the push of a checkpoint ...")
        wait([push for _, push in self._pushes], timeout=self.args.hub_timeout)
        self._report_failures(must_end=True)

    def _report_failures(self, must_end: bool = False):
        """A push that failed during training does not stop it: a later one sends what it lacked."""
        ended = [(what, push) for what, push in self._pushes if must_end or push.done()]
        self._pushes = [waiting for waiting in self._pushes if waiting not in ended]
        for what, push in ended:
            error = push.exception() if push.done() else TimeoutError(self._no_answer())
            if error is not None:
                self._log_failure(error, what)

    def _log_failure(self, error: BaseException, what: str):
        logger.warning(
            "The push of %s failed: %s The training goes on, and the next push sends what this one lacked; by hand, "
            "when the run has ended: %s",
            *(what, _sentence(error), self._command(self.args.hub_revision)),
        )


def _in_thread(work: Callable, *args: Any) -> Future:
    """Begins a piece of work that nothing has to wait for, not even the end of Python, as a pool of threads would."""
    result = Future()

    def run():
        try:
            result.set_result(work(*args))
        except BaseException as error:  # whoever asks for the result gets it
            result.set_exception(error)

    threading.Thread(target=run, name="push", daemon=True).start()
    return result


def _wait_at_exit(trainer: weakref.ref) -> None:
    """Gives pushes that are under way when Python ends their time."""
    if (pushing := trainer()) is not None:
        wait([push for _, push in pushing._pushes], timeout=pushing.args.hub_timeout)


def _sentence(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__).removesuffix(".") + "."


def _kept(shared: SharedFolder, output_dir: str) -> SharedFolder:
    """A checkpoint as it is now, with its weights in a folder of their own: it may be deleted meanwhile."""
    kept = Path(tempfile.mkdtemp(prefix=".push-", dir=output_dir))
    try:
        for name, path in shared.weights.items():
            _link_or_copy(path, kept / name)
    except BaseException:
        shutil.rmtree(kept, ignore_errors=True)
        raise
    return dataclasses.replace(shared, folder=kept, weights={name: kept / name for name in shared.weights})


def _link_or_copy(path: Path, target: Path):
    """A second name for a file, which takes no room and outlives the first; a copy where the disk knows none."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)
