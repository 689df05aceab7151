"""Training: the loop that base, mid and sft share, and what stands around it."""
