"""What an experiment is: its configuration, its protocol, its plan and its price."""
