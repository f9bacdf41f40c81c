"""Encryption of what Temporal and Redis store: the key ring, and the codec and failure converter of Temporal."""
