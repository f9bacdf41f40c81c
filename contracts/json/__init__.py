"""JSON: strict parsing with limits, JSON Pointers, and JSON Schemas whose check is cheap."""
