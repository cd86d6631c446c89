"""crossfake: does training on one's own GAN fakes help against generators never seen?

Sub-packages, from the bottom up: ``crossfake`` (this one: what every part shares),
``crossfake.datasets``, ``crossfake.synth`` and ``crossfake.detect`` side by side, and
``crossfake.serve`` and ``crossfake.experiments`` on top. Imports run only downwards.
"""

__version__ = "0.1.0"
