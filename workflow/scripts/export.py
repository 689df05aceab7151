"""Rule export: write the trained model as a Hugging Face folder."""

from pathlib import Path

from imprint.script import logged
from imprint.stages import export

with logged(snakemake.log[0]):
    export.run(
        trained=Path(snakemake.input.checkpoint),
        tokenizer=Path(snakemake.input.tokenizer),
        identity=Path(snakemake.config["identity"]),
        evaluation=Path(snakemake.input.evaluation),
        manifests=[Path(path) for path in snakemake.input.manifests],
        out=Path(snakemake.output.manifest),
    )
