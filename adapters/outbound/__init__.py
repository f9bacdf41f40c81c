"""HTTP to addresses that users gave: only to the public internet, within bounds of size and time."""
