# /// script
# requires-python = ">=3.11"
# dependencies = ["ecg-transformers @ git+https://github.com/OWNER/ecg-transformers", "trackio"]
# ///
"""Pretrains on a rented GPU, from a corpus on the Hub to a model on the Hub:

    hf jobs uv run --flavor a10g-small --timeout 6h --secrets HF_TOKEN docs/pretrain_job.py \
        --data_dir hf://datasets/OWNER/prepared --repo_id OWNER/encoder --config kernel_response_cpu --bf16 true

`--dry_run` prints the command that would run, and ends. Every flag of `ecg-transformers pretrain` is accepted too.
"""

import argparse
import shlex
import sys

from ecg_transformers.train.cli import main


def pretraining_command(words: list[str]) -> tuple[list[str], bool]:
    """The words of `ecg-transformers`, and whether to print them only."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="prepared corpus, such as hf://datasets/OWNER/prepared")
    parser.add_argument("--repo_id", help="OWNER/NAME of the model, pushed as it is saved; a job's disk is not kept")
    parser.add_argument("--config", default="ecg_jepa_cpu", help="preset")
    parser.add_argument("--max_steps", default="10000", help="a stream has no length: the steps are needed")
    parser.add_argument("--report_to", default="trackio", help="tracker, or none")
    parser.add_argument("--output_dir", default="run")
    parser.add_argument("--dry_run", action="store_true")
    args, rest = parser.parse_known_args(words)
    source = ["--dataset", "prepared", "--data_dir", args.data_dir, "--streaming"]
    command = ["pretrain", "--config", args.config, *source]
    command += ["--output_dir", args.output_dir, "--max_steps", args.max_steps, "--report_to", args.report_to]
    if args.repo_id is not None:
        command += ["--push_to_hub", "true", "--hub_model_id", args.repo_id, "--hub_strategy", "every_save"]
        command += ["--save_strategy", "steps", "--save_steps", "1000"]
    return command + rest, args.dry_run


if __name__ == "__main__":
    command, is_dry_run = pretraining_command(sys.argv[1:])
    if is_dry_run:
        sys.stdout.write(shlex.join(["ecg-transformers", *command]) + "\n")
    else:
        sys.exit(main(command))
