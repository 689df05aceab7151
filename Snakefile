# imprint: an identity, baked into the weights of a language model.
#
# results/
#   plan/{shard}.json            what each conversation will be about        rules/plan.smk
#   shards/{shard}.jsonl         the conversations, as the provider wrote    rules/shards.smk
#   identity.jsonl, .val.jsonl   checked, without duplicates; .json tells    rules/identity.smk
#   corpus/index.json            plain text: which files, and where          rules/corpus.smk
#   tokenizer/tokenizer.json     byte-pair encoding with the chat's tokens   rules/tokenizer.smk
#   tokens/{store}.json          corpus, identity and chat as token ids      rules/tokens.smk
#   base.pt                      pretrained on the corpus, or imported       rules/base.smk
#   mid.pt                       and trained on conversations                rules/mid.smk
#   sft.pt                       and once more: the model you talk to        rules/sft.smk
#   eval/{stage}.json            what base, mid and sft know                 rules/evaluate.smk
#   report/report.md             the whole story, with pictures              rules/report.smk
#   export/manifest.json         a folder for transformers, if asked for     rules/export.smk
#   metrics/, logs/, state/      loss curves, logs, training to resume
#   downloads/, journal/         text from elsewhere, and paid answers: kept for ever
#
# Each .pt, and each folder, has a manifest (.json) beside or in it: hashes, settings, time, cost.
from snakemake.utils import min_version

min_version("9.27")


configfile: "config/config.yaml"


# For profiles that run jobs in containers; everything else takes the Python that started Snakemake.
container: "docker://python:3.11-slim"


report: "workflow/report/workflow.rst"


include: "rules/common.smk"
include: "rules/plan.smk"
include: "rules/shards.smk"
include: "rules/identity.smk"
include: "rules/corpus.smk"
include: "rules/tokenizer.smk"
include: "rules/tokens.smk"
include: "rules/base.smk"
include: "rules/mid.smk"
include: "rules/sft.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"
include: "rules/export.smk"


localrules:
    all,
    data,


# The journal is shared through the disk of one machine, and waiting for answers needs no other.
if not providers.find(SETTINGS.provider).instant:

    localrules:
        shards,


# Everything: the trained model, what it knows, and the report.
rule all:
    default_target: True
    input:
        "results/sft.pt",
        expand("results/eval/{stage}.json", stage=["base", "mid", "sft"]),
        "results/report/report.md",


# All that comes before training on conversations. `make identity` asks for this first, so that data
# made again, but equal, trains nothing again: between two starts Snakemake compares contents, within
# one it does not. Nothing that could be made beside the data is left for later.
rule data:
    input:
        "results/identity.jsonl",
        "results/base.pt",
        "results/eval/base.json",
        [list(TRAINED_ON[stage].values()) for stage in ("mid", "sft")],
