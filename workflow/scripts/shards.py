"""Rule shards: have a provider write the conversations of one plan slice.

A command line, because Snakemake re-runs a `script:` for its time stamp alone, and answers may
have been paid for.
"""

import argparse
from pathlib import Path

from imprint.script import logged
from imprint.settings import Provision
from imprint.stages import shards

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--plan", type=Path, required=True, help="the plan file")
parser.add_argument("--settings", required=True, help="who writes, on what terms: JSON")
parser.add_argument("--journal", type=Path, required=True, help="where paid answers are kept")
parser.add_argument("--out", type=Path, required=True, help="the shard; its manifest goes beside")
parser.add_argument("--log", type=Path, required=True, help="the log file")
options = parser.parse_args()

with logged(options.log) as terminal:
    shards.run(
        plan=options.plan,
        provision=Provision.model_validate_json(options.settings),
        journal=options.journal,
        out=options.out,
        terminal=terminal,
    )
