"""Agents: the kinds that `sevenfold.toml` can name, and how they are loaded and called.

`loading` builds each agent, `registry` holds them, `error_boundary` converts every exception of agent code to an
`AgentError`. `callables` is the kind `python`, `isolated/` the same in processes of its own, `command_agent` the kind
`command`, `simulator` the kind of the same name.
"""
