"""The page where anyone can analyse a picture or a video, and the engine, the API and the reports behind it."""
