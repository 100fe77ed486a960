"""What a provider's answer says about its limits: the headers that count requests and tokens down.

Three families are read. Anthropic: ``anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,
reset}``, the reset as an RFC 3339 time (docs.claude.com, "Rate limits"). OpenAI and those like it:
``x-ratelimit-{limit,remaining,reset}-{requests,tokens}``, the reset as a duration such as ``1m30s`` or ``6ms``
(platform.openai.com, "Rate limits"). The IETF's ``RateLimit`` and ``RateLimit-Policy``
(draft-ietf-httpapi-ratelimit-headers-10, structured fields of RFC 9651). What cannot be read is as if it were not
there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from ..scheduling.provider import ProviderState, Quota
from .failure import moment

__all__ = ["provider_state"]

_COUNT: Final = re.compile(r"[0-9]{1,15}")
_DURATION: Final = re.compile(
    r"(?=[0-9])(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9}(?:\.[0-9]{1,9})?)s)?"
    r"(?:([0-9]{1,9}(?:\.[0-9]{1,9})?)ms)?"
)
_SCALES: Final = (86400.0, 3600.0, 60.0, 1.0, 0.001)
_SECONDS: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_TIME: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(\.[0-9]{1,9})?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)
# One member of a list of structured fields: a string with parameters that are integers or strings.
_STRING: Final = r'"(?:[^"\\]|\\.)*"'
_MEMBER: Final = re.compile(
    rf"\s*({_STRING})((?:\s*;\s*[a-z*][a-z0-9_.*-]*(?:=(?:-?[0-9]{{1,15}}|{_STRING}|:[^:]*:))?)*)\s*"
)
_PARAMETER: Final = re.compile(rf";\s*([a-z*][a-z0-9_.*-]*)=(-?[0-9]{{1,15}}|{_STRING})")
_LONGEST: Final = 4096


def provider_state(headers: Mapping[str, str], now: float) -> ProviderState | None:
    """What the headers say; None if they say nothing. The names are in lower case.

    ``now`` is in seconds since 1970, for the times that are not relative; where the answer has a ``date``, its own
    clock is taken instead.
    """
    if "anthropic-ratelimit-requests-remaining" in headers or "anthropic-ratelimit-tokens-remaining" in headers:
        requests, tokens = _anthropic(headers, now)
    elif "x-ratelimit-remaining-requests" in headers or "x-ratelimit-remaining-tokens" in headers:
        requests, tokens = (_openai(headers, kind) for kind in ("requests", "tokens"))
    elif "ratelimit" in headers:
        requests, tokens = _ietf(headers)
    else:
        return None
    return None if requests is None and tokens is None else ProviderState(requests=requests, tokens=tokens)


def _anthropic(headers: Mapping[str, str], now: float) -> tuple[Quota | None, Quota | None]:
    sent = moment(headers.get("date"))
    clock = now if sent is None else sent

    def quota(kind: str) -> Quota | None:
        name = f"anthropic-ratelimit-{kind}"
        reset = _time(headers.get(f"{name}-reset", ""))
        after = None if reset is None else max(0.0, reset - clock)
        return _quota(headers.get(f"{name}-remaining"), after, headers.get(f"{name}-limit"))

    # A Call's tokens are estimated as one number: it must fit whichever of the three is the tightest.
    return quota("requests"), _tightest(quota(kind) for kind in ("tokens", "input-tokens", "output-tokens"))


def _openai(headers: Mapping[str, str], kind: str) -> Quota | None:
    reset = _duration(headers.get(f"x-ratelimit-reset-{kind}", ""))
    return _quota(headers.get(f"x-ratelimit-remaining-{kind}"), reset, headers.get(f"x-ratelimit-limit-{kind}"))


def _ietf(headers: Mapping[str, str]) -> tuple[Quota | None, Quota | None]:
    policies = dict(_members(headers.get("ratelimit-policy", "")))
    found: dict[str, list[Quota]] = {"requests": [], "tokens": []}
    for name, said in _members(headers["ratelimit"]):
        policy = policies.get(name, {})
        unit = policy.get("qu", "requests")
        quota = _quota(said.get("r"), _duration(said.get("t", "")), policy.get("q"))
        if quota is not None and unit in found:
            found[unit].append(quota)
    return _tightest(found["requests"]), _tightest(found["tokens"])


def _quota(left: str | None, reset: float | None, limit: str | None) -> Quota | None:
    """A quota, if enough is said that it can be kept to. A limit of 0 is how some say that they have none."""
    count, most = _count(left), _count(limit)
    if count is None or reset is None or most == 0:
        return None
    return Quota(count, reset, most)


def _tightest(quotas: Iterable[Quota | None]) -> Quota | None:
    known = [quota for quota in quotas if quota is not None]
    return min(known, key=lambda quota: (quota.left, -quota.reset), default=None)


def _count(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if _COUNT.fullmatch(text) else None


def _duration(text: str) -> float | None:
    text = text.strip()
    if _SECONDS.fullmatch(text):  # some say seconds, without a unit
        return float(text)
    found = _DURATION.fullmatch(text)
    if found is None:
        return None
    return sum(float(part) * scale for part, scale in zip(found.groups("0"), _SCALES, strict=True))


def _time(text: str) -> float | None:
    """Seconds since 1970 for a time of RFC 3339."""
    found = _TIME.fullmatch(text.strip())
    if found is None:
        return None
    from calendar import timegm  # brings datetime with it

    *whole, fraction, sign, hours, minutes = found.groups()
    year, month, day, hour, minute, second = map(int, whole)
    if not (year and 1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60):
        return None
    east = 0 if sign is None else (int(hours) * 3600 + int(minutes) * 60) * (-1 if sign == "-" else 1)
    return timegm((year, month, day, hour, minute, second)) + float(fraction or 0) - east


def _members(field: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The members of a list of strings with parameters. A field that does not parse is no field (RFC 9651, 4.2)."""
    position, end = 0, len(field)
    found: list[tuple[str, dict[str, str]]] = []
    while position < end <= _LONGEST:
        member = _MEMBER.match(field, position)
        if member is None:
            return
        named = {key: value.strip('"') for key, value in _PARAMETER.findall(member[2])}
        found.append((member[1], named))
        position = member.end()
        if position < end and field[position] != ",":
            return
        position += 1
    yield from found
