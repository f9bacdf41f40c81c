"""The HTTP API: one router per pattern, and a folder per further subject.

`app` is its composition root, `dependencies` what handlers are given. Handlers start, read and cancel workflows by
name: nothing here imports `workflows/` or `activities/`.
"""
