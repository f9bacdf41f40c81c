"""Agents: the kinds that `sevenfold.toml` can name, and how they are loaded and called.

`loading` builds each agent, `registry` holds them, `error_boundary` turns whatever an agent raises into one
`AgentError`. `callables` is the kind `python`, `simulator` the kind of the same name.
"""
