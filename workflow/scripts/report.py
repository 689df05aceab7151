"""Rule report: gather evaluations, manifests and loss curves into one page."""

from pathlib import Path

from imprint.script import logged
from imprint.stages import report

with logged(snakemake.log[0]):
    report.run(
        evaluations=[Path(path) for path in snakemake.input.evaluations],
        manifests=[Path(path) for path in snakemake.input.manifests],
        metrics=[Path(path) for path in snakemake.input.metrics],
        out=Path(snakemake.output.page),
    )
