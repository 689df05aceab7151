"""Train the model on conversations once more, down to the lowest rates."""

from functools import partial

from imprint.training.tuning import tune

VERSION = 6

run = partial(tune, stage="sft", version=VERSION, from_end=True)
