"""Rule tokenizer: learn the tokenizer from the corpus."""

import argparse
import json
from pathlib import Path

from imprint.script import following, reported
from imprint.stages import tokenizer

parser = argparse.ArgumentParser()
parser.add_argument("--corpus", type=Path, help="none where a tokenizer is imported")
for name in ("--out", "--manifest"):
    parser.add_argument(name, type=Path, required=True)
parser.add_argument("--settings", type=json.loads, required=True)

with reported(), following():
    tokenizer.run(**vars(parser.parse_args()))
