"""Check results against the hashes in their manifests, and against the configuration."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imprint import recipe
from imprint.artifacts import digest, sha256
from imprint.errors import ArtifactError
from imprint.forecast import MANIFESTS
from imprint.settings import Settings
from imprint.stages import plan as planning


@dataclass(frozen=True)
class Manifest:
    """What a stage wrote about what it made."""

    path: Path
    stage: str
    version: int | str
    settings: dict[str, Any]
    outputs: dict[str, str]
    """sha256 by path."""
    inputs: dict[str, str]
    """sha256 by path."""

    @property
    def name(self) -> str:
        """The stage; of tokens, with the store."""
        store = self.settings.get("store")
        return f"{self.stage}/{store}" if store else self.stage


def manifests(results: Path) -> Iterator[Manifest]:
    """Yield every manifest under ``results``, in the order of the stages.

    Raises:
        ArtifactError: One is damaged.
    """
    for pattern in MANIFESTS.values():
        for path in sorted(results.glob(pattern)):
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
                yield Manifest(
                    path=path,
                    stage=found["stage"],
                    version=found["version"],
                    settings={"seed": found["seed"], **found["settings"]},
                    outputs=found["outputs"],
                    inputs=found["inputs"],
                )
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise ArtifactError(
                    f"{path}: not a manifest ({error!r}). Delete it and run `make identity`."
                ) from error


PIECES = ("corpus", "tokens")
"""Stages whose first output is an index, of pieces that no rule declares."""


def elsewhere(manifest: Manifest) -> list[str]:
    """Return the pieces of an index that stayed on the machine that made them; often none."""
    if manifest.stage not in PIECES:
        return []
    index, *pieces = manifest.outputs
    left = Path(index).is_file() and not any(Path(piece).exists() for piece in pieces)
    return pieces if left else []


def differences(manifest: Manifest) -> list[str]:
    """Return which files are not what ``manifest`` says, a sentence each."""
    found = []
    away = elsewhere(manifest)
    for kind, files in (("made", manifest.outputs), ("read", manifest.inputs)):
        for name, expected in files.items():
            path = Path(name)
            if name in away:
                continue
            if not path.is_file():
                found.append(f"{path}: missing; by {manifest.path}, {manifest.stage} {kind} it")
            elif _sha256(path) != expected:
                found.append(f"{path}: not what, by {manifest.path}, {manifest.stage} {kind}")
    return found


_known: dict[tuple[Path, int, int], str] = {}


def _sha256(path: Path) -> str:
    """Return the sha256 of ``path``; a file in several manifests is read once."""
    state = path.stat()
    key = (path, state.st_mtime_ns, state.st_size)
    if key not in _known:
        _known[key] = sha256(path)
    return _known[key]


def outdated(manifest: Manifest, settings: Settings) -> list[str]:
    """Return in which settings or version ``manifest`` is not what ``settings`` ask for."""
    stage = manifest.stage
    found = []
    wanted_settings = recipe.settings(stage, settings)
    if manifest.settings.get("store") in ("mid", "sft"):
        wanted_settings = recipe.chats(manifest.settings["store"], settings)
    if manifest.version != recipe.version(stage):
        found.append(f"{stage}: made by version {manifest.version}, now {recipe.version(stage)}")
    for key, wanted in wanted_settings.items():
        if key in manifest.settings and wanted is not None and manifest.settings[key] != wanted:
            found.append(f"{stage}: made with {key} {manifest.settings[key]}, now {wanted}")
    return found


def foreign_plans(results: Path, settings: Settings, who: str) -> list[str]:
    """Return which plan files are not for the identity and the settings of now.

    Args:
        results: Folder of the results.
        settings: The settings of now.
        who: Digest of the identity of now.
    """
    found = []
    for shard, (start, stop) in recipe.shards(settings).items():
        path = results / "plan" / f"{shard}.json"
        if not path.is_file():
            found.append(f"{path}: missing")
            continue
        task = planning.read(path)
        if digest(task.identity.model_dump()) != who:
            found.append(f"{path}: made for another identity")
        elif task.seed != settings.seed or [row.index for row in task.rows] != [
            *range(start, stop)
        ]:
            found.append(f"{path}: made with another seed or number of conversations")
    return found


def verdict(results: Path, settings: Settings, who: str) -> dict[str, list[str]]:
    """Return, stage by stage, what speaks against taking its results as they are.

    Nothing does where the hashes of its files are those in its manifest, its settings and version
    are those of now, and the same holds for all that it was made from.

    Args:
        results: Folder of the results.
        settings: The settings of now.
        who: Digest of the identity of now.
    """
    upstream = recipe.upstream(settings)
    faults: dict[str, list[str]] = {stage: [] for stage in upstream}
    faults["plan"] = foreign_plans(results, settings, who)
    seen = set()
    for manifest in manifests(results):
        seen.add(manifest.name)
        if manifest.name in faults:  # not what an earlier configuration has left behind
            faults[manifest.name] += [*differences(manifest), *outdated(manifest, settings)]
    for stage in upstream:
        name, _, store = stage.partition("/")
        if stage not in seen and name in MANIFESTS:
            path = results / MANIFESTS[name].replace("*", store or "*")
            faults[stage].append(f"{path}: missing")
    faults["evaluate"] = foreign_evaluations(results, settings)
    if not (results / "report" / "report.md").is_file():
        faults["report"].append(f"{results / 'report' / 'report.md'}: missing")
    for stage, above in upstream.items():
        faults[stage] += [f"made from {name}" for name in above if faults[name]]
    return faults


def foreign_evaluations(results: Path, settings: Settings) -> list[str]:
    """Return which evaluations are missing, or are of another checkpoint or test."""
    found = []
    wanted = recipe.settings("evaluate", settings)
    for stage in ("base", "mid", "sft"):
        path = results / "eval" / f"{stage}.json"
        checkpoint = results / f"{stage}.pt"
        if not (path.is_file() and checkpoint.is_file()):
            found.append(f"{path}: missing")
            continue
        told = json.loads(path.read_text(encoding="utf-8"))
        if told.get("inputs", {}).get("checkpoint") != _sha256(checkpoint):
            found.append(f"{path}: of another checkpoint than {checkpoint}")
        elif {"seed": told.get("seed"), **told.get("settings", {})} != wanted:
            found.append(f"{path}: made with other settings")
    return found


def targets(results: Path, stages: list[str], settings: Settings) -> list[Path]:
    """Return the files that Snakemake has to take for finished so that ``stages`` are."""
    files = {
        "plan": [results / "plan" / f"{shard}.json" for shard in recipe.shards(settings)],
        "shards": [results / "shards" / f"{shard}.jsonl" for shard in recipe.shards(settings)],
        "identity": [results / "identity.jsonl"],
        "corpus": [results / "corpus" / "index.json"],
        **{f"tokens/{name}": [results / "tokens" / f"{name}.json"] for name in recipe.STORES},
        "tokenizer": [results / "tokenizer" / "tokenizer.json"],
        "evaluate": [results / "eval" / f"{stage}.json" for stage in ("base", "mid", "sft")],
        "report": [results / "report" / "report.md"],
        **{stage: [results / f"{stage}.pt"] for stage in ("base", "mid", "sft")},
    }
    return [path for stage in stages for path in files[stage]]
