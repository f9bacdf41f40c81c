"""Other people's wires: each room speaks one, and translates it to the gateway's own contracts."""
