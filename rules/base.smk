# Pretrain a model on plain text, or import one.
rule base:
    input:
        **TRAINED_ON["base"],
        **IMPORTED,
        tokenizer="results/tokenizer/tokenizer.json",
    output:
        checkpoint="results/base.pt",
        manifest="results/base.json",
        metrics="results/metrics/base.jsonl",
    log:
        "results/logs/base.log",
    threads: 1  # of two; the other may merge the conversations meanwhile
    resources:
        gpu=0,
        mem_mb=4000,
        runtime=1440,
    params:
        version=recipe.label("base"),
        settings=shaping("base"),
    message:
        "Pretraining on plain text"
    shell:
        TRAIN
        + " base --tokenizer {input.tokenizer} --settings "
        + TOLD["base"]
        + " --out {output.checkpoint} --manifest {output.manifest} --metrics {output.metrics}"
        + SHOWN
