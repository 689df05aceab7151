"""A loopback server that speaks as the APIs of language models do, faults included."""
