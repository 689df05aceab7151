# What conversations will cost is told, and refused if the budget will not last, before any job.
onstart:
    announce(
        job.wildcards.shard
        for job in workflow.dag.needrun_jobs()
        if job.rule.name == "shards"
    )


# Have a provider write the conversations of a shard.
rule shards:
    input:
        plan="results/plan/{shard}.json",
    output:
        jsonl=ensure("results/shards/{shard}.jsonl", non_empty=True),
        manifest="results/shards/{shard}.json",
    log:
        "results/logs/shards/{shard}.log",
    resources:
        mem_mb=1000,
        runtime=60,
    params:
        version=recipe.label("shards"),
        settings=shaping("shards"),
    message:
        "Writing the conversations of shard {wildcards.shard}"
    shell:
        "python workflow/scripts/shards.py --plan {input.plan} --out {output.jsonl}"
        f" --journal {JOURNAL} --log {{log}} --settings {PROVISION}"
