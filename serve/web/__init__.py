"""The API and the page, and what stands between them and strangers."""
