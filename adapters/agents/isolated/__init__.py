"""Python agents in child processes: a pool in the worker, and the program that each child runs."""
