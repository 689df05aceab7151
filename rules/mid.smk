# Train the pretrained model on general chat and on the identity.
rule mid:
    input:
        **TRAINED_ON["mid"],
        checkpoint="results/base.pt",
        tokenizer="results/tokenizer/tokenizer.json",
    output:
        checkpoint="results/mid.pt",
        manifest="results/mid.json",
        metrics="results/metrics/mid.jsonl",
    log:
        "results/logs/mid.log",
    threads: 2
    resources:
        gpu=0,
        mem_mb=4000,
        runtime=240,
    params:
        version=recipe.label("mid"),
        settings=shaping("mid"),
    message:
        "Training on chat and on the identity"
    shell:
        TRAIN + " mid --from {input.checkpoint} --tokenizer {input.tokenizer}"
        " --settings "
        + TOLD["mid"]
        + " --out {output.checkpoint} --manifest {output.manifest} --metrics {output.metrics}"
        + SHOWN
