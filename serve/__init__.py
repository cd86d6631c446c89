"""The page where anyone can analyse a picture or a video, and the API beside it."""
