"""The `sevenfold` command: one file per subcommand that prints something; `main` is the entry point."""
