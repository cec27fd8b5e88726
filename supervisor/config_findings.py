"""What the checks of a config find, each thing at its place in the file."""

from __future__ import annotations

from msgspec import Struct, field

from shared.errors import Problem
from supervisor.config_positions import Path, Positions, path_text


class Findings(Struct):
    """What the checks found; the places in a list of routes or listeners are those of the file."""

    positions: Positions
    route_places: list[int] = field(default_factory=list)  # of config.routes; empty: the same
    listener_places: list[int] = field(default_factory=list)
    errors: list[Problem] = field(default_factory=list)  # of this file, and of its list files
    warnings: list[Problem] = field(default_factory=list)

    def route(self, index: int, *rest: str | int) -> Path:
        """Path of a route of the config, or of something in it."""
        return ("routes", self.route_places[index] if self.route_places else index, *rest)

    def listener(self, index: int, *rest: str | int) -> Path:
        """Path of an entry of ``listeners``, or of something in it."""
        return ("listeners", self.listener_places[index] if self.listener_places else index, *rest)

    def error(self, path: Path, message: str, hint: str = "", code: str = "conflict") -> None:
        """Note what refuses the config."""
        self.errors.append(self.positions.problem(path, message, code=code, hint=hint))

    def warn(self, path: Path, message: str, hint: str = "", code: str = "doubtful") -> None:
        """Note what is shown and accepted."""
        self.warnings.append(self.positions.problem(path, message, code=code, hint=hint))

    def seen_at(self, path: Path) -> str:
        """A hint: where the first of two stands."""
        mark = self.positions.mark(path)
        return f"first at {path_text(path)}" + (f", line {mark.line}" if mark else "")
