"""A user's own pictures and videos judged: every face or the whole picture."""
