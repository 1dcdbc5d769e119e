"""The digital smear phantom: a blood-smear field that is drawn, so that its truth is known.

Radiology tests its devices with phantoms; this is one for smears. `draw_field` gives the picture
and every white cell in it. It serves the demo and the tests; it is never trained on.
"""

from listener.demo.phantom.field import PhantomCell, PhantomField, Recipe, draw_field

__all__ = ["PhantomCell", "PhantomField", "Recipe", "draw_field"]
