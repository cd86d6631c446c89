"""The one training loop, which generators and detectors share."""
