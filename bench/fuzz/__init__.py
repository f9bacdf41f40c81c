"""Hostile inputs: the product, as processes of its own, is sent what no honest client sends, while another process
measures whether it still answers. `python -m bench.fuzz`.
"""
