"""What this process counts and measures: the metrics by subject, and the page that shows them."""
