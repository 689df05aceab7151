"""Write the trained model as a Hugging Face folder, with a page that says who it is."""

import logging
from pathlib import Path

from imprint import artifacts, checkpoint
from imprint.artifacts import digest, sha256
from imprint.errors import ArtifactError
from imprint.export import card, folder
from imprint.identity import load
from imprint.imports.huggingface import WEIGHTS
from imprint.shape import ModelConfig
from imprint.tokenizer import Tokenizer

VERSION = 1

logger = logging.getLogger("imprint")


def run(
    *,
    trained: Path,
    tokenizer: Path,
    identity: Path,
    evaluation: Path,
    manifests: list[Path],
    out: Path,
) -> None:
    """Write the folder that holds the manifest ``out``, complete or not at all.

    Equal inputs give equal bytes, but for the times in the manifest. The folder is replaced as a
    whole.

    Args:
        trained: The checkpoint.
        tokenizer: The tokenizer it was trained with.
        identity: Who the model is.
        evaluation: What it knows about itself, results/eval/<stage>.json.
        manifests: Those of the stages that it was made by, in their order.
        out: The manifest; its folder is the export.

    Raises:
        ArtifactError: A file is missing or damaged, or they do not belong together.
        IdentityError: The identity file is wrong.
        StorageError: The disk is full, or the folder may not be written.
    """
    watch = artifacts.Stopwatch()
    words = Tokenizer.load(tokenizer)
    model = checkpoint.load(trained, tokenizer=words.digest)
    shape = ModelConfig(**model.config)
    whom = load(identity)
    judged = artifacts.read_json(evaluation)
    told = [artifacts.read_json(path) for path in manifests]
    hashes = {"checkpoint": sha256(trained), "identity": digest(whom.model_dump())}
    for name, path in (("checkpoint", trained), ("identity", identity)):
        if judged["inputs"][name] != hashes[name]:
            raise ArtifactError(
                f"{evaluation}: was not made with {path} as it is now. Run `make identity`."
            )
    target = out.parent
    with folder.replaced(target) as new:
        folder.weights(new / WEIGHTS, model.weights)
        folder.write(new / "config.json", folder.config(shape, words))
        folder.write(new / "generation_config.json", folder.generation(shape, words))
        folder.write(new / "tokenizer.json", folder.tokenizer(tokenizer))
        folder.write(new / "tokenizer_config.json", folder.tokenizer_config(shape))
        folder.write(new / "chat_template.jinja", folder.TEMPLATE)
        known = {path.name: sha256(path) for path in sorted(new.iterdir())}
        page = card.page(whom, judged, told, shape=shape, files=known)
        folder.write(new / card.NAME, page)
        known[card.NAME] = sha256(new / card.NAME)
        artifacts.write_manifest(
            new / out.name,
            stage="export",
            version=VERSION,
            outputs=[target / name for name in known],
            known={target / name: found for name, found in known.items()},
            inputs=[trained, tokenizer, evaluation, *manifests],
            settings={},
            seed=model.seed,
            watch=watch,
            identity=hashes["identity"],  # by meaning: a comment there changes nothing here
        )
    logger.info("%s: %s weights and %d files", target, f"{shape.n_parameters:,}", len(known))
