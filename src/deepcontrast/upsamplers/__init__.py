"""What a user would do instead to bring planes as close as pixels; each file one method, a function of (Z, Y, X).

Each method is given the distance of planes in pixels, ``factor``, and returns ``round(Z factor)`` planes that lie where
:func:`deepcontrast.upsampled.places` says. Beside the function, a file holds ``CHOICES``, the settings among which the
best is taken where the truth is known; a choice replaces some of the defaults.
"""
