"""Activities of runs: call the agent, read a document, process a chunk of a job's items, cancel a run."""
