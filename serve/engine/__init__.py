"""A file in; per face what every detector says of it, and why, in honest words."""
