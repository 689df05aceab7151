"""HTTP for the providers: many requests at a time, little work for each, no retries.

What goes wrong on the way becomes an error that tells whether there may be something to pay.
"""

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
from pydantic_core import from_json, to_json  # five times as fast as json
from yarl import URL

from imprint.errors import AnswerLost, ConfigError, ProviderBusy

CONNECT_S = 20.0
"""Longest wait for a connection, before anything is sent."""

LARGE = 1 << 20
"""Bytes from which a body is sent piece by piece, so that other requests go on meanwhile."""


class Unreachable(ProviderBusy):
    """No connection came about, so nothing was sent."""


class Garbled(AnswerLost):
    """Something came back, but not what such a server answers."""


@dataclass(frozen=True, slots=True)
class Response:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    url: str
    secret: str = field(default="", repr=False)
    """What messages may not show, should the server repeat it."""

    @property
    def text(self) -> str:
        """Start of the body as one line, for messages."""
        text = " ".join(self.body.decode(errors="replace").split())
        return (text.replace(self.secret, "[key]") if self.secret else text)[:200]

    def json(self) -> dict[str, Any]:
        """Return the object in the body.

        Raises:
            Garbled: There is none.
        """
        try:
            data = from_json(self.body)
        except ValueError:
            data = None
        if not isinstance(data, dict):
            raise Garbled(
                f"{self.url} answered {self.status} with something that is not a JSON object: "
                f"{self.text!r}. Check base_url."
            )
        return data


class Wire:
    """Connections to one server, opened when they are needed."""

    def __init__(
        self, base_url: str, *, headers: Mapping[str, str], timeout_s: float, secret: str = ""
    ) -> None:
        """Prepare to talk to ``base_url``; do not connect.

        Args:
            base_url: What every path is added to.
            headers: Sent with every request; the key is among them.
            timeout_s: Longest wait for a whole answer, in seconds.
            secret: What messages may not show.

        Raises:
            ConfigError: ``base_url`` is no address, or has a password in it.
        """
        try:
            url = URL(base_url)
            unusable = not url.host or bool(url.user or url.password)
        except ValueError:
            unusable = True
        if unusable:
            raise ConfigError(
                "base_url: not an address of a server without a password in it. Write it like "
                "http://localhost:8000/v1, and put the key into the provider's variable."
            )
        self.base_url = base_url.rstrip("/")
        self.timeout_s, self._secret = timeout_s, secret
        plain = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        self._headers = {**plain, "User-Agent": "imprint", **headers}
        self._proxy = _proxy(url)
        self._session: aiohttp.ClientSession | None = None

    async def post(self, path: str, body: dict[str, Any] | bytes) -> Response:
        """Send ``body`` to ``path`` and return what comes back, whatever its status.

        Raises:
            Unreachable: Nothing was sent.
            AnswerLost: No answer arrived in time, or only a part of one.
            Garbled: What came back is not HTTP.
        """
        data = to_json(body) if isinstance(body, dict) else body
        return await self._request("POST", path, io.BytesIO(data) if len(data) > LARGE else data)

    async def get(self, path: str) -> Response:
        """Return what is at ``path``; raises as `post` does."""
        return await self._request("GET", path, None)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _request(self, method: str, path: str, data: bytes | io.BytesIO | None) -> Response:
        url = self.base_url + path
        try:
            # A redirect is no answer: following one could carry the key to another server.
            async with self._opened().request(
                method, url, data=data, allow_redirects=False
            ) as response:
                body = await response.read()
                return Response(response.status, response.headers, body, url, self._secret)
        except (
            aiohttp.ClientConnectorError,
            aiohttp.ConnectionTimeoutError,
            aiohttp.ClientHttpProxyError,
        ) as error:
            raise Unreachable(
                f"{self.base_url} cannot be reached ({_told(error)}). Check base_url, the network "
                "and whether the server is running."
            ) from None
        except TimeoutError:
            raise AnswerLost(
                f"{self.base_url} did not answer within {self.timeout_s:g} s. If its model is "
                "slow, set timeout_s higher."
            ) from None
        except aiohttp.ClientResponseError as error:
            raise Garbled(
                f"{self.base_url} does not answer in HTTP ({error.message}). Check base_url."
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise AnswerLost(
                f"{self.base_url} broke off before its answer was complete ({_told(error)})."
            ) from None

    def _opened(self) -> aiohttp.ClientSession:
        """Return the session; it has to be made while the loop runs."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
                proxy=self._proxy,
                timeout=aiohttp.ClientTimeout(
                    total=self.timeout_s, sock_connect=min(CONNECT_S, self.timeout_s)
                ),
            )
        return self._session


def wait_s(headers: Mapping[str, str]) -> float | None:
    """Return for how many seconds a server wants to be left alone; None if it does not say.

    Example:
        >>> wait_s({"Retry-After": "7"}), wait_s({"retry-after-ms": "250"}), wait_s({})
        (7.0, 0.25, None)
    """
    named = {name.lower(): value for name, value in headers.items()}
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        if (number := _number(named.get(name))) is not None:
            return max(0.0, number * unit)
    if (date := _date(named.get("retry-after"))) is not None:
        return max(0.0, date.timestamp() - time.time())
    reset = _number(named.get("x-ratelimit-reset"))
    if reset is not None and reset > 1e12:  # milliseconds since 1970
        return max(0.0, reset / 1000 - time.time())
    return None


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _date(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text or "")
    except ValueError:
        return None


def _told(error: Exception) -> str:
    """Return what an error says; many say nothing."""
    return str(error).strip() or type(error).__name__


def _proxy(url: URL) -> str | None:
    """Return the proxy that the environment names for ``url``, looked up once.

    The session's own way (``trust_env``) asks again for every request, at two switches of threads,
    and puts what it finds in ~/.netrc where the key belongs.
    """
    host = url.host or ""
    if host == "localhost" or host.startswith("127.") or host == "::1" or proxy_bypass(host):
        return None
    return getproxies().get(url.scheme)
