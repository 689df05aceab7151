"""Rules base, mid and sft: train a model; torchrun may start it as many processes."""

import argparse
import importlib
import json
from pathlib import Path

from imprint.script import brisk, following, reported, sharing

parser = argparse.ArgumentParser()
parser.add_argument("stage", choices=["base", "mid", "sft"])
parser.add_argument("--from", dest="start", type=Path, help="checkpoint to train; mid and sft")
parser.add_argument("--identity", type=Path, help="as tokens; mid and sft")
parser.add_argument("--chat", type=Path, help="as tokens; mid and sft")
parser.add_argument("--corpus", type=Path, help="as tokens; base, unless it is imported")
for name in ("--tokenizer", "--out", "--manifest", "--metrics"):
    parser.add_argument(name, type=Path, required=True)
parser.add_argument("--settings", type=json.loads, required=True)

given = vars(parser.parse_args())
stage = given.pop("stage")
for name in ("start", "identity", "chat") if stage == "base" else ("corpus",):
    given.pop(name)
brisk()
sharing()
with reported(), following():
    importlib.import_module(f"imprint.stages.{stage}").run(**given)
