"""Image inversion: what inputs looked like, from what a network answered about them."""

from privet.attacks.inversion.descent import AdamDescent, Descent, SignDescent
from privet.attacks.inversion.gradient import GradientInversion, GradientReconstruction
from privet.attacks.inversion.gradient_loss import BoundedDescent, CosineDistance, LineSearch, SquaredDistance
from privet.attacks.inversion.pictures import from_best_to_worst, save_grid
from privet.attacks.inversion.priors import Normalisation
from privet.attacks.inversion.quality import InversionQuality, Quality, evaluate
from privet.attacks.inversion.representation import Reconstruction, Representation

__all__ = [
    "AdamDescent",
    "BoundedDescent",
    "CosineDistance",
    "Descent",
    "GradientInversion",
    "GradientReconstruction",
    "InversionQuality",
    "LineSearch",
    "Normalisation",
    "Quality",
    "Reconstruction",
    "Representation",
    "SignDescent",
    "SquaredDistance",
    "evaluate",
    "from_best_to_worst",
    "save_grid",
]
