# Write the trained model as a Hugging Face folder. Not part of `all`: make export.
rule export:
    input:
        checkpoint="results/sft.pt",
        tokenizer="results/tokenizer/tokenizer.json",
        evaluation="results/eval/sft.json",
        manifests=[
            "results/identity.json",
            *([] if IMPORTED else ["results/corpus/manifest.json"]),
            *(
                f"results/tokens/{stage}.manifest.json"
                for stage, told in CHATS.items()
                if told["chat"]
            ),
            *expand("results/{stage}.json", stage=["base", "mid", "sft"]),
        ],
    output:
        "results/export/README.md",
        "results/export/chat_template.jinja",
        "results/export/config.json",
        "results/export/generation_config.json",
        "results/export/model.safetensors",
        "results/export/tokenizer.json",
        "results/export/tokenizer_config.json",
        manifest="results/export/manifest.json",
    log:
        "results/logs/export.log",
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        code=FINGERPRINTS.code("export"),
        identity=WHO,
    message:
        "Writing a folder for transformers"
    script:
        "../workflow/scripts/export.py"
