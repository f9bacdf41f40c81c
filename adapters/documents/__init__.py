"""Documents: the text of plain text, HTML and PDF, each read in a confined process of its own."""
