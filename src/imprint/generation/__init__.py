"""From a plan to conversations: asked many at a time, each answer kept, within a budget.

`dispatch` sends the requests and decides what follows from each answer; `pacing` says how many may
be under way, and `probing` asks the first question. `batching` does the same in batches, which
`batchbook` remembers. `journal` (stored by `storage`) keeps every answer and the money; `prices`
says what things cost; `live` shows how far the work is. Whom to ask is not decided here
(`imprint.providers`), nor what may be trained on (`imprint.door`).
"""

from pathlib import Path

JOURNAL = Path("results/journal/journal.sqlite")
"""Where the journal is."""
