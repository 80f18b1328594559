"""What a user sees of the commands, frozen as text, so that a change of the code can be shown to change none of it.

    python tests/packaging/freeze_goldens.py                   # writes tests/fixtures/goldens anew
    python tests/packaging/freeze_goldens.py --check           # runs everything again; status 1 if anything differs
    python tests/packaging/freeze_goldens.py --check --keep D  # and leaves all that was written in the folder D

Each command runs in a process of its own, in a folder of its own, on one thread of the CPU, without a network, by the
package that this interpreter imports (`PYTHONPATH` chooses). Frozen of each run: what it said, the files that it
wrote, their JSON, the text of its pages, its cards, tables and tensors by name, and digests of weights, tables and
pictures. What changes from run to run (seconds, dates, paths, versions, the machine) is named and not kept. `--check`
compares all of it letter by letter, which the machine that made the goldens must reach; `test_goldens.py` allows for
another CPU.
"""

import argparse
import difflib
import hashlib
import importlib.util
import io
import json
import logging
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import yaml
from safetensors import safe_open

TESTS = Path(__file__).resolve().parents[1]
GOLDENS = TESTS / "fixtures" / "goldens"
RECORDS = TESTS / "fixtures" / "wfdb" / "ptb-xl"

logger = logging.getLogger("freeze_goldens")

# Runs several commands in one process, and names the status of each.
COMMANDS = """
import importlib.util, json, sys
from ecg_transformers.train.cli import main
package = importlib.util.find_spec("ecg_transformers.modeling").origin
assert package == sys.argv[2], f"{package} is imported, not {sys.argv[2]}"
statuses = []
for argv in json.loads(sys.argv[1]):
    sys.stderr.write("$ ecg-transformers " + " ".join(argv) + "\\n")
    try:
        statuses.append(main(argv))
    except SystemExit as stop:
        statuses.append(stop.code)
    sys.stdout.flush()
sys.stderr.write(f"status {', '.join(map(str, statuses))}\\n")
"""
NAMES = ("quickstart", "pretrain", "finetune", "evaluate", "compare", "embed", "prepare", "push", "info", "convert")
NAMES += ("export", "space")

# Two methods that are done in a second.
SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
INPUT = {"leads": ["I", "II", "V2"], "sampling_rate": 100, "num_samples": 1000, "normalization": "lead"}
TRAINING = {"learning_rate": 1e-3, "per_device_train_batch_size": 8, "logging_steps": 4, "save_strategy": "no"}
TINY_JEPA = {"model_type": "ecg_jepa", "patch_size": 100, "mask_type": "random", "mask_ratio": [0.4, 0.6], **SIZE}
TINY_JEPA |= {f"predictor_{name}": value // 2 for name, value in SIZE.items()} | INPUT | TRAINING
TINY_MTAE = {"model_type": "mtae", "patch_size": 50, "mask_ratio": 0.75, "head_dim": 16, **SIZE}
TINY_MTAE |= {f"decoder_{name}": value // 2 for name, value in SIZE.items()} | INPUT | TRAINING


@dataclass(frozen=True)
class Run:
    """One golden: commands that run in one process, what they write, and what of it is kept.

    Args:
        name (`str`): Of the golden.
        commands (`tuple[str]`): As one would type them; names of folders are relative to the folder of all runs.
        output (`str`, *optional*): Folder that is written.
        repositories (`tuple[str]`, *optional*): Names of what is pushed to the stand-in of the Hub.
    """

    name: str
    commands: tuple[str, ...]
    output: str | None = None
    repositories: tuple[str, ...] = ()


# The order counts: later ones start from the folders of earlier ones.
RUNS = (
    Run("help", ("--help", *(f"{name} --help" for name in NAMES))),
    Run("quickstart", ("quickstart --max_steps 1 --seed 2 --output_dir encoder",), "encoder"),
    Run(
        "errors",
        (
            "pretrain --config nowhere --output_dir failed",
            "pretrain --config quickstart --dataset nowhere --output_dir failed",
            "pretrain --config quickstart --no_such_flag 1 --output_dir failed",
            "pretrain --config quickstart --output_dir failed --dataset wfdb --data_dir nowhere",
            "evaluate --model nowhere --output_dir failed",
            "evaluate --model encoder --protocol nothing --output_dir failed",
            "evaluate --model encoder --setting nothing --output_dir failed",
            "finetune --model encoder --config nowhere --output_dir failed",
            "compare --methods nowhere --records_seen 64 --output_dir failed",
            "embed --model encoder --dataset nowhere --output_dir failed",
            "info nowhere",
            "prepare --dataset wfdb --data_dir nowhere --output_dir failed",
            "push --folder nowhere --repo_id owner/nothing",
        ),
    ),
    Run(
        "pretrain",
        (
            "pretrain --config quickstart --max_steps 12 --logging_steps 4 --online_probe_steps 6 --save_steps 6 "
            "--save_strategy steps --disable_tqdm true --output_dir pretrained",
        ),
        "pretrained",
    ),
    Run(
        "evaluate",
        (
            "evaluate --model encoder --dataset ptb-xl-sample --protocol linear knn --setting low_shot leads "
            "--output_dir evaluation",
        ),
        "evaluation",
    ),
    Run(
        "finetune",
        (
            "finetune --model encoder --config finetune_cpu --max_steps 12 --disable_tqdm true --weights_licence mit "
            "--output_dir classifier",
        ),
        "classifier",
    ),
    Run(
        "compare",
        (
            "compare --methods jepa.yaml,mtae.yaml --records_seen 64 --finetune --low_shot 0.3 "
            "--supervised_records_seen 128 --output_dir comparison",
        ),
        "comparison",
    ),
    Run("embed", ("embed --model encoder --dataset ptb-xl-sample --split test --output_dir features",), "features"),
    Run("prepare", ("prepare --dataset wfdb --data_dir records --output_dir prepared",), "prepared"),
    Run(
        "info",
        (
            "info records --json information/folder.json",
            "info records/records100/00000/00001_lr.hea --json information/record.json --plot information/record.png",
        ),
        "information",
    ),
    Run(
        "push",
        (
            "push --folder encoder --repo_id owner/encoder --results evaluation/metrics.json "
            "--weights_licence cc-by-4.0",
            "push --folder classifier --repo_id owner/classifier",
        ),
        repositories=("owner/encoder", "owner/classifier"),
    ),
)

KEPT_JSON = re.compile(r"[^/]+\.json|runs/[^/]+/result\.json")
KEPT_TEXT = re.compile(r"[^/]+\.(md|yaml)")
MOST_ENTRIES = 48  # of a list; of longer ones (predictions) the digest is kept
DIGESTED = (".safetensors", ".parquet", ".png", ".svg", ".npz")


def run_all(work: Path) -> dict[str, str]:
    """Runs everything in `work`; returns the text of each golden by its path below the folder of the goldens."""
    for name, settings in (("jepa", TINY_JEPA), ("mtae", TINY_MTAE)):
        (work / f"{name}.yaml").write_text(yaml.safe_dump(settings))
    (work / "records").symlink_to(RECORDS)
    (work / "information").mkdir()
    goldens = {}
    for run in RUNS:
        started = time.monotonic()
        with _loopback_hub(work / "hub") if run.repositories else nullcontext() as hub:
            said = _run_commands(run, work, hub)
            seen = {"messages.txt": said}
            for repository in run.repositories:
                name = repository.split("/")[1]
                seen |= _see(hub.files("models", repository), f"{name}-", "pushed.txt")
        if run.output:
            paths = (path for path in sorted((work / run.output).rglob("*")) if path.is_file())
            seen |= _see({path.relative_to(work / run.output).as_posix(): path.read_bytes() for path in paths})
        goldens |= {f"{run.name}/{name}": _name_what_changes(text, work) for name, text in seen.items()}
        logger.info("%s: %.0f s", run.name, time.monotonic() - started)
    return goldens


def package_file() -> str:
    """A file of the package that this interpreter imports, and by which its runs show that they import the same."""
    return importlib.util.find_spec("ecg_transformers.modeling").origin


def _loopback_hub(folder: Path):
    sys.path.append(str(TESTS / "hub"))
    try:
        from loopback_hub import LoopbackHub
    finally:
        sys.path.pop()
    return LoopbackHub(folder, {"hf_owner": ("owner", "write")})


def _run_commands(run: Run, work: Path, hub) -> str:
    """Returns what the commands said, without progress bars."""
    known = {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
    environment = os.environ | dict.fromkeys(known, "1")
    environment |= {"CUDA_VISIBLE_DEVICES": "", "HF_HOME": str(work / "hf"), "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}
    # With CI set, transformers would say everything twice.
    environment |= {"PYTHONWARNINGS": "ignore", "PYTHONHASHSEED": "0", "CI": ""}
    environment |= hub.client_environment(work / "hf", "hf_owner") if hub else {}
    commands = json.dumps([command.split() for command in run.commands])
    command = [sys.executable, "-c", COMMANDS, commands, package_file()]
    child = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
    ended = re.search(r"^status (.*)", child.stderr, re.MULTILINE)
    failed = ended is None or (run.name != "errors" and set(ended[1].split(", ")) != {"0"})
    if child.returncode or failed:
        raise RuntimeError(f"{run.name} failed:\n{child.stderr[-4000:]}")
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", child.stdout + child.stderr))
    bars = re.compile(r"\d+%\||\d+(\.\d+)?\w* ?\[\d\d:\d\d|(it|rec|B|s)/(s|it)\]")
    said = [line.rstrip() for line in lines if line.strip() and not bars.search(line)]
    return "".join(f"{line}\n" for line in said)


def _see(files: dict[str, bytes], prefix: str = "", listing: str = "files.txt") -> dict[str, str]:
    """The goldens of the files of one folder."""
    seen = {prefix + listing: "".join(f"{path}\n" for path in sorted(files))}
    digests, tables, tensors = {}, {}, {}
    for path, content in sorted(files.items()):
        kept = prefix + path.replace("/", "-")
        if KEPT_JSON.fullmatch(path):
            seen[kept] = json.dumps(_without_changes(json.loads(content)), indent=1, ensure_ascii=False) + "\n"
        elif KEPT_TEXT.fullmatch(path):
            seen[kept] = content.decode().rstrip("\n") + "\n"
        elif path.endswith(".html"):
            page = PageText()
            page.feed(content.decode())
            seen[kept + ".txt"] = page.text()
            digests |= {f"{path}: {alt}": _digest(source) for alt, source in page.pictures}
        elif path.endswith(DIGESTED):
            digests[path] = _digest(content)
        if path.endswith(".parquet"):
            table = pq.ParquetFile(io.BytesIO(content))
            columns = {field.name: str(field.type) for field in table.schema_arrow}
            tables[path] = {"rows": table.metadata.num_rows, "columns": columns}
        elif path == "model.safetensors" and not prefix:
            tensors = _tensors(content)
    for name, facts in (("digests", digests), ("tables", tables), ("tensors", tensors)):
        if facts:
            lines = (f" {json.dumps(key)}: {json.dumps(value)}" for key, value in facts.items())
            seen[f"{prefix}{name}.json"] = "{\n" + ",\n".join(lines) + "\n}\n"
    return seen


def _digest(content: bytes | str) -> str:
    return hashlib.sha256(content if isinstance(content, bytes) else content.encode()).hexdigest()[:16]


def _tensors(content: bytes) -> dict[str, list]:
    """Name to shape and mean absolute value of the tensors of a file of weights."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(content)
        with safe_open(path, "pt") as weights:
            tensors = {name: weights.get_tensor(name) for name in sorted(weights.keys())}
    return {name: [list(t.shape), round(t.double().abs().mean().item(), 6)] for name, t in tensors.items()}


CHANGING_KEYS = re.compile(
    r".* \(s\)|seconds|hardware|date|\w*_runtime|\w*_per_second|weights_sha256|transformers_version|package_version"
)


def _without_changes(value, key: str = ""):
    """JSON with a name in the place of what changes from run to run, or from machine to machine."""
    if isinstance(value, dict):
        return {name: _without_changes(part, f"{key}/{name}") for name, part in value.items()}
    names = key.split("/")
    if "versions" in names:
        return "<version>"
    changing = next((name for name in names if CHANGING_KEYS.fullmatch(name)), None)
    if changing and value is not None:
        return f"<{changing}>"
    if isinstance(value, list) and len(value) > MOST_ENTRIES:
        return {"entries": len(value), "digest": _digest(json.dumps(value))}
    return [_without_changes(part, key) for part in value] if isinstance(value, list) else value


LIBRARIES = "python|ecg-transformers|torch|transformers|datasets|scikit-learn|numpy"
CHANGING_TEXT = (
    (re.compile(rf"\b({LIBRARIES}) \d[\w.+]*\w"), r"\1 <version>"),
    (re.compile(r"Time and hardware: .*? s on .*?\. "), "Time and hardware: <seconds> s on <machine>. "),
    (re.compile(r"\(s\)( \||:) \d(?:[\d .]*\d)?"), r"(s)\1 <seconds>"),
    (re.compile(r"The (evaluation|training) took \d+ s\."), r"The \1 took <seconds> s."),
    (re.compile(r"'(\w*_runtime|\w*_per_second)': '[^']*'"), r"'\1': '<seconds>'"),
    (re.compile(r"\b\d+(\.\d+)? s\. (?=Checkpoint)"), "<seconds> s. "),
    (re.compile(r"\b(entries|entry) in \d+(\.\d+)? s\."), r"\1 in <seconds> s."),
    (re.compile(r"\b[0-9a-f]{40}(?:[0-9a-f]{24})?\b"), "<digest>"),
    (re.compile(r"\b20\d\d-\d\d-\d\d\b"), "<date>"),
    (re.compile(r"http://127\.0\.0\.1:\d+"), "http://<hub>"),
)


def _name_what_changes(text: str, work: Path) -> str:
    for folder, name in ((str(work), "<work>"), (str(TESTS), "<tests>"), (str(Path.home()) + "/", "<home>/")):
        text = text.replace(folder, name)
    for pattern, name in CHANGING_TEXT:
        text = pattern.sub(name, text)
    return text


class PageText(HTMLParser):
    """The text of a page, one line a block, cells of a row side by side; pictures by their description.

    Attributes:
        pictures (`list[tuple[str, str]]`): Description and source of each, in order.
    """

    BLOCKS = set("address article aside blockquote body caption dd details div dl dt figcaption figure footer".split())
    BLOCKS |= set("form h1 h2 h3 h4 header html li main nav ol option p pre section summary table tbody".split())
    BLOCKS |= set("thead title tr ul".split())
    UNSEEN = {"style", "script", "svg"}

    def __init__(self):
        super().__init__()
        self.pictures, self._lines, self._unseen, self._in_pre = [], [""], 0, False

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self._unseen += tag in self.UNSEEN
        self._in_pre |= tag == "pre"
        if tag == "img":
            self.pictures.append((attributes.get("alt", ""), attributes.get("src", "")))
            self._lines.append(f"[picture: {attributes.get('alt', '')}]")
        elif tag == "dd":
            self._lines[-1] += ": "
        elif tag == "br" or (tag in self.BLOCKS and tag != "div"):
            self._lines.append("")
        elif tag == "div" and not self._lines[-1].endswith(": "):
            self._lines.append("")
        elif tag in ("td", "th"):
            self._lines[-1] += " | "
        elif tag == "small":
            self._lines[-1] += " "

    def handle_endtag(self, tag):
        self._unseen -= tag in self.UNSEEN
        self._in_pre &= tag != "pre"
        if tag in self.BLOCKS and tag != "dt":
            self._lines.append("")

    def handle_data(self, data):
        if not self._unseen:
            first, *others = data.split("\n") if self._in_pre else [re.sub(r"\s+", " ", data)]
            self._lines[-1] += first
            self._lines.extend(others)

    def text(self) -> str:
        lines = (re.sub(r" {2,}", " ", line).strip() for line in self._lines)
        return "".join(f"{line}\n" for line in lines if line)


def read_goldens() -> dict[str, str]:
    """The frozen texts by path."""
    files = (path for path in sorted(GOLDENS.rglob("*")) if path.is_file())
    return {path.relative_to(GOLDENS).as_posix(): path.read_text(encoding="utf-8") for path in files}


def write_goldens(goldens: dict[str, str]):
    """Replaces the frozen texts."""
    for path in read_goldens().keys() - goldens.keys():
        (GOLDENS / path).unlink()
    for path, text in goldens.items():
        (GOLDENS / path).parent.mkdir(parents=True, exist_ok=True)
        (GOLDENS / path).write_text(text, encoding="utf-8")


def exact_differences(frozen: dict[str, str], made: dict[str, str]) -> list[str]:
    """What differs, letter by letter, as lines of a diff."""
    differences = []
    for path in sorted(frozen.keys() | made.keys()):
        before, now = frozen.get(path, "").splitlines(), made.get(path, "").splitlines()
        differences += difflib.unified_diff(before, now, f"frozen/{path}", f"now/{path}", n=0, lineterm="")
    return differences


NUMBER = re.compile(r"[-+±]?\d+(?:[., ]\d+)*(?:e[-+]?\d+)?")


def differences_beyond_the_cpu(frozen: dict[str, str], made: dict[str, str], tolerance: float) -> Iterator[str]:
    """What differs by more than another processor explains: words, names, structure, whole numbers, and numbers by
    more than `tolerance`; digests are not compared, nor numbers within prose."""
    for path in sorted(frozen.keys() ^ made.keys()):
        yield f"{path}: {'is new' if path in made else 'is gone'}"
    for path in sorted(frozen.keys() & made.keys()):
        if path.endswith(".json"):
            before, now = json.loads(frozen[path]), json.loads(made[path])
            by_digest = path.endswith("digests.json")
            found = _json_differences(
                list(before) if by_digest else before, list(now) if by_digest else now, tolerance
            )
            yield from (f"{path}: {difference}" for difference in found)
        else:
            listing = path.endswith(("files.txt", "pushed.txt"))
            before, now = (text if listing else NUMBER.sub("#", text) for text in (frozen[path], made[path]))
            found = difflib.unified_diff(before.splitlines(), now.splitlines(), n=0, lineterm="")
            yield from (f"{path}: {line}" for line in found if not line.startswith(("---", "+++", "@@")))


def _json_differences(before, now, tolerance: float, where: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for name in sorted(before.keys() ^ now.keys()):
            yield f"{where}/{name} {'is new' if name in now else 'is gone'}"
        for name in sorted(before.keys() & now.keys() - {"digest"}):
            yield from _json_differences(before[name], now[name], tolerance, f"{where}/{name}")
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for number, (one, other) in enumerate(zip(before, now, strict=True)):
            yield from _json_differences(one, other, tolerance, f"{where}/{number}")
    elif isinstance(before, float) and isinstance(now, float):
        if not (
            math.isclose(before, now, rel_tol=tolerance, abs_tol=tolerance)
            or math.isnan(before) == math.isnan(now) == 1
        ):
            yield f"{where} was {before} and is {now}"
    elif isinstance(before, str) and isinstance(now, str):
        if NUMBER.sub("#", before) != NUMBER.sub("#", now):
            yield f"{where} was {before!r} and is {now!r}"
    elif type(before) is not type(now) or before != now:
        yield f"{where} was {before!r} and is {now!r}"


def main(argv: list[str] | None = None) -> int:
    """Writes the goldens, or checks them; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, letter by letter, and write nothing")
    parser.add_argument("--keep", metavar="DIR", help="new folder to work in, and to leave")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logger.info("The package is that of %s", Path(package_file()).parents[1])
    with nullcontext(args.keep) if args.keep else tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        work.mkdir(parents=True, exist_ok=True)
        made = run_all(work)
    if not args.check:
        write_goldens(made)
        logger.info("Wrote %d files, %d bytes, to %s", len(made), sum(map(len, made.values())), GOLDENS)
        return 0
    differences = exact_differences(read_goldens(), made)
    for line in differences:
        logger.info("%s", line)
    if differences:
        return 1
    logger.info("All %d files are as frozen.", len(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
