"""Rule corpus: gather plain text for the tokenizer and for pretraining.

A command line, because Snakemake re-runs a `script:` for its time stamp alone, and a corpus may
have taken hours to download.
"""

import argparse
import json
from pathlib import Path

from imprint.script import following, reported
from imprint.stages import corpus

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--settings", type=json.loads, required=True)
for name in ("--out", "--manifest"):
    parser.add_argument(name, type=Path, required=True)
given = vars(parser.parse_args())
settings = given.pop("settings")

with reported(), following():
    corpus.run(**settings, **given)
