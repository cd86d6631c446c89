"""Files of others read as data: what they ask to be run is not run."""
