"""How one route of one generation speaks HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.http.answers import OwnAnswers
from shared.http.basic import challenge
from shared.http.chunks import trailer_limits
from shared.http.forwarding import forwarders_of
from shared.http.writer import RequestWriter, ResponseWriter

if TYPE_CHECKING:
    from shared.plan import HttpPlan, RoutePlan


class HttpRoute:
    """Everything that its plan says, ready to be used for each request.

    ``is_plain``: a request needs no look at its body's size or at who the client is.
    """

    __slots__ = (
        "answers",
        "challenge",
        "forwarders",
        "is_plain",
        "own",
        "plan",
        "status",
        "trailer_limits",
        "upgrades",
        "writer",
    )

    def __init__(self, route: RoutePlan, plan: HttpPlan) -> None:
        self.plan = plan
        self.writer = RequestWriter(route.name, plan)
        self.answers = ResponseWriter(route.name, plan)
        self.own = OwnAnswers(route.name, plan)
        self.forwarders = forwarders_of(plan.trusted_forwarders)
        self.upgrades = frozenset(name.encode() for name in plan.upgrades)
        self.trailer_limits = trailer_limits(plan.head_limit, plan.field_limit)
        self.status = (
            0 if plan.answer is None else plan.answer.status
        )  # of the answer it gives itself
        auth = plan.auth
        self.challenge = (
            b"" if auth is None else b"WWW-Authenticate: " + challenge(auth.realm) + b"\r\n"
        )
        self.is_plain = not (plan.auth or plan.body_limit)

    def upgrade(self, offered: tuple[bytes, ...]) -> bytes:
        """The first of these protocols that a request may switch to here; b"": none."""
        for one in offered:
            if one in self.upgrades:
                return one
        return b""
