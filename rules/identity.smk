# Merge the shards into one checked dataset without duplicates or exam questions.
rule identity:
    input:
        plans=expand("results/plan/{shard}.json", shard=SHARDS),
        shards=expand("results/shards/{shard}.jsonl", shard=SHARDS),
    output:
        train="results/identity.jsonl",
        validation="results/identity.val.jsonl",
        manifest="results/identity.json",
    log:
        "results/logs/identity.log",
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        version=recipe.label("identity"),
        settings=recipe.settings("identity", SETTINGS),
    message:
        "Merging the conversations into one dataset"
    script:
        "../workflow/scripts/identity.py"
