"""The `sevenfold` command. `main` is the entry point; each subcommand that prints has a file of its own."""
