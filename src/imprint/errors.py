"""Errors the user can act on.

ImprintError
    ConfigError          a value in config/ is wrong
        IdentityError    a value in an identity file is wrong
    RecordError          a line of a .jsonl file is wrong
    ArtifactError        a file under results/ is missing, damaged or does not belong here
    StorageError         the disk is full or may not be written
    ProviderError        the provider refused, or something about it makes going on pointless
        ProviderBusy     it may work if asked again later
        AnswerLost       it may have answered, but nothing arrived

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
    """The provider refused, or something about it makes going on pointless."""


class ProviderBusy(ProviderError):
    """The provider did not answer, but may if asked again later."""

    def __init__(self, message: str, *, wait_s: float | None = None, limit: bool = False) -> None:
        """Say what the provider said.

        Args:
            message: For people.
            wait_s: Seconds after which the provider wants to be asked again.
            limit: Whether a rate limit was hit, which other requests would hit as well.
        """
        super().__init__(message)
        self.wait_s, self.limit = wait_s, limit


class AnswerLost(ProviderError):
    """The provider may have answered, and may want money for it, but nothing arrived."""
