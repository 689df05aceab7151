"""Bake an identity into a language model's weights, and prove that it took."""

__version__ = "0.1.0"
