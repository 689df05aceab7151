"""Rule shards: have a provider write the conversations of one plan slice.

A command line, because Snakemake re-runs a `script:` for its time stamp alone, and answers may
have been paid for.
"""

import argparse
from pathlib import Path

from imprint.script import logged
from imprint.stages import shards

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--plan", type=Path, required=True, help="the plan file")
parser.add_argument("--provider", required=True, help="a name listed by `imprint providers`")
parser.add_argument("--model", default=None, help="left out or empty: the provider's default")
parser.add_argument("--out", type=Path, required=True, help="the shard; its manifest goes beside")
parser.add_argument("--log", type=Path, required=True, help="the log file")
options = parser.parse_args()

with logged(options.log):
    shards.run(
        plan=options.plan,
        provider=options.provider,
        model=options.model or None,
        out=options.out,
    )
