"""A trained model for others: the files that transformers reads, and the page that describes it."""
