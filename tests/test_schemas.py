"""The generated files are in step with the models, and every YAML with its schema."""

from pathlib import Path

import jsonschema
import pytest
import yaml

from imprint import identity, scale, schemas, settings, yamlfile

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("path", sorted(schemas.generated(ROOT)), ids=lambda path: path.name)
def test_generated_files_are_in_step(path: Path) -> None:
    wanted = schemas.generated(ROOT)[path]
    assert path.read_text(encoding="utf-8") == wanted, "out of step; run: make schemas"


@pytest.mark.parametrize("path", sorted((ROOT / "config").rglob("*.yaml")), ids=lambda p: p.name)
def test_every_yaml_passes_model_and_schema(path: Path) -> None:
    kind = {"identities": "identity", "scales": "scale"}.get(path.parent.name, "config")
    data, lines = yamlfile.load(path)
    if kind == "identity":
        identity.load(path)
    elif kind == "scale":
        yamlfile.validated(scale.Scale, data, path=path, lines=lines)
    else:
        config, _ = yamlfile.load(ROOT / "config" / "config.yaml")
        data = settings.merged(config, data)
        settings.resolve(data, root=ROOT)
    schema = ROOT / "workflow" / "schemas" / f"{kind}.schema.yaml"
    jsonschema.validate(data, yaml.safe_load(schema.read_text(encoding="utf-8")))


def test_every_key_has_a_meaning() -> None:
    rows = [line for line in schemas.tables().splitlines() if line.startswith("| `")]
    assert len(rows) > 50
    for row in rows:
        assert row.split("|")[4].strip() not in ("", "None"), row


def test_the_keys_of_the_configuration_are_a_decision() -> None:
    found = {line.split("`")[1] for line in schemas.tables().splitlines() if line[:3] == "| `"}
    top = {key for key in settings.Settings.model_fields}
    assert top == {
        *("identity", "identity_stages", "scale", "seed", "provider", "provider_model"),
        *("conversations", "shard_size", "validation", "near_duplicate", "evaluation"),
        *("model", "corpus", "base", "mid", "sft"),
        *("base_url", "budget_usd", "price", "in_flight", "attempts", "timeout_s", "batch"),
        *("strict_model", "acknowledge_terms", "distillable", "upstream"),
        *("watch", "gpu_usd_per_hour"),
    }
    assert top <= found
