"""A program as an agent: the request is JSON on standard input, the answer JSON on standard output."""

import json
import sys

request = json.load(sys.stdin)
words = (request["query"] or "").split()
print(json.dumps({"percent": 50, "note": "counting"}), flush=True)
print(json.dumps({"response": f"{len(words)} words", "data": {"words": len(words)}}))
