"""What answers cost: the provider's own word first, then a price table, then the configuration."""

import contextlib
import ipaddress
from dataclasses import dataclass
from importlib.metadata import version
from urllib.parse import urlsplit

from imprint.errors import ConfigError
from imprint.providers import Probe, Provider, Reply, Request
from imprint.settings import Provision

TABLES = {"gemini": "google"}
"""Providers that the price table (genai-prices) calls otherwise."""

BYTES_A_TOKEN = 4.0
"""Of an English prompt; what a forecast expects."""

LEAST_BYTES_A_TOKEN = 2.0
"""What a reservation counts with, so that it is never too small."""

BATCH = 0.5
"""Share of the price that is paid in batches."""


@dataclass(frozen=True)
class Tariff:
    """Price of a model, in USD per million tokens."""

    input: float
    output: float
    source: str
    """Where the figures are from, for people."""

    def usd(self, input_tokens: float, output_tokens: float) -> float:
        """Return what so many tokens cost."""
        return (self.input * input_tokens + self.output * output_tokens) / 1e6

    def most(self, request: Request) -> float:
        """Return the most that ``request`` can cost, in USD."""
        prompt = len(request.system.encode()) + len(request.user.encode())
        return self.usd(prompt / LEAST_BYTES_A_TOKEN + 200, request.max_tokens)

    def cost(self, answer: Reply | Probe) -> float:
        """Return what ``answer`` cost, in USD."""
        if answer.cost_usd is not None:
            return answer.cost_usd
        return self.usd(answer.usage.get("input", 0), answer.usage.get("output", 0))


def tariff(provision: Provision, provider: type[Provider], model: str) -> Tariff:
    """Return the price of ``model``.

    Raises:
        ConfigError: Nobody knows it; without it no budget can hold.
    """
    for price, source in ((provision.price, "the configuration"), (provider.price, provider.name)):
        if price is not None:
            return Tariff(price.input, price.output, source)
    if provision.base_url and _own(provision.base_url) and provider.name == "openai":
        return Tariff(0.0, 0.0, "a server of your own")
    if found := _looked_up(provider.name, model, batch=provision.batch):
        return found
    raise ConfigError(
        f"price: what {model} costs at {provision.base_url or provider.name} is not known, so no "
        "forecast can be made and no budget can hold. Set `price: {input: ..., output: ...}`, in "
        "USD per million tokens (0 for a server of your own), in config/config.yaml."
    )


def _looked_up(provider: str, model: str, *, batch: bool) -> Tariff | None:
    from genai_prices import Usage, calc_price  # takes 0.4 s

    table = TABLES.get(provider, provider)
    names = [(f"{model}:batch", 1.0), (model, BATCH)] if batch else [(model, 1.0)]
    for name, share in names:
        with contextlib.suppress(LookupError):
            # For a prompt of usual length: some models cost more beyond 100,000 tokens.
            read = calc_price(Usage(input_tokens=1000), name, provider_id=table)
            written = calc_price(Usage(output_tokens=1000), name, provider_id=table)
            rates = (1000 * share * float(price.total_price) for price in (read, written))
            return Tariff(next(rates), next(rates), f"genai-prices {version('genai-prices')}")
    return None


def _own(url: str) -> bool:
    """Tell whether ``url`` leads to this machine or its private network."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost" or host.endswith((".local", ".internal", ".lan"))
