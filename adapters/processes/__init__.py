"""Child processes: what they inherit, and how they end with their parent."""
