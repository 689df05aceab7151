# Cut text and conversations into tokens once, so that no GPU waits for it.
rule tokens:
    input:
        unpack(lambda wildcards: TEXT[wildcards.store]),
        tokenizer="results/tokenizer/tokenizer.json",
    output:
        index="results/tokens/{store}.json",
        manifest="results/tokens/{store}.manifest.json",
    log:
        "results/logs/tokens/{store}.log",
    wildcard_constraints:
        store="|".join(TEXT),
    priority: 1  # a chat that cannot be downloaded shows before days of training, not after
    resources:
        mem_mb=4000,
        runtime=1440,
    params:
        version=recipe.label("tokens"),
        settings=lambda wildcards: json.dumps(CHATS.get(wildcards.store, {})),
    message:
        "Cutting into tokens: {wildcards.store}"
    shell:
        "python workflow/scripts/tokens.py {wildcards.store} --text {input.text:q}"
        " --tokenizer {input.tokenizer}"
        " --settings {params.settings:q} --out {output.index} --manifest {output.manifest}"
        + SHOWN
