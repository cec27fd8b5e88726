"""Where in a config file each key and value stands, and problems that point there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from shared.errors import Problem
from shared.units import short
from supervisor.config_secrets import SecretLines, is_secret

Path = tuple[str | int, ...]  # of a value: ("routes", 2, "match", "ports", 0)

MAX_SOURCE_CHARACTERS: Final = 160  # of a line that is shown; JSON may be one line of megabytes
_BEFORE_CARET: Final = 60  # characters kept before the caret in a line that is cut
_CUT: Final = "…"


class Mark(Struct, frozen=True):
    """A place in the text: line and column from 1; ``width`` is the caret's, in characters."""

    line: int
    col: int
    width: int = 1


class Positions(Struct):
    """Places by path. TOML has none: the tables are empty, and problems name the path alone.

    ``later`` fills the tables, when a place is asked for: a sound config of thousands of routes
    needs none of its hundreds of thousands.
    """

    file: str
    lines: list[str] = field(default_factory=list)
    values: dict[Path, Mark] = field(default_factory=dict)
    keys: dict[Path, Mark] = field(default_factory=dict)
    later: Callable[[], None] | None = None
    secrets: SecretLines | None = None  # of ``lines``, once one of them is to be shown

    def fill(self) -> None:
        """Note all places now; ConfigError where the text is nested too deep."""
        later, self.later = self.later, None
        if later is not None:
            later()

    def mark(self, path: Path, at_key: bool = False) -> Mark | None:
        """Of the key or value at ``path``, else of the nearest thing around it."""
        self.fill()
        if at_key and path in self.keys:
            return self.keys[path]
        while path not in self.values:
            if not path:
                return None
            path = path[:-1]
        return self.values[path]

    def problem(
        self, path: Path, message: str, *, code: str = "", hint: str = "", at_key: bool = False
    ) -> Problem:
        """A problem with the value at ``path``, or with its key."""
        found = self.problem_at(
            self.mark(path, at_key), message, code=code, hint=hint, path=path_text(path)
        )
        # The value of a secret may stand on a line of its own, below its name.
        return replace(found, source="") if is_secret(path) else found

    def problem_at(
        self, mark: Mark | None, message: str, *, code: str = "", hint: str = "", path: str = ""
    ) -> Problem:
        """A problem at a place, None where it is not known. ``source`` is "" for a secret line."""
        place = mark or Mark(0, 0)
        return Problem(
            message=message,
            code=code,
            file=self.file,
            line=place.line,
            col=place.col,
            path=path,
            hint=hint,
            width=place.width,
            source=self._source(place),
        )

    def _source(self, mark: Mark) -> str:
        """The line, cut to a window around the column where it is long."""
        if not 1 <= mark.line <= len(self.lines):
            return ""
        if self.secrets is None:
            self.secrets = SecretLines(self.lines)
        if mark.line in self.secrets:
            return ""
        line = self.lines[mark.line - 1]
        start = 0
        if len(line) > MAX_SOURCE_CHARACTERS:
            start = max(0, mark.col - 1 - _BEFORE_CARET)
            line = line[start : start + MAX_SOURCE_CHARACTERS]
        # Control characters of a file must not reach the terminal that shows the message.
        shown = "".join(char if char.isprintable() or char == "\t" else "\ufffd" for char in line)
        return _CUT + shown[1:] if start else shown


def path_text(path: Path) -> str:
    """``routes[2].action.targets[0]``; "" for the whole file. A strange key is quoted and cut."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        plain = part.replace("_", "").replace("-", "").isalnum() and len(part) <= 60
        text += ("." if text else "") + (part if plain else short(part))
    return text


def sort_key(problem: Problem) -> tuple[int, int, str, str]:
    """Problems in the order of the file; those without a place by path."""
    return (problem.line, problem.col, problem.path, problem.message)


def render(problem: Problem, kind: str = "error") -> str:
    """Three lines: place and message, the line of the file, a caret. One where no line is known.

    ``kind`` is the word before the message, "error" or "warning".
    """
    place = ":".join(str(part) for part in (problem.file, problem.line, problem.col) if part)
    head = f"{place}: {kind}: " if place else f"{kind}: "
    path = f"{problem.path}: " if problem.path else ""
    hint = f" ({problem.hint})" if problem.hint else ""
    text = f"{head}{path}{problem.message}{hint}"
    if not problem.source:
        return text
    column = problem.col - 1
    if problem.source.startswith(_CUT) and column > _BEFORE_CARET:
        column = _BEFORE_CARET
    # A tab stays a tab, so that the caret stands right whatever width a terminal gives it.
    indent = "".join("\t" if char == "\t" else " " for char in problem.source[:column])
    width = max(1, min(problem.width, len(problem.source) - column))
    gutter = f"{problem.line:>6} | "
    return f"{text}\n{gutter}{problem.source}\n{' ' * 6} | {indent}{'^' * width}"
