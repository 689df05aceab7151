"""What all of them share: checked settings, what stages are told, how training is started."""

import json
import shlex
import sys
from pathlib import Path

from imprint import identity, imports, lockfile, providers, recipe, settings, sources
from imprint.artifacts import digest
from imprint.errors import ImprintError
from imprint.fingerprint import Fingerprints
from imprint.generation import JOURNAL, estimate
from imprint.script import brisk

brisk()

ROOT = Path(str(workflow.current_basedir)).parent

# Refused here, a mistake costs a second; refused in a job, it may cost a night. Leaving by
# sys.exit shows the message alone, without the line of this file that Snakemake would add.
try:
    SETTINGS = settings.resolve(config, root=ROOT, check=recipe.check)
    # By meaning, not by bytes: a comment, another order of keys or another file name re-run nothing.
    WHO = digest(identity.load(Path(SETTINGS.identity)).model_dump())
    SHARDS = recipe.shards(SETTINGS)
except ImprintError as error:
    sys.exit(f"error: {error}")

FINGERPRINTS = Fingerprints(Path(".snakemake/fingerprints.json"))

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


def local_files(source):
    """Return the user's own files that a source reads; none for what is made or downloaded."""
    return [str(path) for path in sources.find(source).local()]


# The model to start from, if it is not trained here.
START = SETTINGS.base.start
IMPORTED = (
    {"files": [str(path) for path in imports.files(Path(START))]} if START else {}
)

# What is cut into tokens, and kept as results/tokens/{store}.json.
CHATS = {stage: recipe.chats(stage, SETTINGS) for stage in ("mid", "sft")}
TEXT = {
    "corpus": {"text": "results/corpus/index.json"},
    "identity": {"text": ["results/identity.jsonl", "results/identity.val.jsonl"]},
    **{
        stage: {"text": [file for name in told["chat"] for file in local_files(name)]}
        for stage, told in CHATS.items()
    },
}


def quoted(value):
    """Return a value as one word of a shell command in which Snakemake fills in braces."""
    return shlex.quote(str(value)).replace("{", "{{").replace("}", "}}")


TRAINED_ON = {
    stage: {
        name: f"results/tokens/{store}.json"
        for name, store in recipe.stores(stage, SETTINGS).items()
    }
    for stage in ("base", "mid", "sft")
}

# What every model is judged on, beside the exam: held-out text and chat.
HELD_OUT = {
    **TRAINED_ON["base"],
    **{k: v for k, v in TRAINED_ON["sft"].items() if k == "chat"},
}

# What training is told on its command line. The params hold less: only what shapes the weights,
# so that the time between two saved states can change without training anything again.
TOLD = {
    stage: quoted(json.dumps(recipe.passed(stage, SETTINGS), sort_keys=True))
    + "".join(f" --{name} {path}" for name, path in TRAINED_ON[stage].items())
    for stage in ("base", "mid", "sft")
}

# Who writes the conversations, and where every answer is kept that was paid for.
PROVISION = quoted(recipe.provision(SETTINGS).model_dump_json(exclude_defaults=True))

# The Python of the commands is the one that runs Snakemake, wherever that is.
shell.prefix(
    f"set -euo pipefail; export PATH={quoted(Path(sys.executable).parent)}:$PATH; "
)

# With more than one GPU, torchrun starts one process for each, and lets them save gigabytes when it
# is told to stop. Without it one process starts at once: it would import torch a second time, 2 s.
TRAIN = (
    "python $([ {resources.gpu} -gt 1 ] &&"
    " echo -m torch.distributed.run --standalone --shutdown-timeout 600"
    " --nproc-per-node {resources.gpu})"
    " workflow/scripts/train.py"
)

# The log gets everything; so does the terminal, where a long job should be seen to move.
SHOWN = " 2>&1 | tee {log} >&2"
