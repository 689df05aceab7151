"""Rule tokens: cut text and conversations into tokens, once."""

import argparse
import json
from pathlib import Path

from imprint.script import following, reported
from imprint.stages import tokens

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("store", choices=["corpus", "identity", "mid", "sft"])
parser.add_argument("--settings", type=json.loads, required=True)
parser.add_argument("--text", type=Path, nargs="*", help="what is cut; of chat, files of the user")
for name in ("--tokenizer", "--out", "--manifest"):
    parser.add_argument(name, type=Path, required=True)

with reported(), following():
    tokens.run(**vars(parser.parse_args()))
