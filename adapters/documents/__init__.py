"""Documents: extracts the text of plain text, HTML and PDF, each in a confined child process."""
