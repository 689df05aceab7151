import re
from pathlib import Path

import yaml

from imprint import settings
from imprint.imports import huggingface, nanochat

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "import.md").read_text(encoding="utf-8")


def test_the_configuration_on_the_page_is_one() -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    identity = "config/identities/smarternano.yaml"
    made = settings.resolve({"identity": identity, **yaml.safe_load(shown)}, root=ROOT)
    assert (made.model.depth, made.base.start) == (20, "~/.cache/nanochat")


def test_the_page_names_what_is_read_and_what_is_refused() -> None:
    for name in (*huggingface.FIXED, *nanochat.TOKENIZERS, huggingface.WEIGHTS, huggingface.INDEX):
        assert f"`{name}`" in PAGE
