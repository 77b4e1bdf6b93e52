"""Training: one loop for all methods."""

from mmsa_lib.training.evaluate import predict, represent
from mmsa_lib.training.fit import FitResult, fit
from mmsa_lib.training.seeding import seed_everything
from mmsa_lib.training.settings import TrainSettings

__all__ = ["FitResult", "TrainSettings", "fit", "predict", "represent", "seed_everything"]
