"""Train the base model on conversations: what an answer is, and who it is.

Of a fraction of a pass over the identity, this stage takes the rows from the start of a seeded
order and sft those from its end: half a pass in each is every row once.
"""

from functools import partial

from imprint.training.tuning import tune

VERSION = 6

run = partial(tune, stage="mid", version=VERSION, from_end=False)
