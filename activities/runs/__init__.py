"""Activities of runs: call the agent, read a document, work through a chunk of a job's items, cancel a run."""
