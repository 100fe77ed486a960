"""What is known of models: their prices have a date and a source, and a model that is not known has none."""

from __future__ import annotations

import datetime

import pytest

from multi_agent_scheduler.agents import models
from multi_agent_scheduler.records import Usage
from multi_agent_scheduler.scheduling.budget import Price, cost


def test_a_model_is_known_by_its_whole_name_with_or_without_the_date_of_its_version() -> None:
    haiku = models.price("claude-haiku-4-5")
    assert haiku == Price(input=1, output=5, cache_read=0.1, cache_write=1.25)
    assert models.price("claude-haiku-4-5-20251001") == haiku
    assert models.price("gpt-4o-mini-2024-07-18") == models.price("gpt-4o-mini") != models.price("gpt-4o")


@pytest.mark.parametrize("model", [None, "", "claude-sonnet-9", "gpt-5.4-maxi", "gpt-5.4-mini-special", "SmolLM2"])
def test_a_model_that_is_not_known_has_no_price(model: str | None) -> None:
    assert models.price(model) is None


def test_the_users_own_prices_come_first() -> None:
    mine = {"gpt-4o": Price(input=1, output=1), "house-model": Price(input=0, output=0)}
    assert models.price("gpt-4o", mine) == mine["gpt-4o"]
    assert models.price("gpt-4o-2024-11-20", mine) == mine["gpt-4o"]
    assert models.price("house-model", mine) == mine["house-model"]
    assert models.price("gpt-4o-mini", mine) == models.price("gpt-4o-mini")


def test_a_long_prompt_has_its_own_price_where_the_provider_says_so() -> None:
    price = models.price("gemini-2.5-pro")
    assert cost(Usage(input_tokens=200_000, output_tokens=1000), price) == pytest.approx(0.26)
    assert cost(Usage(input_tokens=200_001, output_tokens=1000), price) == pytest.approx(0.515, abs=1e-4)


def test_every_price_has_a_date_and_a_source_and_makes_sense() -> None:
    for source in models._data()["prices"]:
        assert source["source"].startswith("https://")
        datetime.date.fromisoformat(source["date"])
    for name, price in models._prices().items():
        assert 0 < price.input <= price.output, name
        assert price.cache_read is None or price.cache_read < price.input, name
        assert price.cache_write is None or price.cache_write >= price.input, name
        assert price.long is None or price.long.input > price.input, name
