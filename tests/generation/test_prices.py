import pytest

from generation.kit import Fake, rows
from imprint.errors import ConfigError
from imprint.generation.prices import Tariff, tariff
from imprint.providers import Probe, Provider, Reply
from imprint.providers.gemini import Gemini
from imprint.providers.openai import OpenAI
from imprint.providers.openrouter import OpenRouter
from imprint.settings import Price, Provision


def price(kind: type[Provider], model: str, **terms: object) -> tuple[float, float]:
    found = tariff(Provision.model_validate(terms), kind, model)
    return round(found.input, 6), round(found.output, 6)


def test_the_configuration_comes_first() -> None:
    own = {"price": {"input": 7, "output": 9}}
    assert price(OpenAI, "gpt-4.1-mini", **own) == (7, 9)
    assert price(OpenAI, "x", base_url="http://localhost:1/v1", **own) == (7, 9)


def test_then_the_provider_itself() -> None:
    class Priced(Fake):
        price = Price(input=1.0, output=2.0)

    assert tariff(Provision(), Priced, "fake-1") == Tariff(1.0, 2.0, "fake")


def test_then_the_table() -> None:
    assert price(OpenAI, "gpt-4.1-mini") == (0.4, 1.6)
    assert price(Gemini, "gemini-2.5-flash-lite") == (0.1, 0.4)
    assert tariff(Provision(), OpenAI, "gpt-4.1-mini").source.startswith("genai-prices ")


def test_of_a_model_with_tiers_the_price_of_short_prompts_counts() -> None:
    assert price(Gemini, "gemini-2.5-pro") == (1.25, 10)


@pytest.mark.parametrize("kind", [Gemini, OpenRouter])
def test_a_batch_costs_half(kind: type[Provider]) -> None:
    model = kind.default_model
    whole, half = price(kind, model), price(kind, model, batch=True)
    assert half == pytest.approx((whole[0] / 2, whole[1] / 2), rel=0.02)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8000/v1",
        "http://127.0.0.1/v1",
        "http://10.1.2.3:80/v1",
        "http://[::1]:8000/v1",
        "http://gpu.local/v1",
        "https://box.lan/v1",
    ],
)
def test_a_server_of_ones_own_is_free(url: str) -> None:
    assert price(OpenAI, "any", base_url=url) == (0, 0)


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        (OpenAI, "https://api.example.com/v1"),
        (OpenAI, "http://localhost.example.com/v1"),
        (OpenAI, "https://8.8.8.8/v1"),
        (OpenRouter, "http://localhost:8000/v1"),
        (OpenAI, None),
    ],
)
def test_a_price_that_nobody_knows_is_asked_for(kind: type[Provider], url: str | None) -> None:
    with pytest.raises(ConfigError, match=r"^price: what any-1 costs at .* Set `price: \{input"):
        price(kind, "any-1", base_url=url)


def test_the_providers_own_word_counts_before_any_table() -> None:
    found = Tariff(1.0, 2.0, "a test")
    usage = {"input": 1000, "output": 500}
    assert found.cost(Reply([], "m", usage=usage)) == pytest.approx(0.002)
    assert found.cost(Reply([], "m", usage=usage, cost_usd=0.5)) == 0.5
    assert found.cost(Probe("json", usage)) == pytest.approx(0.002)


def test_the_most_a_request_can_cost_is_never_too_little() -> None:
    request = Fake().request(rows(1)[0])
    letters = len(request.system) + len(request.user)
    assert Tariff(1.0, 2.0, "").most(request) >= (letters / 2 + 1000 * 2) / 1e6
