"""RLP, "Reinforcement as a Pretraining Objective" (arXiv 2510.01265), as a library on torch and transformers."""

__version__ = "0.1.0"
