"""Bodies of answers, sent once for a generation however many routes have them."""

from __future__ import annotations

import hashlib
from typing import Final

from msgspec import structs

from shared.plan import AnswerPlan, HttpPlan, RoutePlan

INLINE_BYTES: Final = 256  # a body that is not longer stays in its route
_DIGEST_BYTES: Final = 16

Pages = tuple[tuple[int, AnswerPlan], ...]


class SentBodies:
    """Takes the long bodies out of routes. ``bodies``: by their digest, those met so far.

    Global error pages are the same objects in all routes: what is made of them is made once.
    """

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self._digests: dict[bytes, str] = {}
        self._pages: dict[Pages, Pages] = {}

    def without(self, route: RoutePlan) -> RoutePlan:
        """The route with digests in the place of its long bodies."""
        http = route.http
        if http is None or not (http.error_pages or http.maintenance or http.answer):
            return route
        return structs.replace(route, http=self._bare(http))

    def _bare(self, http: HttpPlan) -> HttpPlan:
        pages = self._pages.get(http.error_pages)
        if pages is None:
            pages = tuple((status, self._one(page)) for status, page in http.error_pages)
            self._pages[http.error_pages] = pages
        return structs.replace(
            http,
            error_pages=pages,
            maintenance=None if http.maintenance is None else self._one(http.maintenance),
            answer=None if http.answer is None else self._one(http.answer),
        )

    def _one(self, answer: AnswerPlan) -> AnswerPlan:
        body = answer.body
        if len(body) <= INLINE_BYTES:
            return answer
        digest = self._digests.get(body)
        if digest is None:
            digest = hashlib.blake2b(body, digest_size=_DIGEST_BYTES).hexdigest()
            self._digests[body] = digest
            self.bodies[digest] = body
        return structs.replace(answer, body=b"", sent_body=digest)
