# Gather evaluations, manifests and loss curves into one page.
rule report:
    input:
        evaluations=expand("results/eval/{stage}.json", stage=["base", "mid", "sft"]),
        manifests=[
            "results/identity.json",
            *([] if IMPORTED else ["results/corpus/manifest.json"]),
            "results/tokenizer/manifest.json",
            *expand("results/{stage}.json", stage=["base", "mid", "sft"]),
        ],
        metrics=expand("results/metrics/{stage}.jsonl", stage=["base", "mid", "sft"]),
    output:
        page=report("results/report/report.md", caption="../workflow/report/page.rst"),
        suites=report(
            "results/report/suites.svg", caption="../workflow/report/suites.rst"
        ),
        losses=report(
            "results/report/losses.svg", caption="../workflow/report/losses.rst"
        ),
    log:
        "results/logs/report.log",
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=FINGERPRINTS.code("report"),
    message:
        "Writing the report"
    script:
        "../workflow/scripts/report.py"
