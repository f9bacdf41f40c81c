"""The child process that reads one document: `python -m sevenfold.adapters.documents.child ORDER`, bytes in, JSON
out.

Documents are untrusted, and parsers of PDF and HTML can be made to use unbounded time and memory. Limits then end
this process, without harm to the gateway.
"""

import json
import logging
import resource
import sys
from importlib import import_module
from math import ceil
from typing import Any

from sevenfold.adapters.documents.limits import DocumentLimits, damaged_error, too_demanding_error
from sevenfold.contracts.agents.document_errors import DocumentError


def main() -> None:
    """Writes the fields of `Extracted`, or `fault` and `detail` of a DocumentError."""
    order = json.loads(sys.argv[1])
    limits = DocumentLimits(**order["limits"])
    _confine(limits)
    logging.disable()  # Parsers log every irregularity, and the document decides how many there are.
    # Imported by name: the PDF parser takes ten times as long to load as the others.
    reader = import_module(f"sevenfold.adapters.documents.{order['kind']}")
    answer = json.dumps(_answer(reader.extract, order["charset"], limits), ensure_ascii=False)
    sys.stdout.buffer.write(answer.encode())


def _confine(limits: DocumentLimits) -> None:
    _lower(resource.RLIMIT_CORE, 0)  # A core dump would contain the document.
    # The gateway's own time-out comes first; this limit holds if the gateway died.
    _lower(resource.RLIMIT_CPU, ceil(limits.seconds) + 1)
    if sys.platform == "linux":  # Other systems reject it or ignore it.
        _lower(resource.RLIMIT_AS, limits.memory_bytes)


def _lower(what: int, amount: int) -> None:
    _, hard = resource.getrlimit(what)
    # The hard limit stays: exceeding the hard limit of processor time sends SIGKILL, which does not name the cause.
    resource.setrlimit(what, (amount if hard == resource.RLIM_INFINITY else min(amount, hard), hard))


def _answer(extract: Any, charset: str | None, limits: DocumentLimits) -> dict[str, Any]:
    try:
        found = extract(sys.stdin.buffer.read(), charset, limits)
    except DocumentError as error:
        problem = error
    except MemoryError:
        problem = too_demanding_error("memory")
    except Exception:  # A damaged file can raise anything in a parser; the text of the exception is not for clients.
        problem = damaged_error()
    else:
        return dict(found._asdict())
    return {"fault": problem.fault, "detail": problem.detail}


if __name__ == "__main__":
    main()
