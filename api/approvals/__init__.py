"""People answer what agents ask: by the API, or on a page behind a one-time link."""
