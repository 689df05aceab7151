# Decide what each conversation of a shard will be about.
rule plan:
    output:
        plan="results/plan/{shard}.json",
    log:
        "results/logs/plan/{shard}.log",
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        version=recipe.label("plan"),
        identity=WHO,
        seed=SETTINGS.seed,
        start=lambda wildcards: SHARDS[wildcards.shard][0],
        stop=lambda wildcards: SHARDS[wildcards.shard][1],
    message:
        "Planning the conversations of shard {wildcards.shard}"
    script:
        "../workflow/scripts/plan.py"
