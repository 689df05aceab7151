# Ask a checkpoint the held-out questions.
rule evaluate:
    input:
        **HELD_OUT,
        checkpoint="results/{stage}.pt",
        manifest="results/{stage}.json",
        tokenizer="results/tokenizer/tokenizer.json",
    output:
        "results/eval/{stage}.json",
    log:
        "results/logs/evaluate/{stage}.log",
    wildcard_constraints:
        stage="base|mid|sft",
    threads: 1
    resources:
        gpu=0,
        mem_mb=4000,
        runtime=60,
    params:
        code=FINGERPRINTS.code("evaluate"),
        identity=WHO,
        settings=recipe.settings("evaluate", SETTINGS),
    message:
        "Asking {wildcards.stage} the held-out questions"
    script:
        "../workflow/scripts/evaluate.py"
