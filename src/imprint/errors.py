"""Errors the user can act on.

ImprintError
    ConfigError          a value in config/ is wrong
        IdentityError    a value in an identity file is wrong
    RecordError          a line of a .jsonl file is wrong
    ArtifactError        a file under results/ is missing, damaged or does not belong here
    StorageError         the disk is full or may not be written
    ProviderError        the provider refused or answered nonsense
        ProviderBusy     it may work if asked again later

A message says where, what, and what to do next, in that order.
"""


class ImprintError(Exception):
    """Base of every error whose message is meant for the user."""


class ConfigError(ImprintError):
    """A value in the configuration is wrong."""


class IdentityError(ConfigError):
    """A value in an identity file is wrong."""


class RecordError(ImprintError):
    """A line of a .jsonl file is wrong."""


class ArtifactError(ImprintError):
    """A file under results/ is missing, damaged or does not belong here."""


class StorageError(ImprintError):
    """The disk is full or may not be written."""


class ProviderError(ImprintError):
    """The provider refused or answered nonsense."""


class ProviderBusy(ProviderError):
    """The provider may answer if asked again later."""
