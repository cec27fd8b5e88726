"""Bodies of answers that come once for a generation, and stand in its routes by their digest."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import structs

from shared.plan import AnswerPlan, HttpPlan

Pages = tuple[tuple[int, AnswerPlan], ...]


class SentBodies:
    """Puts them into routes. Thousands of routes with the same pages share the very objects."""

    def __init__(self) -> None:
        self._bodies: dict[str, bytes] = {}
        self._answers: dict[AnswerPlan, AnswerPlan] = {}
        self._pages: dict[Pages, Pages] = {}

    def add(self, bodies: Mapping[str, bytes]) -> int:
        """The next ones; returns how many there are."""
        self._bodies.update(bodies)
        return len(self._bodies)

    def fill(self, http: HttpPlan) -> HttpPlan:
        """The plan with all bodies in their place; LookupError where one has not come."""
        if not (http.error_pages or http.maintenance or http.answer):
            return http
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
        if not answer.sent_body:
            return answer
        filled = self._answers.get(answer)
        if filled is None:
            body = self._bodies[answer.sent_body]
            filled = structs.replace(answer, body=body, sent_body="")
            self._answers[answer] = filled
        return filled
