"""Why a detector says what it says, and whether the explanation is true.

Methods that make a map of what speaks for fake: ``gradcam``, ``gradcam++``, ``hirescam``, ``integrated-gradients``,
``occlusion``, ``rollout``. Methods that make a picture: ``spectrum``, ``prototypes``. All are in
:data:`crossfake.detect.explain.methods.METHODS`; the tests are in :mod:`crossfake.detect.explain.faithfulness`.

Example:
    >>> from crossfake.detect.bundle.bundle import load
    >>> from crossfake.detect.explain.methods import attribute
    >>> attribute(load("runs/d").network, images, "gradcam").shape  # doctest: +SKIP
    (8, 64, 64)
"""
