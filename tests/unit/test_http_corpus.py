"""Replays tests/corpus/http: whole, byte by byte, at random splits."""

from __future__ import annotations

import random
from typing import Any

import pytest

from shared.http.head import HeadLimits
from shared.http.request import could_begin_request
from tests.helpers.http_corpus import Reading, at_random, by_byte, corpus, read

RANDOM_SPLITS = 5

recorded_requests = pytest.mark.parametrize(("data", "expected"), corpus("requests"))
recorded_responses = pytest.mark.parametrize(("data", "expected"), corpus("responses"))


def limits_of(expected: dict[str, Any]) -> HeadLimits:
    """The default ones, unless the file needs another."""
    return HeadLimits(head_bytes=expected.get("head_bytes", HeadLimits().head_bytes))


def check(reading: Reading, wanted: dict[str, Any]) -> None:
    """What was read is what the index says, in all that it names, and it names the outcome."""
    facts = reading.facts()
    assert {name: facts.get(name) for name in wanted} == wanted, reading.why
    assert ("status" in facts, "unfinished" in facts) == (
        "status" in wanted,
        "unfinished" in wanted,
    )


def check_all(data: bytes, expected: dict[str, Any], answers: str | None) -> None:
    """Read it in every way."""
    limits = limits_of(expected)
    not_facts = {"head_bytes"} if answers is None else {"method"}
    wanted = {name: value for name, value in expected.items() if name not in not_facts}
    chance = random.Random(len(data))
    check(read([data], limits, answers), wanted)
    check(read([data], limits, answers), wanted)  # now from what is remembered
    check(read(by_byte(data), limits, answers), wanted)
    for _ in range(RANDOM_SPLITS):
        check(read(at_random(data, chance), limits, answers), wanted)


@recorded_requests
def test_requests(data: bytes, expected: dict[str, Any]) -> None:
    """Each file gives what the index says, however it is split, and a second time too."""
    check_all(data, expected, None)


@recorded_responses
def test_responses(data: bytes, expected: dict[str, Any]) -> None:
    """The same for answers."""
    check_all(data, expected, expected.get("method", "GET"))


@recorded_requests
def test_what_is_accepted_could_begin_a_request(data: bytes, expected: dict[str, Any]) -> None:
    """No beginning of a request that is accepted is taken for another protocol."""
    if "status" not in expected:
        assert all(could_begin_request(data[:size]) for size in range(min(len(data), 300)))


def test_the_corpus_is_there() -> None:
    """A mistake in its index would leave the tests above with nothing to do."""
    assert len(corpus("requests")) >= 340
    assert len(corpus("responses")) >= 70
