"""What is read from Temporal: how runs stand and end, durations, pollers, search attributes, errors that pass."""
