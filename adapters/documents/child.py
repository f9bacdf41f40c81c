"""The process that reads one document: `python -m sevenfold.adapters.documents.child ORDER`, bytes in, JSON out.

Documents come from anybody, and readers of PDF and HTML can be made to work and to hoard without end. Here that
ends a process that nobody misses.
"""

import json
import logging
import resource
import sys
from importlib import import_module
from math import ceil
from typing import Any

from sevenfold.adapters.documents.limits import Limits, damaged_error, too_demanding_error
from sevenfold.contracts.document_errors import DocumentError


def main() -> None:
    """Answers with the fields of `Extracted`, or with `fault` and `detail` of a DocumentError."""
    order = json.loads(sys.argv[1])
    limits = Limits(**order["limits"])
    _confine(limits)
    logging.disable()  # readers warn of every oddity, and the document decides how many there are
    # By name: the reader of PDF takes ten times as long to load as the others.
    reader = import_module(f"sevenfold.adapters.documents.{order['kind']}")
    answer = json.dumps(_answer(reader.extract, order["charset"], limits), ensure_ascii=False)
    sys.stdout.buffer.write(answer.encode())


def _confine(limits: Limits) -> None:
    _lower(resource.RLIMIT_CORE, 0)  # a dump would hold the document
    # The gateway looks at the clock, and is the first to; but it may be gone.
    _lower(resource.RLIMIT_CPU, ceil(limits.seconds) + 1)
    if sys.platform == "linux":  # elsewhere it is refused, or means nothing
        _lower(resource.RLIMIT_AS, limits.memory_bytes)


def _lower(what: int, amount: int) -> None:
    _, hard = resource.getrlimit(what)
    # The hard limit stays: at that of the processor's time the signal is one that tells nothing.
    resource.setrlimit(what, (amount if hard == resource.RLIM_INFINITY else min(amount, hard), hard))


def _answer(extract: Any, charset: str | None, limits: Limits) -> dict[str, Any]:
    try:
        found = extract(sys.stdin.buffer.read(), charset, limits)
    except DocumentError as error:
        problem = error
    except MemoryError:
        problem = too_demanding_error("memory")
    except Exception:  # whatever a broken file makes of a reader; its words are not for the client
        problem = damaged_error()
    else:
        return dict(found._asdict())
    return {"fault": problem.fault, "detail": problem.detail}


if __name__ == "__main__":
    main()
