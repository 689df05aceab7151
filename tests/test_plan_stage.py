import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from dataset_kit import Dataset, write_identity
from imprint.errors import ArtifactError, IdentityError
from imprint.stages import plan

PINNED = "640fdab7d46ec4dd610b42a082728775f8f3dcfa5395be82fe797e870d50772f"


def make(tmp_path: Path, start: int = 0, stop: int = 30) -> Path:
    out = tmp_path / f"{start}-{stop}.json"
    who = write_identity(tmp_path / "identity.yaml")
    plan.run(identity=who, shard="0000", start=start, stop=stop, seed=1, out=out)
    return out


@pytest.mark.parametrize(
    ("count", "size", "ends"),
    [
        (1, 50, [(0, 1)]),
        (50, 50, [(0, 50)]),
        (51, 50, [(0, 50), (50, 51)]),
        (2, 1, [(0, 1), (1, 2)]),
    ],
)
def test_slices_cover_every_conversation_once(
    count: int, size: int, ends: list[tuple[int, int]]
) -> None:
    found = list(plan.slices(count, size))
    assert [(start, stop) for _, start, stop in found] == ends
    assert [name for name, _, _ in found] == [f"{number:04d}" for number in range(len(ends))]


def test_shard_names_sort_as_numbers_up_to_ten_thousand_shards() -> None:
    names = [name for name, _, _ in plan.slices(10_000, 1)]
    assert names == sorted(names)
    assert len(set(names)) == 10_000


def test_importing_the_stage_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'numpy', 'tokenizers'}"
    code = f"import sys, imprint.stages.plan; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_plan_file_reads_back_as_it_was_planned(tmp_path: Path) -> None:
    from imprint import identity
    from imprint.plan import rows

    found = plan.read(make(tmp_path, 10, 30))
    who = identity.load(tmp_path / "identity.yaml")
    assert found.identity == who
    assert found.rows == rows(who, seed=1, start=10, stop=30)
    assert (found.shard, found.seed) == ("0000", 1)


def test_a_plan_file_has_one_row_a_line(tmp_path: Path) -> None:
    lines = make(tmp_path).read_text().splitlines()
    rows = [line for line in lines if line.startswith('{"index"')]
    assert len(rows) == 30
    assert json.loads(rows[4].rstrip(","))["index"] == 4


def test_planning_more_changes_no_earlier_slice(tmp_path: Path) -> None:
    few = Dataset(tmp_path / "few").plan(40)
    more = Dataset(tmp_path / "more").plan(100)
    assert [path.read_bytes() for path in more.plans[:2]] == [
        path.read_bytes() for path in few.plans
    ]


def test_a_comment_in_the_identity_file_changes_no_plan(tmp_path: Path) -> None:
    before = make(tmp_path).read_bytes()
    path = tmp_path / "identity.yaml"
    path.write_text("# A remark.\n" + path.read_text())
    out = tmp_path / "again.json"
    plan.run(identity=path, shard="0000", start=0, stop=30, seed=1, out=out)
    assert out.read_bytes() == before


def test_a_wrong_identity_leaves_no_plan(tmp_path: Path) -> None:
    path = tmp_path / "identity.yaml"
    path.write_text("name: Tock\n")
    with pytest.raises(IdentityError):
        plan.run(identity=path, shard="0000", start=0, stop=3, seed=1, out=tmp_path / "p.json")
    assert [found.name for found in tmp_path.iterdir()] == ["identity.yaml"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.pop("identity"),
        lambda data: data["rows"][3].pop("strategy"),
        lambda data: data["rows"][3].update(colour="red"),
        lambda data: data["rows"][3].update(facts=["part 99"]),
        lambda data: data["identity"].pop("name"),
    ],
)
def test_a_damaged_plan_is_named_with_the_remedy(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    path = make(tmp_path)
    data = json.loads(path.read_text())
    damage(data)
    path.write_text(json.dumps(data))
    with pytest.raises(ArtifactError, match=r"0-30\.json: .*[Dd]elete .* and run again"):
        plan.read(path)


def test_the_plan_is_what_it_was_in_this_version(tmp_path: Path) -> None:
    found = hashlib.sha256(make(tmp_path).read_bytes()).hexdigest()
    assert found == PINNED, (
        "The plan of the same identity and seed has changed, so every shard is paid for again. If "
        f'that is meant, raise VERSION in stages/plan.py and set PINNED = "{found}" in this test.'
    )
