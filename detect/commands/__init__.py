"""The sub-commands of ``detect``, one module each."""
