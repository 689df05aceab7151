"""What the model trains on: token ids on disk, and batches of them."""
