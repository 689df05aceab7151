"""What clients of OpenAI's chat API send and get: checked requests, and the objects of answers."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from imprint.records import Conversation


class Refused(Exception):
    """A request that gets an error object instead of an answer."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Say what is wrong; the arguments are the fields of OpenAI's error object."""
        super().__init__(message)
        self.status, self.headers = status, headers
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


class Part(BaseModel):
    """Base of everything in a request; what is not known is ignored, as OpenAI's servers do."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class TextPart(Part):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class Message(Part):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None

    @field_validator("content")
    @classmethod
    def _says_something(cls, content: Any, known: ValidationInfo) -> Any:
        if content is None and known.data.get("role", "assistant") != "assistant":
            raise ValueError("may be null for the assistant only")
        return content

    @property
    def text(self) -> str:
        """The content, whatever its form."""
        parts = self.content
        return parts if isinstance(parts, str) else "".join(part.text for part in parts or ())


class StreamOptions(Part):
    """What a stream contains."""

    include_usage: bool | None = None


StopString = Annotated[str, Field(min_length=1, max_length=256)]


class ChatRequest(Part):
    """A request for an answer."""

    messages: list[Message] = Field(min_length=1)
    model: str | None = Field(default=None, description="That of /v1/models, or nothing.")
    max_tokens: int | None = Field(default=None, ge=1, description="Longest answer.")
    max_completion_tokens: int | None = Field(default=None, ge=1, description="The same.")
    temperature: float | None = Field(
        default=None, ge=0, le=2, description="0, the default, takes the likeliest token."
    )
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=1, description="Not OpenAI's, but widely known.")
    n: int | None = Field(default=None, ge=1, description="Number of answers.")
    stop: StopString | Annotated[list[StopString], Field(max_length=4)] | None = None
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)

    @field_validator("messages")
    @classmethod
    def _ends_with_the_user(cls, messages: list[Message]) -> list[Message]:
        if messages[-1].role != "user":
            raise ValueError("the last message should have the role user")
        return messages

    @field_validator("stream_options", "top_logprobs")
    @classmethod
    def _goes_together(cls, value: Any, known: ValidationInfo) -> Any:
        needed = "stream" if known.field_name == "stream_options" else "logprobs"
        if value is not None and not known.data.get(needed, True):  # not there: wrong by itself
            raise ValueError(f"needs {needed}: set it to true")
        return value

    @property
    def stops(self) -> Sequence[str]:
        """The stop strings."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    def conversation(self) -> Conversation:
        """Return the messages as the model was taught them: a system message, then by turns.

        System messages become one, messages of one role in a row become one, and what the
        assistant says before the user has said anything is left out.
        """
        system = [message.text for message in self.messages if message.role in ROLES_OF_SYSTEM]
        turns: Conversation = []
        for message in self.messages:
            if message.role == "user" or (message.role == "assistant" and turns):
                if turns and turns[-1]["role"] == message.role:
                    turns[-1]["content"] += f"\n\n{message.text}"
                else:
                    turns.append({"role": message.role, "content": message.text})
        first: Conversation = [{"role": "system", "content": "\n\n".join(system)}] if system else []
        return first + turns


KINDS = ("str", "list[TextPart]", "constrained-str", "list[constrained-str]")
"""What pydantic adds to the place of a fault where a value may be of several kinds."""
ROLES_OF_SYSTEM = ("system", "developer")


def parse(body: bytes) -> ChatRequest:
    """Return the request in ``body``.

    Raises:
        Refused: It is not JSON, or not such a request.
    """
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False)
        # of two kinds that a value may have, the closer one
        fault = max(faults, key=lambda f: (len(f["loc"]), not f["type"].endswith("_type")))
        place = ".".join(str(part) for part in fault["loc"] if part not in KINDS)
        said = fault["msg"].removeprefix("Value error, ")
        where = f"{place}: " if place else ""
        raise Refused(400, f"{where}{said}", param=place or None) from None


def usage(prompt: int, said: int, *, dropped: int, cut: bool) -> dict[str, Any]:
    """Return OpenAI's usage object, and what had no room beside it."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": said,
        "total_tokens": prompt + said,
        "imprint": {"dropped_turns": dropped, "cut": cut},
    }


def event(value: object) -> bytes:
    """Return ``value`` as a server-sent event."""
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"
