"""One module per stage, of the same stem as its rule file: paths in, files out."""
