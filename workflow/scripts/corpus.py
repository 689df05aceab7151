"""Rule corpus: gather plain text for the tokenizer and for pretraining."""

from pathlib import Path

from imprint.script import logged
from imprint.stages import corpus

with logged(snakemake.log[0]):
    corpus.run(
        **snakemake.params.settings,
        out=Path(snakemake.output.train),
        validation_out=Path(snakemake.output.validation),
        manifest=Path(snakemake.output.manifest),
    )
