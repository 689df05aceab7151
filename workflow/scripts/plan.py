"""Rule plan: decide what the conversations of one shard will be about."""

from pathlib import Path

from imprint.script import logged
from imprint.stages import plan

with logged(snakemake.log[0]):
    plan.run(
        identity=Path(snakemake.config["identity"]),
        shard=snakemake.wildcards.shard,
        start=snakemake.params.start,
        stop=snakemake.params.stop,
        seed=snakemake.params.seed,
        out=Path(snakemake.output[0]),
    )
