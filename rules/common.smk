"""What all of them share: checked settings, what stages are told, how training is started."""

import json
import shlex
import sys
from pathlib import Path

from imprint import identity, lockfile, providers, recipe, settings
from imprint.artifacts import digest
from imprint.errors import ImprintError
from imprint.generation import estimate, journal

ROOT = Path(str(workflow.current_basedir)).parent

# Refused here, a mistake costs a second; refused in a job, it may cost a night. Leaving by
# sys.exit shows the message alone, without the line of this file that Snakemake would add.
try:
    SETTINGS = settings.resolve(config, root=ROOT)
    recipe.check(SETTINGS)
    # By meaning, not by bytes: a comment, another order of keys or another file name re-run nothing.
    WHO = digest(identity.load(Path(SETTINGS.identity)).model_dump())
    SHARDS = recipe.shards(SETTINGS)
except ImprintError as error:
    sys.exit(f"error: {error}")

if lockfile.open_if_dead(Path(".snakemake")):
    print("note: the last run was killed; its lock is removed.", file=sys.stderr)


def announce(shards):
    """Tell what making these shards will cost; stop where that cannot be."""
    try:
        told = estimate.announced(SETTINGS, sorted(shards))
    except ImprintError as error:
        sys.exit(f"error: {error}")
    if told:
        print(told, file=sys.stderr)


def shaping(stage):
    """Return the settings that shape the output of a stage, as a function for `params:`.

    (A function, since Snakemake would take the braces of a plain string for wildcards.)
    """
    text = json.dumps(recipe.settings(stage, SETTINGS), sort_keys=True)
    return lambda wildcards: text


def identity_of(stage):
    """Return the identity's conversations as inputs of a stage; none where they are kept out."""
    if stage not in SETTINGS.identity_stages:  # base is never among them
        return {}
    return {
        "identity": "results/identity.jsonl",
        "validation": "results/identity.val.jsonl",
    }


def quoted(value):
    """Return a value as one word of a shell command in which Snakemake fills in braces."""
    return shlex.quote(str(value)).replace("{", "{{").replace("}", "}}")


# What training is told on its command line. The params hold less: only what shapes the weights,
# so that the time between two saved states can change without training anything again.
TOLD = {
    stage: quoted(json.dumps(recipe.passed(stage, SETTINGS), sort_keys=True))
    + "".join(f" --{name} {path}" for name, path in identity_of(stage).items())
    for stage in ("base", "mid", "sft")
}

# Who writes the conversations, and where every answer is kept that was paid for.
PROVISION = quoted(recipe.provision(SETTINGS).model_dump_json(exclude_defaults=True))
JOURNAL = journal.PATH

# The Python of the commands is the one that runs Snakemake, wherever that is.
shell.prefix(
    f"set -euo pipefail; export PATH={quoted(Path(sys.executable).parent)}:$PATH; "
)

# With more than one GPU, torchrun starts one process for each. Without it one process starts at
# once: torchrun would import torch a second time, 2 s on two cores.
TRAIN = (
    "python $([ {resources.gpu} -gt 1 ] &&"
    " echo -m torch.distributed.run --standalone --nproc-per-node {resources.gpu})"
    " workflow/scripts/train.py"
)

# The log gets everything; so does the terminal, where a long job should be seen to move.
SHOWN = " 2>&1 | tee {log} >&2"
