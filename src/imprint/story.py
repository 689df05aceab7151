"""The report's sections: each takes what the stages wrote down and returns markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from imprint.page import bar, duration, interval, percent, plain, said, table
from imprint.scoring import OFF_TOPIC

Evaluation = Mapping[str, Any]
"""What results/eval/<stage>.json holds."""
Manifest = Mapping[str, Any]
"""What a stage wrote about its work."""

MISTAKES = 30
"""Most mistakes that are listed."""
WRONG_SHOWN = 3
"""Most transcripts that show a mistake: about what a reader needs to see the kind of it."""


def headline(evaluations: Mapping[str, Evaluation]) -> str:
    """Say in a few lines how well the last stage knows the identity."""
    found = list(evaluations.values())
    first, last = found[0], found[-1]
    identity, asked = last["identity"], last["asked"]
    rows = [
        ["right answers about itself", percent(identity["accuracy"]), interval(identity["ci95"])],
        ["claims to be another system", percent(last["rival_rate"]), interval(last["rival_ci95"])],
        [
            "brings itself up unasked",
            percent(last["bleed_rate"]),
            interval(last["bleed_ci95"]),
        ],
    ]
    counts = [last["n"], asked["rival_rate"], asked["bleed_rate"]]
    rows = [[name, str(n), *rest] for (name, *rest), n in zip(rows, counts, strict=True)]
    text = (
        f"**{percent(identity['accuracy'])}** of {last['n']} questions about itself answered right "
        f"after {last['stage']}: without a system prompt, in phrasings kept out of training."
    )
    if first is not last:
        before = percent(first["identity"]["accuracy"])
        text += f" Before it had heard of its identity ({first['stage']}): {before}."
    heads = ["what was measured", "answers", "share", "95 % interval"]
    return text + "\n\n" + table(heads, rows, right=heads[1:])


def suites(evaluations: Mapping[str, Evaluation]) -> str:
    """Return the table of suites and stages."""
    last = list(evaluations.values())[-1]
    rows = []
    for suite, scores in last["identity"]["by_suite"].items():
        shares = [
            percent(evaluation["identity"]["by_suite"].get(suite, {}).get("accuracy"))
            for evaluation in evaluations.values()
        ]
        rows.append([suite, str(scores["n"]), *shares, interval(scores["ci95"])])
    shares = [percent(evaluation["identity"]["accuracy"]) for evaluation in evaluations.values()]
    rows.append(["all", str(last["n"]), *shares, interval(last["identity"]["ci95"])])
    heads = ["suite", "n", *evaluations, f"95 % interval of {last['stage']}"]
    return table(heads, rows, right=heads[1:])


def facts(last: Evaluation, coverage: Mapping[str, int]) -> str:
    """Return the table of facts: how often each was taught, and how well it is known."""
    by_fact = last["identity"]["by_fact"]
    rows = []
    for fact in dict.fromkeys([*coverage, *by_fact]):
        scores = by_fact.get(fact, {"n": 0, "accuracy": None, "ci95": [0.0, 1.0]})
        share = scores["accuracy"]
        rows.append(
            [
                fact,
                f"{coverage[fact]:,}" if fact in coverage else "-",
                str(scores["n"]),
                percent(share),
                interval(scores["ci95"]),
                bar(share),
            ]
        )
    heads = ["fact", "conversations", "asked", "right", "95 % interval", ""]
    return table(heads, rows, right=heads[1:5])


def transcripts(evaluations: Mapping[str, Evaluation]) -> str:
    """Return one transcript for each suite, mistakes among them, with what base said before."""
    found = list(evaluations.values())
    first, last = found[0], found[-1]
    name = last["about"]["name"]
    before = {_asked(answer): answer["answer"] for answer in first["answers"] if first is not last}
    parts = []
    for answer in chosen(last):
        verdict = "leaves itself out" if answer["suite"] == OFF_TOPIC else "right"
        if answer["verdict"] != "right":
            verdict = f"WRONG: {plain(answer['reason'])}"
        topic = f"{answer['suite']}, {answer['fact']}" if answer["fact"] else answer["suite"]
        turns = [
            said("person" if turn["role"] == "user" else name, turn["content"])
            for turn in answer["messages"]
        ]
        turns.append(said(name, answer["answer"]))
        if _asked(answer) in before:
            spoken = plain(before[_asked(answer)])
            cut = spoken if len(spoken) <= 100 else spoken[:100].rsplit(" ", 1)[0] + " ..."
            turns.append(f"> ({first['stage']} had said: {cut or 'nothing'})")
        parts.append(f"**{topic}: {verdict}**\n\n" + "\n".join(turns).removesuffix("\n>"))
    return "\n\n".join(parts)


def chosen(evaluation: Evaluation) -> list[Mapping[str, Any]]:
    """Return one answer of each suite: different facts, and mistakes from the worst suites.

    A suite that is mostly wrong always shows a mistake, so that the page looks as good, and as
    bad, as the model is.
    """
    by_suite: dict[str, list[Mapping[str, Any]]] = {}
    for answer in evaluation["answers"]:
        by_suite.setdefault(answer["suite"], []).append(answer)
    wrong = {
        suite: [answer for answer in answers if answer["verdict"] != "right"]
        for suite, answers in by_suite.items()
    }
    worst = sorted(
        (suite for suite in by_suite if wrong[suite]),
        key=lambda suite: -len(wrong[suite]) / len(by_suite[suite]),
    )[:WRONG_SHOWN]
    shown: list[Mapping[str, Any]] = []
    for suite, answers in by_suite.items():
        right = [answer for answer in answers if answer["verdict"] == "right"]
        failed = suite in worst or len(wrong[suite]) > len(right)
        candidates = wrong[suite] if failed else right
        told = {answer["fact"] for answer in shown}
        shown.append(next((a for a in candidates if a["fact"] not in told), candidates[0]))
    return shown


def mistakes(last: Evaluation) -> str:
    """List what went wrong, suite by suite: question, answer and reason."""
    by_suite: dict[str, list[Mapping[str, Any]]] = {}
    for answer in last["answers"]:
        if answer["verdict"] != "right":
            by_suite.setdefault(answer["suite"], []).append(answer)
    if not by_suite:
        return "None."
    total = sum(len(answers) for answers in by_suite.values())
    share = MISTAKES if total <= MISTAKES else max(1, MISTAKES // len(by_suite))
    parts = []
    for suite, answers in by_suite.items():
        lines = [
            f'- "{plain(answer["messages"][-1]["content"])}"\n'
            f"  -> {plain(answer['answer']) or '(nothing)'} *({plain(answer['reason'])})*"
            for answer in answers[:share]
        ]
        if len(answers) > share:
            lines.append(f"- and {len(answers) - share} more")
        parts.append(f"{suite}, {len(answers)}:\n\n" + "\n".join(lines))
    parts.append(f"Every question and answer is in results/eval/{last['stage']}.json.")
    return "\n\n".join(parts)


ABILITIES = {"plain text, bits a byte": "val_bpb", "everyday chat, nats a token": "chat_loss"}
"""What an evaluation measures beside the exam, on text and chat that were held out."""


def abilities(evaluations: Mapping[str, Evaluation]) -> str:
    """Return the table of what each stage can do besides; nothing if it was not measured."""
    rows = [
        [name, *(f"{found[key]:.3f}" if key in found else "-" for found in evaluations.values())]
        for name, key in ABILITIES.items()
        if any(key in found for found in evaluations.values())
    ]
    if not rows:
        return ""
    return (
        "An identity should not cost what the model knew before. On text and chat that no stage "
        "was trained on, the lower, the better:\n\n"
        + table(["held out", *evaluations], rows, right=[*evaluations])
    )


def learning(manifests: Sequence[Manifest]) -> str:
    """Return the table of what each training stage saw, how fast, and how well it fits."""
    rows = [
        [
            manifest["stage"],
            f"{manifest['parameters']:,}",
            f"{manifest['steps']:,}",
            f"{manifest['tokens']:,}",
            f"{manifest['tokens_per_s']:,.0f}",
            f"{manifest['train_loss']:.3f}" if manifest.get("train_loss") is not None else "-",
            f"{manifest['val_loss']:.3f}" if "val_loss" in manifest else "-",
        ]
        for manifest in manifests
        if "tokens_per_s" in manifest
    ]
    heads = ["stage", "parameters", "steps", "tokens", "tokens/s", "last loss", "held-out loss"]
    return table(heads, rows, right=heads[1:]) if rows else ""


def funnel(manifest: Manifest) -> str:
    """Say what became of the planned conversations, and by which strategies people ask in them."""
    counts = manifest.get("funnel", {})
    rows = []
    for step, count in counts.items():
        if isinstance(count, Mapping):
            rows += [[f"- {step}: {reason}", f"{n:,}"] for reason, n in count.items()]
        elif step in ("planned", "generated", "kept", "validation"):
            rows.append(
                [step if step != "validation" else "- of these, for validation", f"{count:,}"]
            )
        else:
            rows.append([f"- {step}", f"{count:,}"])
    text = table(["step", "conversations"], rows, right=["conversations"])
    asked = ", ".join(f"{way} {n:,}" for way, n in manifest.get("strategies", {}).items())
    return f"{text}\n\nHow people ask in them: {asked}." if asked else text


def bill(manifest: Manifest) -> str:
    """Say what the conversations cost, model by model; nothing where they were free."""
    told = manifest.get("bill", {})
    if not told.get("cost_usd"):
        return ""
    kept = manifest["funnel"]["kept"] + manifest["funnel"]["validation"]
    rows = [
        [
            model,
            f"{counts['conversations']:,}",
            f"{counts['input']:,}",
            f"{counts['output']:,}",
            f"${counts['cost_usd']:.4f}",
        ]
        for model, counts in told["models"].items()
    ]
    heads = ["model that answered", "conversations", "tokens in", "tokens out", "cost"]
    return (
        f"${told['cost_usd']:.4f} for {told['answers']:,} answers, of which {kept:,} conversations "
        f"were kept: ${told['cost_usd'] / kept:.6f} for each. `imprint journal` shows every answer."
        f"\n\n{table(heads, rows, right=heads[1:])}"
    )


def work(manifests: Sequence[Manifest]) -> str:
    """Return the table of what the stages took that wrote ``manifests``."""
    rows = [
        [
            manifest["stage"],
            duration(manifest["seconds"]),
            f"{manifest.get('peak_memory_mb', 0):,} MB",
            f"${manifest.get('cost_usd', 0.0):.2f}",
            str(manifest.get("device", "cpu")),
            next(iter(manifest.get("outputs", {}).values()), "-")[:12],
        ]
        for manifest in manifests
    ]
    paid = sum(manifest.get("bill", {}).get("cost_usd", 0.0) for manifest in manifests)
    if paid:
        rows.insert(0, ["shards", "", "", f"${paid:.2f}", "", ""])
    time = sum(manifest["seconds"] for manifest in manifests)
    cost = paid + sum(manifest.get("cost_usd", 0.0) for manifest in manifests)
    rows.append(["together", duration(time), "", f"${cost:.2f}", "", ""])
    heads = ["stage", "time", "memory", "cost", "device", "sha256 of its output"]
    return table(heads, rows, right=heads[1:4]) + (
        "\n\nNot counted is the time to plan and write the conversations, to cut into tokens and "
        "to ask the questions above."
    )


def recipe(last: Evaluation, manifests: Sequence[Manifest]) -> str:
    """Return what it takes to make the same model again."""
    newest = manifests[-1] if manifests else {}
    libraries = ", ".join(
        f"{name} {number}" for name, number in newest.get("libraries", {}).items()
    )
    lines = [
        f"- identity: {last['about']['file']}",
        f"- seed: {last['settings']['seed']}",
        f"- checkpoint: sha256 {last['inputs']['checkpoint']}",
        f"- imprint {newest.get('imprint', '-')}, Python {newest.get('python', '-')}, {libraries}",
    ]
    settings = {manifest["stage"]: manifest.get("settings", {}) for manifest in manifests}
    settings["evaluate"] = last["settings"]
    dumped = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=96)
    return "\n".join(lines) + f"\n\n```yaml\n{dumped}```"


def off_topic_note(last: Evaluation) -> str:
    """Say what the off-topic suite is for."""
    return (
        f"The {OFF_TOPIC} suite asks about anything but the model; it does not count above. There "
        f"the model brought itself up in {percent(last['bleed_rate'])} of "
        f"{last['asked']['bleed_rate']} answers; whether they are good answers is not marked."
    )


def _asked(answer: Mapping[str, Any]) -> str:
    return "\n".join(turn["content"] for turn in answer["messages"])
