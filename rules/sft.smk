# Fine-tune the mid-trained model on the identity.
rule sft:
    input:
        **TRAINED_ON["sft"],
        checkpoint="results/mid.pt",
        tokenizer="results/tokenizer/tokenizer.json",
    output:
        checkpoint="results/sft.pt",
        manifest="results/sft.json",
        metrics="results/metrics/sft.jsonl",
    log:
        "results/logs/sft.log",
    threads: 2
    resources:
        gpu=0,
        mem_mb=4000,
        runtime=240,
    params:
        version=recipe.label("sft"),
        settings=shaping("sft"),
    message:
        "Fine-tuning on the identity"
    shell:
        TRAIN + " sft --from {input.checkpoint} --tokenizer {input.tokenizer}"
        " --settings "
        + TOLD["sft"]
        + " --out {output.checkpoint} --manifest {output.manifest} --metrics {output.metrics}"
        + SHOWN
