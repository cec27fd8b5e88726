"""HTTP keys of a route to its plan, with what the route says laid over the global `http`."""

from __future__ import annotations

import math
import mimetypes
from collections.abc import Iterable
from typing import Any, Final

from msgspec import structs

from shared.config import Action, BasicAuth, Http, Match, PageFile, Route
from shared.config import FieldRules as FieldRulesConfig
from shared.plan import AnswerPlan, AuthPlan, FieldRules, HttpMatch, HttpPlan
from supervisor.config_protocol import speaks_http
from supervisor.users_file import auth_plan

_REDIRECT: Final = 301
_RESPOND: Final = 200
_UNAVAILABLE: Final = 503
_TEXT_TYPE: Final = "text/plain; charset=utf-8"
_BYTES_TYPE: Final = "application/octet-stream"
_CONTENT_TYPE: Final = "Content-Type"
_MAINTENANCE: Final = b"Down for maintenance.\n"
_NO_RULES: Final = FieldRules()

Pairs = tuple[tuple[str, str], ...]


class HttpPlans:
    """Compiles HTTP of one generation; what many routes share is made once.

    Expects files that were read (`supervisor/config_pages.py`).
    """

    def __init__(self, http: Http) -> None:
        self._http: Final = http
        # The tables of the library alone: those of the host would make plans differ by machine.
        self._types: Final = mimetypes.MimeTypes()
        self._pages: dict[tuple[int, str, bytes], AnswerPlan] = {}
        self._common: HttpPlan | None = None

    @property
    def error_pages(self) -> tuple[tuple[int, AnswerPlan], ...]:
        """The global ones, where a route speaks HTTP at all."""
        return () if self._common is None else self._common.error_pages

    def compile(self, route: Route) -> HttpPlan | None:
        """How the route speaks HTTP; None where bytes are relayed."""
        if not speaks_http(route):
            return None
        if self._common is None:
            self._common = self._settings(self._http)
        plan = self._common if route.http is None else self._settings(_merged(self._http, route))
        action, auth = route.action, route.security.auth
        rules = action.headers.rules if action.headers is not None else None
        rewrite = action.rewrite
        return structs.replace(
            plan,
            match=match_plan(route.match),
            answer=self._answer(action),
            request=_NO_RULES if rules is None else _rules(rules.request),
            response=_NO_RULES if rules is None else _rules(rules.response),
            strip_prefix=(rewrite.strip_prefix if rewrite else None) or "",
            add_prefix=(rewrite.add_prefix if rewrite else None) or "",
            host=action.host or "preserve",
            auth=None if auth is None else _auth(auth.basic),
        )

    def _settings(self, http: Http) -> HttpPlan:
        pages = ((int(status), file) for status, file in http.error_pages)
        maintenance = None
        if http.maintenance is not None:
            maintenance = self._maintenance(
                float(http.maintenance.retry_after), http.maintenance.file
            )
        return HttpPlan(
            head_limit=int(http.head_limit),
            field_limit=http.field_limit,
            body_limit=int(http.body_limit),
            trusted_forwarders=tuple(dict.fromkeys(map(str, http.trusted_forwarders))),
            error_pages=tuple(self._page(status, file) for status, file in sorted(pages)),
            maintenance=maintenance,
            upgrades=tuple(dict.fromkeys(map(str, http.upgrades))),
            underscores=http.underscores,
            upstream_idle=float(http.upstream_idle),
        )

    def _page(self, status: int, file: PageFile) -> tuple[int, AnswerPlan]:
        key = status, str(file), file.content
        if key not in self._pages:
            headers = ((_CONTENT_TYPE, self._type_of(file)),)
            self._pages[key] = AnswerPlan(status=status, headers=headers, body=file.content)
        return status, self._pages[key]

    def _maintenance(self, retry_after: float, file: PageFile | None) -> AnswerPlan:
        return AnswerPlan(
            status=_UNAVAILABLE,
            headers=(
                ("Retry-After", str(math.ceil(retry_after))),  # RFC 9110 section 10.2.3
                (_CONTENT_TYPE, _TEXT_TYPE if file is None else self._type_of(file)),
            ),
            body=_MAINTENANCE if file is None else file.content,
        )

    def _answer(self, action: Action) -> AnswerPlan | None:
        if action.type == "forward":
            return None
        fields = action.headers.fields if action.headers is not None else None
        headers = _pairs(fields or ())
        if action.type == "redirect":
            status = action.status or _REDIRECT
            return AnswerPlan(status=status, headers=headers, location=str(action.to))
        body, kind = b"", ""
        if action.file is not None:
            body, kind = action.file.content, self._type_of(action.file)
        elif action.body:
            body, kind = action.body.encode(), _TEXT_TYPE
        if kind and not any(name.lower() == _CONTENT_TYPE.lower() for name, _ in headers):
            headers = (*headers, (_CONTENT_TYPE, kind))
        return AnswerPlan(status=action.status or _RESPOND, headers=headers, body=body)

    def _type_of(self, file: PageFile) -> str:
        """By the suffix of its name. Text is taken for UTF-8."""
        kind, encoding = self._types.guess_type(f"file:{file}", strict=True)
        if kind is None or encoding is not None:
            return _BYTES_TYPE
        return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


def match_plan(match: Match) -> HttpMatch:
    """What of a request decides."""
    return HttpMatch(
        paths=tuple(dict.fromkeys(map(str, match.paths))),
        methods=tuple(dict.fromkeys(map(str, match.methods))),
        headers=tuple(one.plan(name.lower()) for name, one in match.headers),
        query=tuple(one.plan(name) for name, one in match.query),
        cookies=tuple(one.plan(name) for name, one in match.cookies),
    )


def _merged(http: Http, route: Route) -> Http:
    """The global settings with the route's over them; error pages status by status."""
    given: dict[str, Any] = {
        name: value
        for name, value in structs.asdict(route.http or Http()).items()
        if value is not None
    }
    if route.http is not None and route.http.error_pages is not None:
        both = {**dict(http.error_pages), **dict(route.http.error_pages)}
        given["error_pages"] = type(http.error_pages)(tuple(both.items()))
    return structs.replace(http, **given)


def _rules(rules: FieldRulesConfig) -> FieldRules:
    return FieldRules(
        remove=tuple(map(str, rules.remove)),
        set=tuple((name, str(value)) for name, value in rules.set),
        add=_pairs(rules.add),
    )


def _pairs(fields: Iterable[tuple[str, Iterable[str]]]) -> Pairs:
    return tuple((name, value) for name, values in fields for value in values)


def _auth(basic: BasicAuth) -> AuthPlan:
    return auth_plan(basic.realm, basic.users_file.users, allow_plain=basic.allow_plain)
