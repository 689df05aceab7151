"""What an edit rebuilds, and what it leaves alone: real Snakemake on a small configuration."""

import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from imprint import recipe
from workflow_kit import Project, copy_of

pytestmark = pytest.mark.workflow

NOTHING: set[str] = set()
AFTER_IDENTITY = {"identity", "tokens", "mid", "sft", "evaluate", "report"}
AFTER_SHARDS = {"shards", *AFTER_IDENTITY}
AFTER_PLAN = {"plan", *AFTER_SHARDS}
AFTER_SFT = {"sft", "evaluate", "report"}
AFTER_MID = {"mid", *AFTER_SFT}
AFTER_BASE = {"base", *AFTER_MID}
AFTER_TOKENS = {"tokens", *AFTER_BASE}
AFTER_TOKENIZER = {"tokenizer", *AFTER_TOKENS}
AFTER_CORPUS = {"corpus", *AFTER_TOKENIZER}

FACT = """
  - id: favorite test
    statement: My favorite test is the one that fails for a reason.
    expect: [[fails for a reason]]
"""


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A finished run, to edit."""
    return copy_of(finished, tmp_path / "project")


def rules(project: Project, *options: str, config: Sequence[str] = ()) -> set[str]:
    """Return which rules would run."""
    return set(project.would_run(*options, config=config))


def add_fact(project: Project) -> None:
    project.edit("config/identities/smarternano.yaml", "\nfacts:\n", f"\nfacts:{FACT}")


def every_file(project: Project) -> list[Path]:
    return [path for path in project.root.rglob("*") if path.is_file()]


def test_a_finished_run_has_nothing_to_do(project: Project) -> None:
    assert rules(project) == NOTHING


def test_comments_and_docstrings_rebuild_nothing(project: Project) -> None:
    for path in (project.root / "src" / "imprint").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace('"""', '"""Reworded. ', 1) + "\n# A remark.\n")
    assert rules(project) == NOTHING


def test_a_rename_in_a_paid_stage_rebuilds_nothing(project: Project) -> None:
    for stage in recipe.STAGES[:-2]:  # all but evaluate and report, whose code counts
        path = project.root / "src" / "imprint" / "stages" / f"{stage}.py"
        path.write_text(path.read_text(encoding="utf-8") + "\n\ndef renamed() -> None:\n    pass\n")
    assert rules(project) == NOTHING


def test_other_code_of_a_cheap_stage_rebuilds_it(project: Project) -> None:
    path = project.root / "src" / "imprint" / "stages" / "report.py"
    path.write_text(path.read_text(encoding="utf-8") + "\nMORE = 1\n")
    assert rules(project) == {"report"}
    path = project.root / "src" / "imprint" / "scoring.py"
    path.write_text(path.read_text(encoding="utf-8") + "\nMORE = 1\n")
    assert project.would_run() == Counter(evaluate=3, report=1)


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("plan", AFTER_PLAN),
        ("shards", AFTER_SHARDS),
        ("identity", AFTER_IDENTITY),
        ("corpus", AFTER_CORPUS),
        ("tokenizer", AFTER_TOKENIZER),
        ("tokens", AFTER_TOKENS),
        ("base", AFTER_BASE),
        ("mid", AFTER_MID),
        ("sft", AFTER_SFT),
    ],
)
def test_a_raised_version_rebuilds_from_its_stage_on(
    project: Project, stage: str, expected: set[str]
) -> None:
    path = project.root / "src" / "imprint" / "stages" / f"{stage}.py"
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"(?m)^VERSION = \d+$", "VERSION = 99", text))
    assert rules(project) == expected


def test_touching_every_file_rebuilds_nothing(project: Project) -> None:
    now = time.time()
    for number, path in enumerate(sorted(every_file(project), reverse=True)):
        os.utime(path, (now + number, now + number))
    assert rules(project) == NOTHING


def test_results_copied_with_the_metadata_but_without_dates_rebuild_nothing(
    project: Project, tmp_path: Path
) -> None:
    clone = copy_of(project, tmp_path / "clone")
    for part in ("results", ".snakemake"):
        shutil.rmtree(clone.root / part)
        shutil.copytree(project.root / part, clone.root / part, copy_function=shutil.copyfile)
    for path in clone.results.rglob("*"):  # oldest last: the worst order
        os.utime(path, (time.time(), 2e9 - path.stat().st_mtime))
    assert rules(clone) == NOTHING


def test_results_alone_are_adopted_after_a_check_and_then_watched(project: Project) -> None:
    shutil.rmtree(project.root / ".snakemake")
    for path in project.results.rglob("*"):
        os.utime(path, (time.time(), 2e9 - path.stat().st_mtime))
    assert "sft" in rules(project)
    done = project.imprint("adopt", "--cores", "2", "--configfile", "config/test.yaml")
    assert done.returncode == 0, done.stderr
    assert "To be built" not in done.stdout
    assert rules(project) == NOTHING
    project.edit("config/test.yaml", "\nsft:\n", "\nsft:\n  matrix_lr: 0.011\n")
    assert rules(project) == AFTER_SFT


def test_adopting_leaves_out_what_was_damaged_or_made_with_other_settings(
    project: Project,
) -> None:
    shutil.rmtree(project.root / ".snakemake")
    with (project.results / "identity.jsonl").open("a") as file:
        file.write("[]\n")
    project.edit("config/test.yaml", "vocabulary: 512", "vocabulary: 500")
    done = project.imprint("adopt", "--cores", "2", "--configfile", "config/test.yaml")
    assert done.returncode == 0, done.stderr
    assert "Taken as built: plan, shards, corpus.\n" in done.stdout
    assert "To be built: tokenizer (tokenizer: made with vocabulary 512, now 500)" in done.stdout
    assert rules(project) == AFTER_TOKENIZER | AFTER_IDENTITY


def test_shards_made_again_to_the_same_bytes_rebuild_nothing_downstream(project: Project) -> None:
    before = (project.results / "shards" / "0001.jsonl").read_bytes()
    told = (project.results / "identity.json").read_bytes()
    done = project.snakemake("data", "--forcerun", "shards")
    assert "done   Writing the conversations of shard 0001" in done.stderr
    assert (project.results / "shards" / "0001.jsonl").read_bytes() == before
    # The report tells how long merging took, which may by chance be as long as before.
    again = (project.results / "identity.json").read_bytes()
    assert rules(project) == ({"report"} if again != told else set())


def test_a_new_fact_rebuilds_data_mid_and_sft_but_no_pretraining(project: Project) -> None:
    add_fact(project)
    assert project.would_run() == Counter(
        plan=3, shards=3, identity=1, tokens=1, mid=1, sft=1, evaluate=3, report=1
    )


def test_a_new_fact_spares_mid_where_only_sft_sees_the_identity(project: Project) -> None:
    project.edit("config/test.yaml", "\nmid:\n", "\nidentity_stages: [sft]\nmid:\n")
    assert project.snakemake("--touch", "--forceall").returncode == 0
    add_fact(project)
    assert rules(project) == AFTER_PLAN - {"mid"}


def test_the_wording_around_an_identity_rebuilds_nothing(project: Project) -> None:
    path = project.root / "config" / "identities" / "smarternano.yaml"
    turned = dict(reversed(yaml.safe_load(path.read_text(encoding="utf-8")).items()))
    other = path.with_name("renamed.yaml")
    other.write_text("# Another order.\n" + yaml.safe_dump(turned, sort_keys=False))
    assert rules(project, config=["identity=config/identities/renamed.yaml"]) == NOTHING


def test_more_conversations_make_only_the_new_shards(project: Project) -> None:
    found = project.would_run(config=["conversations=100"])
    assert found == Counter(
        plan=2, shards=2, identity=1, tokens=1, mid=1, sft=1, evaluate=2, report=1
    )


def test_a_shard_that_was_not_full_is_made_again(project: Project) -> None:
    found = project.would_run(config=["conversations=50"])
    assert (found["plan"], found["shards"], found["identity"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("\nsft:\n", "\nsft:\n  matrix_lr: 0.011\n", AFTER_SFT),
        ("\nmid:\n", "\nmid:\n  matrix_lr: 0.011\n", AFTER_MID),
        ("\nmid:\n", "\nmid:\n  checkpoint_minutes: 3\n", NOTHING),
        ("\nmid:\n", "\nwatch: {spike: 3}\ngpu_usd_per_hour: 4\nmid:\n", NOTHING),
        ("modest: 20", "modest: 21", {"tokens", *AFTER_MID}),
        ("modest: 10", "modest: 11", {"tokens", *AFTER_SFT}),
        ("tokens: 4096", "tokens: 5000", AFTER_BASE),
        ("depth: 1", "depth: 2", AFTER_BASE),
        ("vocabulary: 512", "vocabulary: 500", AFTER_TOKENIZER),
        ("characters: 30000", "characters: 31000", AFTER_CORPUS),
        ("answer_tokens: 8", "answer_tokens: 9", {"evaluate", "report"}),
        ("conversations: 60", "provider_model: other\nconversations: 60", AFTER_SHARDS),
        ("conversations: 60", "seed: 7\nconversations: 60", AFTER_PLAN | AFTER_CORPUS),
    ],
)
def test_a_setting_rebuilds_what_it_shapes(
    project: Project, old: str, new: str, expected: set[str]
) -> None:
    project.edit("config/test.yaml", old, new)
    assert rules(project) == expected


def test_another_version_of_the_provider_rebuilds_the_shards(project: Project) -> None:
    path = "src/imprint/providers/template.py"
    text = (project.root / path).read_text(encoding="utf-8")
    (project.root / path).write_text(
        re.sub(r"(version: ClassVar\[int\]) = \d+", r"\1 = 99", text), encoding="utf-8"
    )
    assert rules(project) == AFTER_SHARDS


def test_where_jobs_run_rebuilds_nothing(project: Project) -> None:
    plugin = project.root / "src" / "foreign-1.0.dist-info"
    plugin.mkdir()
    (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
    (plugin / "entry_points.txt").write_text("[imprint.providers]\nforeign = foreign:Foreign\n")
    assert "foreign" in project.imprint("providers").stderr + project.imprint("providers").stdout
    assert rules(project, "--set-resources", "sft:mem_mb=9000") == NOTHING
    assert rules(project, "--cores", "4") == NOTHING
    shutil.copytree(project.root / "profiles" / "default", project.root / "profiles" / "other")
    with (project.root / "profiles" / "other" / "config.yaml").open("a") as file:
        file.write("keep-going: true\nset-resources:\n  sft:\n    gpu: 8\n")
    assert rules(project, "--workflow-profile", "profiles/other") == NOTHING


def test_without_any_profile_contents_and_params_still_decide(project: Project) -> None:
    bare = ("--workflow-profile", "none", "--logger", "imprint")
    assert rules(project, *bare) == NOTHING
    project.edit("config/test.yaml", "\nsft:\n", "\nsft:\n  matrix_lr: 0.011\n")
    assert rules(project, *bare) == AFTER_SFT
