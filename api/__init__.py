"""The HTTP API: one router per pattern, and a folder per further subject.

`components` is its composition root; handlers get single components by the typed dependencies of their room. They
start, read and cancel workflows by name: nothing here imports `workflows/` or `activities/`.
"""
