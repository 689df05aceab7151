"""Rule identity: merge the shards into the dataset of conversations."""

from pathlib import Path

from imprint.script import logged
from imprint.stages import identity

with logged(snakemake.log[0]):
    identity.run(
        shards=[Path(path) for path in snakemake.input.shards],
        plans=[Path(path) for path in snakemake.input.plans],
        validation=snakemake.params.validation,
        near_duplicate=snakemake.params.near_duplicate,
        per_suite=snakemake.params.per_suite,
        seed=snakemake.params.seed,
        out=Path(snakemake.output.identity),
        validation_out=Path(snakemake.output.validation),
        manifest=Path(snakemake.output.manifest),
    )
