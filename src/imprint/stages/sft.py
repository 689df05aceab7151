"""Train the model on conversations once more, down to the lowest rates."""

from functools import partial

from imprint.training.stage import tune

VERSION = 3

run = partial(tune, stage="sft", version=VERSION, from_end=True)
