"""Functions as agents: whatever an async generator does, its stream has one outcome."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from multi_agent_scheduler.agents import FunctionAgent, Retry
from multi_agent_scheduler.errors import (
    AgentError,
    AgentTimeout,
    ErrorInfo,
    InvalidConfiguration,
    InvalidOption,
    InvalidRequest,
    RateLimitError,
    agent_error,
)
from multi_agent_scheduler.records import (
    CallEnded,
    CallStarted,
    Completed,
    Reasoning,
    Record,
    Text,
    Usage,
)
from multi_agent_scheduler.records import Failed as FailedRecord
from multi_agent_scheduler.records import Interrupted as InterruptedRecord
from multi_agent_scheduler.task import Timeouts


async def echo(prompt: str, **options: Any) -> AsyncIterator[str]:
    yield prompt
    if options:
        yield f" {sorted(options.items())}"


async def records_of(agent: FunctionAgent, prompt: Any = "Hi", **options: Any) -> list[Record]:
    return [record async for record in agent.stream(prompt, **options)]


async def test_strings_are_text_and_the_end_is_completed() -> None:
    agent = FunctionAgent(echo)
    records = await records_of(agent, "Hi", tone="dry")
    assert [type(record) for record in records] == [CallStarted, Text, Text, CallEnded, Completed]
    assert (await agent.call("Hi", tone="dry")).text == "Hi [('tone', 'dry')]"
    assert [piece async for piece in agent.call_stream("Hi", tone="dry")] == ["Hi", " [('tone', 'dry')]"]
    assert list(agent.call_stream_sync("Hi")) == ["Hi"]
    assert agent.name == "echo"
    assert repr(agent) == "FunctionAgent(echo)"


async def test_records_pass_as_they_are_and_usage_is_the_calls() -> None:
    async def thinking(prompt: str) -> AsyncIterator[str | Record]:
        yield Reasoning("hm")
        yield ""
        yield Text("yes", part=1)
        yield Usage(input_tokens=1, output_tokens=2)
        yield Completed("length", raw_stop_reason="max")
        raise AssertionError("not reached")

    result = await FunctionAgent(thinking).call("Hi")
    assert (result.text, result.reasoning, result.stop_reason) == ("yes", "hm", "length")
    assert result.usage == Usage(input_tokens=1, output_tokens=2, call=1)
    records = await records_of(FunctionAgent(thinking))
    assert [type(record) for record in records] == [CallStarted, Reasoning, Text, Usage, CallEnded, Completed]


async def test_messages_give_the_last_users_text() -> None:
    messages = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "answer"},
        {"role": "user", "content": [{"type": "text", "text": "last"}]},
    ]
    assert (await FunctionAgent(echo).call(messages)).text == "last"


@pytest.mark.parametrize("error", [ValueError("secret"), KeyError("x"), RecursionError()])
async def test_what_it_raises_is_a_failure_that_keeps_what_came(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def breaks(prompt: str) -> AsyncIterator[str]:
        yield "some"
        raise error

    with pytest.raises(AgentError) as caught:
        await FunctionAgent(breaks).call("Hi")
    assert str(caught.value) == f"breaks raised {type(error).__name__}"
    assert caught.value.code == "agent_error"
    assert caught.value.partial is not None
    assert (caught.value.partial.text, caught.value.partial.state) == ("some", "failed")
    assert caplog.records[0].levelno == logging.WARNING  # the log has the whole story
    assert caplog.records[0].exc_info is not None


async def test_a_typed_error_passes_as_it_is() -> None:
    info = ErrorInfo("rate_limit_error", "slow down", status=429, retry_after=3.0, retryable=True)

    async def limited(prompt: str) -> AsyncIterator[str]:
        raise agent_error(info)
        yield

    with pytest.raises(RateLimitError) as caught:
        await FunctionAgent(limited).call("Hi")
    assert caught.value.info == info


async def test_an_interruption_is_one() -> None:
    async def dies(prompt: str) -> AsyncIterator[str]:
        yield "some"
        raise agent_error(ErrorInfo("interrupted", "gone", retryable=True))

    records = await records_of(FunctionAgent(dies))
    assert isinstance(records[-1], InterruptedRecord)


async def test_what_is_neither_text_nor_record_is_named() -> None:
    async def numbers(prompt: str) -> AsyncIterator[Any]:
        yield 5

    with pytest.raises(AgentError, match=r"^numbers gave an int; an agent gives str or records$"):
        await FunctionAgent(numbers).call("Hi")


# --- what is no async generator -------------------------------------------------------------------------------------


async def coroutine(prompt: str) -> str:
    return prompt


def generator(prompt: str) -> Any:
    yield prompt


class Callable:
    async def __call__(self, prompt: str) -> AsyncIterator[str]:
        yield prompt


class Coroutine:
    async def __call__(self, prompt: str) -> str:
        return prompt


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (coroutine, "coroutine is a coroutine function (it has no yield)"),
        (partial(coroutine), "partial is a coroutine function (it has no yield)"),
        (Coroutine(), "Coroutine is a coroutine function (it has no yield)"),
        (generator, "generator is a plain generator function"),
    ],
)
def test_other_functions_are_refused_at_once(function: Any, problem: str) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        FunctionAgent(function)
    assert str(caught.value) == f"FunctionAgent needs an async generator function; {problem}"


def test_what_cannot_be_called_is_refused_at_once() -> None:
    with pytest.raises(InvalidConfiguration, match=r"^FunctionAgent needs an async generator function, not 'text'$"):
        FunctionAgent("text")  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="errors must be 'marker' or 'raise'"):
        FunctionAgent(echo, errors="no")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "function",
    [echo, partial(echo), Callable(), Callable().__call__, lambda prompt: echo(prompt)],
    ids=["function", "partial", "object", "method", "lambda"],
)
async def test_whatever_gives_an_async_iterator_will_do(function: Any) -> None:
    assert (await FunctionAgent(function).call("Hi")).text == "Hi"


async def test_a_function_that_gives_something_else_after_all_is_a_failure() -> None:
    agent = FunctionAgent(lambda prompt: coroutine(prompt))  # type: ignore[arg-type,return-value]
    with pytest.raises(AgentError, match=r"^<lambda> is no async generator function: calling it gave a coroutine$"):
        await agent.call("Hi")


async def test_an_option_that_the_function_does_not_know_is_the_callers_mistake() -> None:
    async def strict(prompt: str, *, tone: str = "dry") -> AsyncIterator[str]:
        yield tone

    agent = FunctionAgent(strict, name="poet")
    assert (await agent.call("Hi", tone="wet")).text == "wet"
    with pytest.raises(InvalidOption, match=r"^poet: .*unexpected keyword argument 'temper'$"):
        await anext(aiter(agent.stream("Hi", temper=1)))
    with pytest.raises(InvalidRequest, match="the prompt is empty"):
        await agent.call("")


# --- stopping and limits --------------------------------------------------------------------------------------------


class Watched:
    """A function that says one word and waits; it knows when it was closed."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def __call__(self, prompt: str) -> AsyncIterator[str]:
        try:
            yield "word"
            await asyncio.Event().wait()
        finally:
            self.closed.set()


async def test_leaving_closes_the_generator() -> None:
    function = Watched()
    async for piece in FunctionAgent(function).call_stream("Hi"):
        assert piece == "word"
        break
    async with asyncio.timeout(1):
        await function.closed.wait()


async def test_cancelling_closes_the_generator() -> None:
    function = Watched()
    begun = asyncio.Event()

    async def read() -> None:
        async for _ in FunctionAgent(function).call_stream("Hi"):
            begun.set()

    task = asyncio.ensure_future(read())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert function.closed.is_set()


async def test_a_time_limit_is_a_failure_and_cancels_nobody() -> None:
    function = Watched()
    agent = FunctionAgent(function, timeouts=Timeouts(between_content=0.02))
    with pytest.raises(AgentTimeout) as caught:
        await agent.call("Hi")
    assert str(caught.value) == "no further content within the between_content limit of 0.02 s"
    assert caught.value.partial is not None
    assert caught.value.partial.text == "word"
    assert function.closed.is_set()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)  # nothing is left to be thrown here


@pytest.mark.parametrize("answer", ["goes on", "ends", "raises"])
async def test_a_function_that_shrugs_off_a_time_limit_meets_it_all_the_same(answer: str) -> None:
    async def stubborn(prompt: str) -> AsyncIterator[str]:
        yield "word"
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        if answer == "raises":
            raise ValueError
        if answer == "goes on":
            yield "more"

    agent = FunctionAgent(stubborn, timeouts=Timeouts(between_content=0.02))
    with pytest.raises(AgentTimeout):
        await agent.call("Hi")
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_cancel_that_comes_with_a_time_limit_goes_first() -> None:
    stopped = asyncio.Event()

    async def slow_to_stop(prompt: str) -> AsyncIterator[str]:
        yield "word"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            raise

    agent = FunctionAgent(slow_to_stop, timeouts=Timeouts(between_content=0.02))
    task = asyncio.ensure_future(agent.call("Hi"))
    await stopped.wait()  # the limit has passed, and the function is still busy with it
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_in_closing_is_logged_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def bad_closer(prompt: str) -> AsyncIterator[str]:
        try:
            yield "word"
            yield "more"
        finally:
            raise ValueError("in closing")

    async for piece in FunctionAgent(bad_closer).call_stream("Hi"):
        assert piece == "word"
        break
    for _ in range(5):
        await asyncio.sleep(0)
    assert "bad_closer raised while it was being closed" in caplog.text


async def test_a_failed_stream_ends_in_one_terminal() -> None:
    async def breaks(prompt: str) -> AsyncIterator[str]:
        raise ValueError
        yield

    records = await records_of(FunctionAgent(breaks))
    assert [type(record) for record in records] == [CallStarted, CallEnded, FailedRecord]


async def test_an_emoji_cut_in_two_by_an_sdk_is_whole_and_a_half_that_stands_alone_is_replaced() -> None:
    async def halves(prompt: str) -> AsyncIterator[str]:
        for piece in ("a\ud83d", "\ude00b\ud83d", "\ude00", "\udc00", "c\ud83dd", "\ud83d"):
            yield piece

    pieces = [piece async for piece in FunctionAgent(halves).call_stream("Hi")]
    assert pieces == ["a", "😀b", "😀", "\ufffd", "c\ufffdd", "\ufffd"]


async def test_of_a_clients_options_a_function_gets_those_that_it_has_a_parameter_for() -> None:
    async def plain(prompt: str) -> AsyncIterator[str]:
        yield prompt

    async def some(prompt: str, *, max_tokens: int = 0) -> AsyncIterator[str]:
        yield f"{prompt} {max_tokens}"

    async def every(prompt: str, **options: Any) -> AsyncIterator[str]:
        yield f"{prompt} {sorted(options)}"

    said: dict[str, Any] = {"max_tokens": 9, "temperature": 0.5, "extra": {"user": "u"}, "protocol": "openai_chat"}
    for fn, text in ((plain, "Hi"), (some, "Hi 9"), (every, "Hi ['max_tokens', 'temperature']")):
        assert (await FunctionAgent(fn).call("Hi", **said)).text == text
        assert (await Retry(FunctionAgent(fn)).call("Hi", **said)).text == text
    with pytest.raises(InvalidOption, match="max_tokens"):
        await FunctionAgent(plain).call("Hi", max_tokens=9)
