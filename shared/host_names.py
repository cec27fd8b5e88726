"""Host names with letters beyond ASCII, in the form that DNS, TLS and HTTP know.

UTS #46 and IDNA 2008 (RFC 5891), as browsers have it. Python's own codec is of IDNA 2003, by which
``straße.de`` is ``strasse.de``: another name, which may be another's.
"""

from __future__ import annotations


def ascii_name(name: str) -> str:
    """The name with A-labels for all labels that need them; others are left as they are.

    So names in use that IDNA would refuse, with underscores, stay what they are. ValueError says
    what is wrong with the rest.
    """
    if name.isascii():
        return name
    import idna  # its tables cost time and memory, and most configs need none

    try:
        # The whole first: it also makes dots of other full stops.
        mapped = idna.uts46_remap(name, std3_rules=False, transitional=False)
        return ".".join(
            label if label.isascii() else idna.alabel(label).decode("ascii")
            for label in mapped.split(".")
        )
    except idna.IDNAError as error:
        raise ValueError(str(error)) from None
