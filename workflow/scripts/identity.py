"""Rule identity: merge the shards into the dataset of conversations."""

from pathlib import Path

from imprint.script import logged
from imprint.stages import identity

with logged(snakemake.log[0]):
    identity.run(
        shards=[Path(path) for path in snakemake.input.shards],
        plans=[Path(path) for path in snakemake.input.plans],
        **snakemake.params.settings,
        out=Path(snakemake.output.train),
        validation_out=Path(snakemake.output.validation),
        manifest=Path(snakemake.output.manifest),
    )
