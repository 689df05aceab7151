# Gather plain text for the tokenizer and for pretraining.
rule corpus:
    output:
        train="results/corpus/text.jsonl",
        validation="results/corpus/text.val.jsonl",
        manifest="results/corpus/manifest.json",
    log:
        "results/logs/corpus.log",
    resources:
        mem_mb=2000,
        runtime=240,
    params:
        version=recipe.label("corpus"),
        settings=recipe.settings("corpus", SETTINGS),
    message:
        "Gathering plain text"
    script:
        "../workflow/scripts/corpus.py"
