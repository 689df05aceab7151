"""What the providers share that take requests in batches."""

from typing import Any, ClassVar

from imprint.errors import ProviderError
from imprint.providers import Reply, Request
from imprint.providers.chat import Chat
from imprint.providers.troubles import complaint
from imprint.providers.wire import Garbled, Response


class Batched(Chat):
    """A provider that takes many requests at once; it adds `submit` and `poll`."""

    batches: ClassVar[bool] = True

    async def fetch(self, path: str, body: dict[str, Any] | None = None) -> Response:
        """Return what comes of posting ``body``, or of a GET if there is none."""
        return await (self._wire.get(path) if body is None else self._wire.post(path, body))

    def content(self, response: Response) -> dict[str, Any]:
        """Return what a response says; raises as `Provider.answer` does."""
        if 200 <= response.status < 300:
            return response.json()
        try:
            data = response.json()
        except Garbled:
            data = {"message": response.text}
        self.refuse(response.status, complaint(data), response.headers)

    def outcome(self, data: Any, request: Request) -> Reply | ProviderError:
        """Return what ``data`` means: the body of an answer, or an object with an error."""
        try:
            return self.read(data, request)
        except ProviderError as error:
            return error
        except (AttributeError, TypeError):  # no object: one bad line is not to spoil the others
            return self.strange()

    def strange(self) -> Garbled:
        """Return the error for a batch in a shape that nobody expects."""
        return Garbled(f"{self._wire.base_url} tells of a batch in a dialect not its own.")
