"""Fault injection: the product's processes are killed, stopped and cut off while clients use all patterns, and then
it is counted what was lost or done twice. `python -m bench.faults`.
"""
