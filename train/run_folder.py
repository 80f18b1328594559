"""Folders that a run writes: nobody else's is written over, and a checkpoint is whole or not used.

Whole is what its seal says, `checkpoint.json`, which is written last: the size and the checksum of every file, and
what the run began with. Checkpoints without a seal, of an earlier version, are read to their ends instead.
"""

import json
import logging
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger("ecg_transformers")

SEAL_NAME = "checkpoint.json"
TRAINER_STATE_NAME = "trainer_state.json"
STATES = ("optimizer", "scheduler", "rng_state")
"""First parts of the names of what a checkpoint holds beside weights."""
RUN_NAMES = re.compile(
    r"checkpoint-\d+|.*\.safetensors(\.index\.json)?|(card|config|preprocessor_config|trainer_state|training_args|metrics"
    r"|report|predictions|all_results|train_results)\.(json|bin|parquet)|.*\.py|README\.md|(training|report)\.html|runs"
    r"|\.push-.*|pictures"
)
"""Names of what a training leaves in its folder, which `--overwrite_output_dir` removes."""
NUM_NAMED = 5


class Preempted(RuntimeError):
    """Raised after a run has saved because somebody asked it to end (SIGTERM), as a scheduler does before it kills."""


# --- A folder to write to -----------------------------------------------------------------------------------------


def is_last(resume_from_checkpoint: str | bool | None) -> bool:
    """Checks that a run is to go on from the newest checkpoint of its own folder."""
    return str(resume_from_checkpoint).lower() in ("true", "last")


def claim_output_dir(
    output_dir: str,
    overwrite: bool = False,
    resume_from_checkpoint: str | bool | None = None,
    written: re.Pattern[str] = RUN_NAMES,
    reads: str | os.PathLike | None = None,
) -> None:
    """Checks that a command may write to a folder, before any work.

    Args:
        output_dir (`str`): The folder; it need not exist.
        overwrite (`bool`, *optional*): Remove what an earlier run left there; every other file stays.
        resume_from_checkpoint (`str`, *optional*): Flag of [`~transformers.TrainingArguments`]; a run that goes on
            finds its own files.
        written (`re.Pattern`, *optional*): Names of what the command leaves there; by default those of a training.
        reads (`str`, *optional*): The model or file that the command reads, which `overwrite` never removes.

    Raises:
        ValueError: names what lies there, if it is neither empty nor the run's own.
    """
    folder = Path(output_dir)
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    if not names:
        return
    if overwrite and resume_from_checkpoint not in (None, False):
        raise ValueError(
            "--overwrite_output_dir would remove what --resume_from_checkpoint goes on from: give one of them."
        )
    if overwrite:
        if reads is not None and _lies_in(folder, Path(reads), written):
            raise ValueError(
                f"--overwrite_output_dir would remove {reads}, which this command reads: give another --output_dir."
            )
        if int(os.environ.get("RANK", 0)) == 0:
            _remove(folder, [name for name in names if written.fullmatch(name)])
        return
    checkpoints = [path.name for path in checkpoints_of(output_dir)]
    is_resumed = resume_from_checkpoint not in (None, False)
    if is_resumed and (checkpoints or Path(str(resume_from_checkpoint)).parent.absolute() == folder.absolute()):
        return
    weights = [name for name in names if name.endswith((".safetensors", ".safetensors.index.json"))]
    if weights:
        found, cure = f"a finished model ({_some(weights)})", "give another --output_dir"
    elif checkpoints:
        found = f"the checkpoints of a run that did not end ({_some(checkpoints)})"
        cure = "--resume_from_checkpoint last goes on from there"
    else:
        found, cure = f"other files ({_some(names)})", "give another --output_dir"
    raise ValueError(
        f"{output_dir} holds {found}. Nothing is written over: {cure}, or --overwrite_output_dir removes what has a "
        "name that this command writes, old checkpoints of a training too, and keeps every other file."
    )


def check_no_other_run(output_dir: str, is_resumed: bool = False) -> None:
    """Raises `ValueError` where a folder holds the model or the checkpoints of a run: another may not mix with it.

    A run that `is_resumed` may find checkpoints of its own that were not written to their ends.
    """
    names = sorted(os.listdir(output_dir)) if os.path.isdir(output_dir) else []
    found = [] if is_resumed else [path.name for path in checkpoints_of(output_dir)]
    found += ["model.safetensors"] if "model.safetensors" in names else []
    if found:
        raise ValueError(
            f"{output_dir} holds another run ({_some(found)}), which is not written over. Give another output_dir, go "
            "on from its checkpoint with resume_from_checkpoint='last', or remove what is there."
        )


def _lies_in(folder: Path, path: Path, written: re.Pattern[str]) -> bool:
    """Checks that a path is the folder itself or lies in something there of a name that is written."""
    folder, path = folder.resolve(), path.resolve()
    if not path.exists() or not path.is_relative_to(folder):
        return False
    return path == folder or written.fullmatch(path.relative_to(folder).parts[0]) is not None


def _remove(folder: Path, names: list[str]) -> None:
    for name in names:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    if names:
        logger.warning("Removed from %s what an earlier run left there: %s", folder, ", ".join(names))


def _some(names: list[str]) -> str:
    more = len(names) - NUM_NAMED
    return ", ".join(names[:NUM_NAMED]) + (f" and {more} more" if more > 0 else "")


# --- Checkpoints --------------------------------------------------------------------------------------------------


def checkpoints_of(output_dir: str) -> list[Path]:
    """Checkpoints of a run by their steps, oldest first; folders of other names are not looked at."""
    steps = {
        int(match[1]): path
        for path in Path(output_dir).glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-(\d+)", path.name)) and path.is_dir()
    }
    return [steps[step] for step in sorted(steps)]


def last_complete_checkpoint(output_dir: str) -> str | None:
    """The newest checkpoint that is whole; `None` where no checkpoint was ever written to its end.

    A run that is killed while it saves, or a disk that is full, leaves a folder that would not load; it is named, with
    what is wrong, and passed over.

    Raises:
        ValueError: where there were whole checkpoints and none is so any more.
    """
    damages, was_whole = [], False
    for checkpoint in reversed(checkpoints_of(output_dir)):
        damage = find_damage(checkpoint)
        if damage is None:
            return str(checkpoint)
        damages.append(f"{checkpoint.name}: {damage}")
        was_whole |= (checkpoint / SEAL_NAME).exists() or (checkpoint / TRAINER_STATE_NAME).exists()
        logger.warning("%s is not whole: %s. Going on from the one before, if there is one.", checkpoint, damage)
    if was_whole:
        raise ValueError(f"There is no complete checkpoint to resume from in {output_dir}: {'; '.join(damages)}.")
    return None


def keep_checkpoints(output_dir: str, limit: int | None, best: str | None = None) -> None:
    """Deletes the oldest checkpoints but the last `limit`; the newest and the best one stay whatever it says.

    (The Trainer's own deletion takes `checkpoint-50.bak` for a checkpoint.)
    """
    checkpoints = checkpoints_of(output_dir)
    protected = {checkpoint.name for checkpoint in checkpoints[-1:]} | ({Path(best).name} if best else set())
    surplus = len(checkpoints) - max(limit, len(protected)) if limit and limit > 0 else 0
    for checkpoint in [path for path in checkpoints if path.name not in protected][: max(surplus, 0)]:
        shutil.rmtree(checkpoint, ignore_errors=True)


def seal_checkpoint(checkpoint: str | os.PathLike, run: Mapping[str, Any]) -> None:
    """Writes down which files a checkpoint has, and of which run it is; the last step of a save."""
    folder = Path(checkpoint)
    files = {name: [path.stat().st_size, _checksum(path)] for name, path in _files(folder)}
    unfinished = folder / f"{SEAL_NAME}.unfinished"
    unfinished.write_text(json.dumps({"files": files, "run": run}, indent=1), encoding="utf-8")
    os.replace(unfinished, folder / SEAL_NAME)


def sealed_run(checkpoint: str | os.PathLike) -> dict[str, Any] | None:
    """Facts with which the run of a checkpoint began; `None` for an earlier version."""
    path = Path(checkpoint) / SEAL_NAME
    return json.loads(path.read_text(encoding="utf-8"))["run"] if path.is_file() else None


def find_damage(checkpoint: str | os.PathLike) -> str | None:
    """Damage of a checkpoint that a run is to go on from, in words; `None` if it is whole."""
    folder = Path(checkpoint)
    if not folder.is_dir():
        return "there is no such folder"
    names = {path.relative_to(folder).parts[0] for _, path in _files(folder)}
    if TRAINER_STATE_NAME not in names:
        return f"{TRAINER_STATE_NAME} is missing, which is written last"
    is_sharded = any(name.startswith(("global_step", "pytorch_model_fsdp")) for name in names)  # DeepSpeed, FSDP
    if not is_sharded and not any(name.endswith(".safetensors") for name in names):
        return "the weights are missing"
    missing = [kind for kind in STATES if not any(name.startswith(kind) for name in names)]
    if missing and not any(name.startswith("global_step") for name in names):
        return f"{' and '.join(missing)} is missing, without which a run does not go on as it was"
    try:
        step = json.loads((folder / TRAINER_STATE_NAME).read_text(encoding="utf-8"))["global_step"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"{TRAINER_STATE_NAME} is no whole file of JSON"
    if not isinstance(step, int):
        return f"{TRAINER_STATE_NAME} names no step"
    seal = folder / SEAL_NAME
    return _broken_seal(folder, seal) if seal.is_file() else _unreadable_file(folder)


def _broken_seal(folder: Path, seal: Path) -> str | None:
    try:
        files = dict(json.loads(seal.read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"{SEAL_NAME} is no whole file of JSON"
    there = dict(_files(folder))
    for name, (size, checksum) in files.items():
        if name not in there:
            return f"{name} is missing"
        if there[name].stat().st_size != size:
            return f"{name} has {there[name].stat().st_size} bytes, not the {size} that were saved"
        if _checksum(there[name]) != checksum:
            return f"{name} does not hold what was saved"
    return None


def _unreadable_file(folder: Path) -> str | None:
    """The first file of a checkpoint without a seal that ends too early or holds something else."""
    for name, path in _files(folder):
        if name.endswith(".safetensors") and not is_whole_safetensors(path):
            return f"{name} is no whole file of safetensors"
        if name.endswith((".pt", ".pth")):
            try:
                with zipfile.ZipFile(path) as archive:
                    broken = archive.testzip()
            except (OSError, zipfile.BadZipFile):
                broken = name
            if broken is not None:
                return f"{name} is no whole file of torch"
    return None


def is_whole_safetensors(path: str | os.PathLike) -> bool:
    """Checks that a file ends where its header states."""
    from safetensors import SafetensorError, safe_open  # help has to be quick

    try:
        with safe_open(path, "numpy"):
            return True
    except (SafetensorError, OSError):
        return False


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Files of a checkpoint by their names, but the seal."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != SEAL_NAME and not path.name.endswith(".unfinished"):
            yield path.relative_to(folder).as_posix(), path


def _checksum(path: Path) -> int:
    value = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


# --- Runs ---------------------------------------------------------------------------------------------------------


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Differences in the beginnings of two runs, each as `field: then, now`."""
    first, second = dict(_flat(then)), dict(_flat(now))
    missing = "nothing"
    return [
        f"{field} was {first.get(field, missing)!r} and is {second.get(field, missing)!r}"
        for field in sorted(first.keys() | second.keys())
        if first.get(field, missing) != second.get(field, missing)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
