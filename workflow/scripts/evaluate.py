"""Rule evaluate: ask a checkpoint the held-out questions."""

from pathlib import Path

from imprint.script import logged
from imprint.stages import evaluate

with logged(snakemake.log[0]):
    evaluate.run(
        checkpoint=Path(snakemake.input.checkpoint),
        tokenizer=Path(snakemake.input.tokenizer),
        identity=Path(snakemake.config["identity"]),
        manifest=Path(snakemake.input.manifest),
        corpus=snakemake.input.get("corpus") and Path(snakemake.input.corpus),
        chat=snakemake.input.get("chat") and Path(snakemake.input.chat),
        out=Path(snakemake.output[0]),
        settings=snakemake.params.settings,
    )
