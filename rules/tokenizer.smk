# Learn how to cut text into tokens.
rule tokenizer:
    input:
        **(IMPORTED or {"corpus": "results/corpus/index.json"}),
    output:
        tokenizer="results/tokenizer/tokenizer.json",
        manifest="results/tokenizer/manifest.json",
    log:
        "results/logs/tokenizer.log",
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        version=recipe.label("tokenizer"),
        settings=shaping("tokenizer"),
    message:
        "Learning how to cut text into tokens"
    shell:
        "python workflow/scripts/tokenizer.py"
        + ("" if IMPORTED else " --corpus {input.corpus}")
        + " --settings {params.settings:q} --out {output.tokenizer} --manifest {output.manifest}"
        " > {log} 2>&1"
