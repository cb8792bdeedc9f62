"""cuvee: split-merge distillation of reasoning models.

Several teachers answer problems; answers are verified and selected; one specialist per
domain is trained on them; the specialists are merged into one model, which is evaluated
against its base and its specialists and released.

This module holds the version alone, so that ``import cuvee`` stays instant: it loads
neither torch nor transformers. Import what you need from the rooms
(``cuvee.verify``, ``cuvee.merge``, ...).
"""

__version__ = "0.1.0"
