# Gather plain text for the tokenizer and for pretraining.
rule corpus:
    input:
        local_files(SETTINGS.corpus.source),
    output:
        index="results/corpus/index.json",
        manifest="results/corpus/manifest.json",
    log:
        "results/logs/corpus.log",
    resources:
        mem_mb=2000,
        runtime=1440,
    params:
        version=recipe.label("corpus"),
        settings=shaping("corpus"),
    message:
        "Gathering plain text"
    shell:
        "python workflow/scripts/corpus.py --settings {params.settings:q}"
        f" --out {{output.index}} --manifest {{output.manifest}}{SHOWN}"
