"""HTTP to URLs of users: only to the public internet, limited in size and time."""
