"""The log of streams in the runs' own histories, in the form of Temporal's Workflow Streams."""
